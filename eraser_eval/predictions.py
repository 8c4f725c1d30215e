"""Prediction files: one line per annotation, what a model predicted and which tokens it gave as the reason.

    {"annotation_id": ..., "rationales": [{"docid": ..., "hard_rationale_predictions": [{"start_token", "end_token"}],
     "soft_rationale_predictions": [score per token], "soft_sentence_predictions": [score per sentence]}],
     "classification": ..., "classification_scores": {class: probability},
     "comprehensiveness_classification_scores": {...}, "sufficiency_classification_scores": {...},
     "thresholded_scores": [{"threshold": ..., both distributions}], "tokens_to_flip": ...}

All but the first two fields may be left out, in the whole file. Here a line is looked at alone; what it must have in
common with the gold and with the other lines is checked by `eraser_eval.checks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eraser_eval.errors import InputError, shown
from eraser_eval.fields import Row, distribution, name, number, numbers, objects, required, text, whole, wrong
from eraser_eval.lines import Place, read_objects, write_objects

HARD, SOFT, SENTENCES = "hard_rationale_predictions", "soft_rationale_predictions", "soft_sentence_predictions"
SCORES = "classification_scores"
COMPREHENSIVENESS = "comprehensiveness_classification_scores"
SUFFICIENCY = "sufficiency_classification_scores"
SPAN_FIELDS = {"start_token", "end_token"}
ENTRY_FIELDS = {"docid", HARD, SOFT, SENTENCES}
ERASED_FIELDS = {"threshold", COMPREHENSIVENESS, SUFFICIENCY}
LINE_FIELDS = {
    *("annotation_id", "rationales", "classification", "tokens_to_flip", "thresholded_scores"),
    *(SCORES, COMPREHENSIVENESS, SUFFICIENCY),
}

THRESHOLD_TOLERANCE = 1e-9
"""Thresholds that differ by less are one: 0.1 + 0.2 is not 0.3 in binary."""

SUM_TOLERANCE = 0.01
"""How far probabilities may sum from 1: they are written rounded, or come from 16-bit floats."""

Distribution = Mapping[str, float]
"""Class -> probability."""


@dataclass(frozen=True, slots=True)
class Rationale:
    """What a model gave as its reason in one document; None where the file has no such field.

    Attributes:
        docid: the document.
        hard: the predicted spans [start, end), in order and each once.
        soft: a score per token [n].
        sentences: a score per sentence [s].
    """

    docid: str
    hard: tuple[tuple[int, int], ...] | None = None
    soft: NDArray[np.float64] | None = None
    sentences: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Erased:
    """Class probabilities without the rationale (comprehensiveness) and with nothing else (sufficiency)."""

    comprehensiveness: Distribution | None = None
    sufficiency: Distribution | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A line of a prediction file; None where the file has no such field.

    Attributes:
        annotation_id: the annotation.
        rationales: its documents, each once.
        classification: the predicted class.
        scores: class probabilities on the whole input.
        erased: the same after erasing.
        thresholded: share of the tokens that was erased -> class probabilities.
        tokens_to_flip: how many tokens had to be erased until the class changed.
        ignored: fields of the line, and of what is in it, that ERASER does not have.
    """

    annotation_id: str
    rationales: tuple[Rationale, ...] = ()
    classification: str | None = None
    scores: Distribution | None = None
    erased: Erased = Erased()
    thresholded: Mapping[float, Erased] | None = None
    tokens_to_flip: int | None = None
    ignored: tuple[str, ...] = ()


