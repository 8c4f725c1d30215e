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

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.fields import Row, distribution, integer, name, number, numbers, objects, refuse, require, text
from eraser_eval.formats.lines import Location, read_objects, write_objects

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


def read_predictions(path: Path) -> Iterator[tuple[Location, Prediction]]:
    """Yield (location, prediction) of every line, one after the other.

    Raises:
        InputError: the file cannot be read, or a line is malformed.
    """
    return ((where, _prediction(row, where)) for where, row in read_objects(path))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a prediction file, gzipped where its name ends with .gz; it appears when it is whole.

    Raises:
        InputError: a number is not finite.
    """
    write_objects(path, map(_row, predictions))


def same_threshold(one: float, other: float) -> bool:
    """Check whether two thresholds are equal, apart from rounding."""
    return math.isclose(one, other, rel_tol=0, abs_tol=THRESHOLD_TOLERANCE)


def _prediction(row: Row, where: Location) -> Prediction:
    annotation_id = name(require(row, "annotation_id", where), "annotation_id", where)
    entries = objects(row, "rationales", where)
    rationales = tuple(_rationale(entry, where) for entry in entries)
    entered = [each.docid for each in rationales]
    if len(set(entered)) != len(entered):
        raise InputError(f"{where} enters a document twice, {shorten(entered)}; enter it once")
    prediction = Prediction(
        annotation_id,
        rationales,
        classification=text(row, "classification", where) if "classification" in row else None,
        scores=distribution(row, SCORES, where) if SCORES in row else None,
        erased=_read_erased(row, where),
        thresholded=_read_thresholds(row, where) if "thresholded_scores" in row else None,
        tokens_to_flip=integer(row, "tokens_to_flip", where) if "tokens_to_flip" in row else None,
        ignored=_unknown_fields(row, entries),
    )
    _check_classes(prediction, where)
    return prediction


def _unknown_fields(row: Row, entries: Sequence[Row]) -> tuple[str, ...]:
    """Return the fields of a line that ERASER does not have."""
    spans = [span for entry in entries for span in entry.get(HARD, ())]
    known = (
        ([row], LINE_FIELDS),
        (entries, ENTRY_FIELDS),
        (spans, SPAN_FIELDS),
        (row.get("thresholded_scores", ()), ERASED_FIELDS),
    )
    return tuple(sorted({field for rows, fields in known for each in rows for field in each if field not in fields}))


def _rationale(entry: Row, where: Location) -> Rationale:
    return Rationale(
        name(require(entry, "docid", where), "docid", where),
        hard=_spans(entry, where) if HARD in entry else None,
        soft=numbers(entry, SOFT, where) if SOFT in entry else None,
        sentences=numbers(entry, SENTENCES, where) if SENTENCES in entry else None,
    )


def _spans(entry: Row, where: Location) -> tuple[tuple[int, int], ...]:
    """Return the distinct spans in order; published files repeat some."""
    spans = (
        (integer(each, "start_token", where), integer(each, "end_token", where)) for each in objects(entry, HARD, where)
    )
    distinct = sorted(set(spans))
    for start, end in distinct:
        if not 0 <= start < end:
            raise InputError(f"{where}: predicted tokens [{start}, {end}) are no span; it needs 0 <= start < end")
    for (one, end), (other, last) in pairwise(distinct):
        if other < end:
            raise InputError(
                f"{where}: predicted spans [{one}, {end}) and [{other}, {last}) of document {shorten(entry['docid'])} "
                "overlap; merge them"
            )
    return tuple(distinct)


def _read_erased(row: Row, where: Location) -> Erased:
    return Erased(
        comprehensiveness=distribution(row, COMPREHENSIVENESS, where) if COMPREHENSIVENESS in row else None,
        sufficiency=distribution(row, SUFFICIENCY, where) if SUFFICIENCY in row else None,
    )


def _read_thresholds(row: Row, where: Location) -> dict[float, Erased]:
    by_threshold: dict[float, Erased] = {}
    for each in objects(row, "thresholded_scores", where):
        threshold = number(each, "threshold", where)
        if not 0 < threshold <= 1:
            raise InputError(f"{where}: threshold {threshold} is no share of the tokens; it needs 0 < threshold <= 1")
        for field in (COMPREHENSIVENESS, SUFFICIENCY):
            require(each, field, where)
        if any(same_threshold(threshold, other) for other in by_threshold):
            raise InputError(f"{where}: threshold {threshold} is there twice; keep one")
        by_threshold[threshold] = _read_erased(each, where)
    if not by_threshold:
        raise InputError(f"{where}: thresholded_scores is empty; give at least one threshold, or leave the field out")
    return dict(sorted(by_threshold.items()))


def _check_classes(prediction: Prediction, where: Location) -> None:
    """Check that class, probabilities and those after erasing are there together, for the same classes."""
    label, scores = prediction.classification, prediction.scores
    erased = [prediction.erased, *(prediction.thresholded or {}).values()]
    if label is None or scores is None:
        if (label, scores, erased) != (None, None, [Erased()]):
            raise InputError(f"{where}: classification, {SCORES} and scores after erasing need one another; add them")
        return
    if label not in scores:
        raise InputError(
            f"{where}: class {shorten(label)} is not one of its own {SCORES}, {shorten(scores)}; add it there"
        )
    _check_probabilities(SCORES, scores, where=where, classes=scores)
    for each in erased:
        for field, after in _distributions(each).items():
            _check_probabilities(field, after, where=where, classes=scores)


def _check_probabilities(field: str, given: Distribution, *, where: Location, classes: Distribution) -> None:
    if given.keys() != classes.keys():
        raise InputError(
            f"{where}: {field} has the classes {shorten(sorted(given))}, but {SCORES} has {shorten(sorted(classes))}; "
            "give the same"
        )
    if min(given.values()) < 0:
        refuse(field, given, rule="must be probabilities, of which none is negative; apply a softmax", where=where)
    if abs(sum(given.values()) - 1) > SUM_TOLERANCE:
        rule = f"must be probabilities that sum to 1, not to {sum(given.values()):.4g}; normalise them"
        refuse(field, given, rule=rule, where=where)


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
    by_field = {COMPREHENSIVENESS: erased.comprehensiveness, SUFFICIENCY: erased.sufficiency}
    return {field: value for field, value in by_field.items() if value is not None}
