"""What the lines of a prediction file must have in common with the gold, and with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.gold import Gold
from eraser_eval.formats.lines import Location
from eraser_eval.formats.predictions import (
    COMPREHENSIVENESS,
    HARD,
    SENTENCES,
    SOFT,
    SUFFICIENCY,
    Erased,
    Prediction,
    Rationale,
    read_predictions,
    same_threshold,
)


class Checks:
    """The state of a pass over a prediction file: what earlier lines had, and what is worth a note.

    Attributes:
        gold: what is checked against.
        seen: per annotation of the gold, whether the file has it.
        thresholds: those of the file, ascending; empty before the first line that has some.
        odd: lines whose class is not the most probable one.
        ignored: unknown field -> the first line that has it.
    """

    def __init__(self, gold: Gold) -> None:
        self.gold = gold
        self.seen = bytearray(len(gold.rows))
        self.thresholds: tuple[float, ...] = ()
        self.odd = 0
        self.ignored: dict[str, Location] = {}
        self._fields: dict[tuple[str, bool], Location] = {}
        self._labels = frozenset(gold.labels)
        self._unknown: dict[str, Location] = {}
        self._shared: frozenset[str] | None = None

    def has(self, field: str) -> bool:
        """Check whether the lines of the file have a field."""
        return (field, True) in self._fields

    def pass_over(self, path: Path) -> Iterator[tuple[int, Prediction]]:
        """Yield (number of the annotation, prediction) of every line, checked; then check the file as a whole.

        Raises:
            InputError: a line breaks a rule of the format, contradicts the gold or the other lines, or is missing.
        """
        for where, prediction in read_predictions(path):
            yield self._line(prediction, where), prediction
        missing = [name for name, row in self.gold.rows.items() if not self.seen[row]]
        if missing:
            raise InputError(
                f"{path} lacks {len(missing)} of {len(self.seen)} annotations, such as {shorten(missing[0])}; "
                "every annotation needs a line, with empty rationales where nothing is predicted"
            )
        for label, where in self._unknown.items():
            if label not in (self._shared or ()):
                known = shorten(sorted(self._labels))
                raise InputError(f"{where}: class {shorten(label)} is not among the gold's, {known}; is it misspelt?")
        if not any(map(self.has, (HARD, SOFT, SENTENCES, "classification"))):
            raise InputError(f"{path} has neither rationales nor classes; there is nothing to score")

    def _line(self, prediction: Prediction, where: Location) -> int:
        row = self.gold.rows.get(prediction.annotation_id)
        if row is None:
            raise InputError(f"{where}: annotation {shorten(prediction.annotation_id)} is not in the split; remove it")
        if self.seen[row]:
            raise InputError(f"{where}: annotation {shorten(prediction.annotation_id)} has a line already; keep one")
        self.seen[row] = True
        for field in prediction.ignored:
            self.ignored.setdefault(field, where)
        self._rationales(prediction, row=row, where=where)
        self._classes(prediction, row=row, where=where)
        return row

    def _rationales(self, prediction: Prediction, *, row: int, where: Location) -> None:
        pairs = self.gold.pairs(row)
        entered = {rationale.docid for rationale in prediction.rationales}
        for rationale in prediction.rationales:
            docid = rationale.docid
            if docid not in pairs and (self.gold.listed[row] or docid not in self.gold.sizes):
                raise InputError(
                    f"{where}: document {shorten(docid)} does not belong to annotation "
                    f"{shorten(prediction.annotation_id)}; its documents are {shorten(list(pairs))}"
                )
            self._present(HARD, there=rationale.hard is not None, where=where)
            self._present(SOFT, there=rationale.soft is not None, where=where)
            self._present(SENTENCES, there=rationale.sentences is not None, where=where)
            self._lengths(rationale, pair=pairs.get(docid), where=where)
        if any(docid not in entered and len(self.gold.spans[pair]) for docid, pair in pairs.items()):
            # A document without scores would be left out of their average.
            self._present(SOFT, there=False, where=where)
            self._present(SENTENCES, there=False, where=where)

    def _lengths(self, rationale: Rationale, *, pair: int | None, where: Location) -> None:
        length, sentences = self.gold.sizes[rationale.docid]
        about = f"document {shorten(rationale.docid)} of {length} tokens"
        if rationale.hard and rationale.hard[-1][1] > length:
            start, end = rationale.hard[-1]
            raise InputError(f"{where}: predicted tokens [{start}, {end}) lie outside {about}; count from 0")
        if rationale.soft is not None and len(rationale.soft) != length:
            raise InputError(f"{where}: {SOFT} holds {len(rationale.soft)} scores for {about}; give one per token")
        if rationale.sentences is None:
            return
        if len(rationale.sentences) != sentences:
            raise InputError(
                f"{where}: {SENTENCES} holds {len(rationale.sentences)} scores for document {shorten(rationale.docid)} "
                f"of {sentences} sentences; give one per line of it"
            )
        if pair is not None and (self.gold.sentences[pair] < 0).any():
            raise InputError(
                f"{where}: {SENTENCES} cannot be scored, for the gold of {shorten(rationale.docid)} has no sentence "
                "offsets; leave the field out"
            )

    def _classes(self, prediction: Prediction, *, row: int, where: Location) -> None:
        label, scores = prediction.classification, prediction.scores
        self._present("classification", there=label is not None, where=where)
        self._present(COMPREHENSIVENESS, there=prediction.erased.comprehensiveness is not None, where=where)
        self._present(SUFFICIENCY, there=prediction.erased.sufficiency is not None, where=where)
        self._present("thresholded_scores", there=prediction.thresholded is not None, where=where)
        self._present("tokens_to_flip", there=prediction.tokens_to_flip is not None, where=where)
        if label is not None and scores is not None:
            self._label(label, scores, where)
        if prediction.thresholded is not None:
            self._thresholds(prediction.thresholded, where)
        total = sum(self.gold.sizes[docid].tokens for docid in self.gold.pairs(row))
        if not 0 <= (prediction.tokens_to_flip or 0) <= total:
            raise InputError(
                f"{where}: tokens_to_flip is {prediction.tokens_to_flip}, but must lie between 0 and the "
                f"{total} tokens of the documents"
            )

    def _label(self, label: str, scores: Mapping[str, float], where: Location) -> None:
        if label not in self._labels:
            # The classes of a subset of the gold may not be all there are.
            self._unknown.setdefault(label, where)
        self._shared = frozenset(scores) if self._shared is None else self._shared & scores.keys()
        self.odd += scores[label] < max(scores.values())

    def _thresholds(self, thresholds: Mapping[float, Erased], where: Location) -> None:
        shares = tuple(thresholds)
        self.thresholds = self.thresholds or shares
        if len(shares) != len(self.thresholds) or not all(map(same_threshold, shares, self.thresholds)):
            raise InputError(
                f"{where} has the thresholds {list(shares)}, but an earlier line has {list(self.thresholds)}; "
                "every line needs the same"
            )

    def _present(self, field: str, *, there: bool, where: Location) -> None:
        self._fields.setdefault((field, there), where)
        if (field, not there) in self._fields:
            with_it, without = self._fields[field, True], self._fields[field, False]
            raise InputError(f"{without} lacks {field} where line {with_it.line} has it; it is all lines or none")