def read_predictions(path: Path) -> Iterator[tuple[Place, Prediction]]:
    """(place, prediction) of every line, one after the other.

    Raises:
        InputError: the file cannot be read, or a line is malformed.
    """
    return ((place, _prediction(row, place)) for place, row in read_objects(path))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a prediction file, gzipped where its name ends with .gz; it appears when it is whole.

    Raises:
        InputError: a number is not finite.
    """
    write_objects(path, map(_row, predictions))


def same_threshold(one: float, other: float) -> bool:
    """Whether two thresholds are one, apart from rounding."""
    return math.isclose(one, other, rel_tol=0, abs_tol=THRESHOLD_TOLERANCE)


def _prediction(row: Row, place: Place) -> Prediction:
    annotation_id = name(required(row, "annotation_id", place), "annotation_id", place)
    entries = objects(row, "rationales", place)
    rationales = tuple(_rationale(entry, place) for entry in entries)
    entered = [each.docid for each in rationales]
    if len(set(entered)) != len(entered):
        raise InputError(f"{place} enters a document twice, {shown(entered)}; enter it once")
    found = Prediction(
        annotation_id,
        rationales,
        classification=text(row, "classification", place) if "classification" in row else None,
        scores=distribution(row, SCORES, place) if SCORES in row else None,
        erased=_erased(row, place),
        thresholded=_thresholded(row, place) if "thresholded_scores" in row else None,
        tokens_to_flip=whole(row, "tokens_to_flip", place) if "tokens_to_flip" in row else None,
        ignored=_ignored(row, entries),
    )
    _check_classes(found, place)
    return found


def _ignored(row: Row, entries: Sequence[Row]) -> tuple[str, ...]:
    """Fields that ERASER does not have, of a line that has been read."""
    spans = [span for entry in entries for span in entry.get(HARD, ())]
    known = (
        ([row], LINE_FIELDS),
        (entries, ENTRY_FIELDS),
        (spans, SPAN_FIELDS),
        (row.get("thresholded_scores", ()), ERASED_FIELDS),
    )
    return tuple(sorted({field for rows, fields in known for each in rows for field in each if field not in fields}))


def _rationale(entry: Row, place: Place) -> Rationale:
    return Rationale(
        name(required(entry, "docid", place), "docid", place),
        hard=_spans(entry, place) if HARD in entry else None,
        soft=numbers(entry, SOFT, place) if SOFT in entry else None,
        sentences=numbers(entry, SENTENCES, place) if SENTENCES in entry else None,
    )


def _spans(entry: Row, place: Place) -> tuple[tuple[int, int], ...]:
    """The distinct spans in order; published files repeat some."""
    spans = (
        (whole(each, "start_token", place), whole(each, "end_token", place)) for each in objects(entry, HARD, place)
    )
    found = sorted(set(spans))
    for start, end in found:
        if not 0 <= start < end:
            raise InputError(f"{place}: predicted tokens [{start}, {end}) are no span; it needs 0 <= start < end")
    for (one, end), (other, last) in pairwise(found):
        if other < end:
            raise InputError(
                f"{place}: predicted spans [{one}, {end}) and [{other}, {last}) of document {shown(entry['docid'])} "
                "overlap; merge them"
            )
    return tuple(found)


def _erased(row: Row, place: Place) -> Erased:
    return Erased(
        comprehensiveness=distribution(row, COMPREHENSIVENESS, place) if COMPREHENSIVENESS in row else None,
        sufficiency=distribution(row, SUFFICIENCY, place) if SUFFICIENCY in row else None,
    )


def _thresholded(row: Row, place: Place) -> dict[float, Erased]:
    found: dict[float, Erased] = {}
    for each in objects(row, "thresholded_scores", place):
        threshold = number(each, "threshold", place)
        if not 0 < threshold <= 1:
            raise InputError(f"{place}: threshold {threshold} is no share of the tokens; it needs 0 < threshold <= 1")
        for field in (COMPREHENSIVENESS, SUFFICIENCY):
            required(each, field, place)
        if any(same_threshold(threshold, other) for other in found):
            raise InputError(f"{place}: threshold {threshold} is there twice; keep one")
        found[threshold] = _erased(each, place)
    if not found:
        raise InputError(f"{place}: thresholded_scores is empty; give at least one threshold, or leave the field out")
    return dict(sorted(found.items()))


def _check_classes(found: Prediction, place: Place) -> None:
    """Class, probabilities and those after erasing belong together, and speak of the same classes."""
    label, scores = found.classification, found.scores
    erased = [found.erased, *(found.thresholded or {}).values()]
    if label is None or scores is None:
        if (label, scores, erased) != (None, None, [Erased()]):
            raise InputError(f"{place}: classification, {SCORES} and scores after erasing need one another; add them")
        return
    if label not in scores:
        raise InputError(f"{place}: class {shown(label)} is not one of its own {SCORES}, {shown(scores)}; add it there")
    _check_probabilities(SCORES, scores, place=place, classes=scores)
    for each in erased:
        for field, after in _distributions(each).items():
            _check_probabilities(field, after, place=place, classes=scores)


def _check_probabilities(field: str, found: Distribution, *, place: Place, classes: Distribution) -> None:
    if found.keys() != classes.keys():
        raise InputError(
            f"{place}: {field} has the classes {shown(sorted(found))}, but {SCORES} has {shown(sorted(classes))}; "
            "give the same"
        )
    if min(found.values()) < 0:
        wrong(field, found, rule="must be probabilities, of which none is negative; apply a softmax", place=place)
    if abs(sum(found.values()) - 1) > SUM_TOLERANCE:
        rule = f"must be probabilities that sum to 1, not to {sum(found.values()):.4g}; normalise them"
        wrong(field, found, rule=rule, place=place)


def _row(prediction: Prediction) -> dict[str, Any]:
    fields = {
        "annotation_id": prediction.annotation_id,
        "rationales": [_entry(each) for each in prediction.rationales],
        "classification": prediction.classification,
        SCORES: prediction.scores,
        **_distributions(prediction.erased),
        "thresholded_scores": prediction.thresholded
        and [{"threshold": share, **_distributions(each)} for share, each in prediction.thresholded.items()],
        "tokens_to_flip": prediction.tokens_to_flip,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _entry(rationale: Rationale) -> dict[str, Any]:
    fields = {
        "docid": rationale.docid,
        HARD: None
        if rationale.hard is None
        else [{"start_token": int(start), "end_token": int(end)} for start, end in rationale.hard],
        SOFT: None if rationale.soft is None else rationale.soft.tolist(),
        SENTENCES: None if rationale.sentences is None else rationale.sentences.tolist(),
    }
    return {field: value for field, value in fields.items() if value is not None}


def _distributions(erased: Erased) -> dict[str, Distribution]:
    found = {COMPREHENSIVENESS: erased.comprehensiveness, SUFFICIENCY: erased.sufficiency}
    return {field: value for field, value in found.items() if value is not None}
