"""What is kept of a prediction file while it is read: some numbers of each document and annotation, in tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.gold import NO_SPANS, Gold, Spans
from eraser_eval.formats.predictions import Prediction, Rationale
from eraser_eval.metrics.agreement import Level, at_uniform_level
from eraser_eval.metrics.classification import Classes
from eraser_eval.metrics.faithfulness import line_values
from eraser_eval.metrics.plausibility import hard_counts
from eraser_eval.metrics.ranking import ranking
from eraser_eval.metrics.table import Array, Table

MOST_RESAMPLES = 100_000
"""Of which a number takes 0.8 MB each time it is drawn."""

DocumentRow = dict[str, Any]
"""The values of one annotation and document; None where a value is undefined."""


@dataclass(frozen=True)
class Settings:
    """How to score.

    Attributes:
        iou_thresholds: from which intersection over union on two spans meet.
        aopc_thresholds: which shares of erased tokens to average; None for the official ones, or else the file's.
        strict: refuse a file without classes and comprehensiveness, as the official --strict does.
        resamples: bootstrap resamples of each interval; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        InputError: a threshold is not in (0, 1] or is there twice, or a number is negative.
    """

    iou_thresholds: tuple[float, ...] = (0.5,)
    aopc_thresholds: tuple[float, ...] | None = None
    strict: bool = False
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, given in (("iou", self.iou_thresholds), ("aopc", self.aopc_thresholds)):
            for threshold in given or ():
                if not 0 < threshold <= 1:
                    raise InputError(f"{name} threshold {threshold} is out of range; it needs 0 < threshold <= 1")
            if given is not None and len(set(given)) != max(len(given), 1):
                raise InputError(f"{name} thresholds are {shorten(list(given))}; give at least one, and each once")
        if self.resamples > MOST_RESAMPLES:
            raise InputError(f"resamples is {self.resamples}, but {MOST_RESAMPLES:,} are the most; 1000 are usual")
        for name, number in (("resamples", self.resamples), ("seed", self.seed)):
            if number < 0:
                raise InputError(f"{name} is {number}, but cannot be negative; give 0 or more")


class Scorer:
    """The tables, and what is worth a note.

    Attributes:
        hard: a row per pair of an annotation and a document.
        soft: a row per pair with token scores.
        sentences: a row per pair with sentence scores.
        lines: a row per annotation with scores after erasing.
        classes: a row per annotation with a class.
        constant: how many documents have one score for all tokens.
        negative: how many documents have a score below 0.
    """

    def __init__(self, gold: Gold, settings: Settings) -> None:
        self.gold = gold
        self.settings = settings
        self.hard, self.soft, self.sentences, self.lines = Table(), Table(), Table(), Table()
        self.classes = Classes()
        self.constant = 0
        self.negative = 0

    def add(self, row: int, prediction: Prediction) -> Iterator[DocumentRow]:
        """Add a checked line of the annotation with number `row`, and yield the values of each document."""
        entries = {rationale.docid: rationale for rationale in prediction.rationales}
        pairs = self.gold.pairs(row)
        for docid in {**pairs, **entries}:
            values = self._document(pairs.get(docid), entries.get(docid, Rationale(docid)))
            yield {"annotation_id": prediction.annotation_id, "docid": docid, **values}
        line = line_values(prediction, self.gold.evidence_tokens(row))
        if line:
            self.lines.append(line)
        if prediction.classification is not None:
            self.classes.append(self.gold.labels[row], prediction.classification)

    def _document(self, pair: int | None, entry: Rationale) -> DocumentRow:
        spans = NO_SPANS if pair is None else self.gold.spans[pair]
        predicted = np.array(entry.hard or (), np.int32).reshape(-1, 2)
        counts = hard_counts(spans, predicted, self.settings.iou_thresholds)
        self.hard.append(counts)
        values: DocumentRow = {} if entry.hard is None else dict(counts)
        if entry.soft is not None:
            values |= self._soft(spans, entry.soft)
        if entry.sentences is not None:
            sentences = NO_SPANS if pair is None else self.gold.sentences[pair]
            areas = ranking(_mask_up_to(sentences, len(entry.sentences)), entry.sentences)._asdict()
            self.sentences.append(areas)
            values |= {f"sentence_{name}": _none_if_undefined(value) for name, value in areas.items()}
        return values

    def _soft(self, spans: Spans, scores: Array) -> DocumentRow:
        marked = _mask_up_to(spans, len(scores))
        low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
        self.constant += bool(low == high)
        self.negative += bool(low < 0)
        areas = ranking(marked, scores)._asdict()
        # Below 0 there is no share of the sum; then no number at the level is reported of the file.
        level = Level(len(scores), int(marked.sum()), 0, 0) if low < 0 else at_uniform_level(marked, scores)
        self.soft.append({**areas, **level._asdict()})
        values = {name: _none_if_undefined(value) for name, value in areas.items()}
        return values if low < 0 else {**values, **level.document_row()}


def _mask_up_to(spans: Spans, length: int) -> NDArray[np.bool_]:
    """Mark which of `length` tokens or sentences lie in a span."""
    mask = np.zeros(length, np.bool_)
    for start, end in spans.tolist():
        mask[start:end] = True
    return mask


def _none_if_undefined(value: float) -> float | None:
    return None if math.isnan(value) else value
