"""The gold of one split, packed: some hundred bytes for each document, however long it is."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eraser_eval.errors import InputError
from eraser_eval.formats.documents import Size, read_sizes
from eraser_eval.formats.schema import Annotation, Evidence, read_annotations

Spans = NDArray[np.int32]
"""Distinct half-open spans in order [k, 2]."""

NO_SPANS: Spans = np.empty((0, 2), np.int32)


@dataclass
class Packed:
    """A list of lists of spans in two flat arrays."""

    numbers: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def append(self, spans: Iterable[tuple[int, int]]) -> None:
        """Add a list, each of its spans once."""
        for span in sorted(set(spans)):
            self.numbers.extend(span)
        self.ends.append(len(self.numbers))

    def __getitem__(self, index: int) -> Spans:
        start, end = self.ends[index], self.ends[index + 1]
        return np.array(self.numbers[start:end], np.int32).reshape(-1, 2)


@dataclass
class Gold:
    """The annotations of a split; a pair is an annotation and one of its documents.

    Attributes:
        sizes: docid -> tokens and sentences, of every document of the folder.
        rows: annotation id -> its number.
        labels: the gold class of each annotation.
        listed: whether the line of each annotation lists its documents.
        first: the number of each annotation's first pair, and the number of pairs at the end.
        docids: the document of each pair.
        spans: the gold spans of each pair, of all evidence groups together.
        sentences: the same in sentences, -1 where they are not known.
        empty: how many spans have no token; they count as spans that nobody can find.
    """

    sizes: Mapping[str, Size]
    rows: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    listed: bytearray = field(default_factory=bytearray)
    first: array[int] = field(default_factory=lambda: array("q", [0]))
    docids: list[str] = field(default_factory=list)
    spans: Packed = field(default_factory=Packed)
    sentences: Packed = field(default_factory=Packed)
    empty: int = 0

    def append(self, annotation: Annotation, *, listed: bool) -> None:
        """Add an annotation and its pairs."""
        self.rows[annotation.annotation_id] = len(self.rows)
        self.labels.append(annotation.classification)
        self.listed.append(listed)
        evidence: dict[str, list[Evidence]] = {docid: [] for docid in annotation.docids}
        for span in annotation.spans:
            evidence[span.docid].append(span)
        for docid, spans in evidence.items():
            self.docids.append(docid)
            self.spans.append((span.start_token, span.end_token) for span in spans)
            self.sentences.append((span.start_sentence, span.end_sentence) for span in spans)
            self.empty += sum(span.start_token == span.end_token for span in spans)
        self.first.append(len(self.docids))

    def pairs(self, row: int) -> dict[str, int]:
        """Return docid -> number of the pair, for each document of an annotation."""
        return {self.docids[pair]: pair for pair in range(self.first[row], self.first[row + 1])}

    def evidence_tokens(self, row: int) -> int:
        """Count the tokens of the documents that have evidence, or of all documents where none has."""
        pairs = self.pairs(row)
        with_evidence = [docid for docid, pair in pairs.items() if len(self.spans[pair])]
        return sum(self.sizes[docid].tokens for docid in with_evidence or pairs)


def read_gold(folder: Path, split: str) -> Gold:
    """Read the gold of a split, packed while it is read.

    Raises:
        InputError: the documents or the split are missing or malformed, or the split is empty.
    """
    gold = Gold(read_sizes(folder))
    labels: dict[str, str] = {}
    for annotation, listed in read_annotations(folder, split, gold.sizes):
        gold.append(annotation, listed=listed)
        gold.labels[-1] = labels.setdefault(annotation.classification, annotation.classification)
    if not gold.rows:
        raise InputError(f"{folder / f'{split}.jsonl'} has no annotation; there is nothing to score against")
    return gold
