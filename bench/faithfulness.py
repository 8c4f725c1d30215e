"""Which tokens a method gives as its reason, and what the model says without them, or with nothing else.

A token is erased by leaving it out: what remains closes up and is read again, as ERASER's reference does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bench.documents import Document, Mask, Precision, Reader, Values, answers
from bench.evaluation import Runnable
from eraser_eval.predictions import Erased

Layers = Literal["all", "last", "none"]
"""In which layers the rationales are erased."""

BUDGETS = (0.01, 0.05, 0.10, 0.20, 0.50)
"""Shares of the tokens that ERASER erases (DeYoung et al., 2020, section 5.2)."""


def highest(scores: Values, count: int) -> Mask:
    """[tokens]: the `count` tokens with the highest scores, the earlier of two that have the same."""
    found = np.zeros(len(scores), np.bool_)
    found[np.argsort(-scores, kind="stable")[:count]] = True
    return found


def budget(length: int, share: float) -> int:
    """So many of `length` tokens are at least `share` of them."""
    return math.ceil(length * share - 1e-9)


def runs_of(chosen: Mask) -> tuple[tuple[int, int], ...]:
    """The spans [start, end) of neighbouring tokens that are chosen."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(np.int8), [0]))))
    return tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2))


@dataclass(frozen=True)
class Eraser:
    """A model that reads documents with tokens left out; what it has read once it does not read again."""

    able: Runnable
    reader: Reader
    labels: Sequence[str]
    precision: Precision = "no"
    known: dict[tuple[str, bytes], Mapping[str, float]] = field(default_factory=dict, repr=False)

    def read(self, asked: Sequence[tuple[Document, Mask]]) -> list[Mapping[str, float]]:
        """Class probabilities of what `keep` leaves of each document."""
        keys = [(document.annotation_id, np.packbits(keep).tobytes()) for document, keep in asked]
        new = {key: one for key, one in zip(keys, asked, strict=True) if key not in self.known}
        said = answers(self.able, self.reader, list(new.values()), precision=self.precision) if new else []
        for key, answer in zip(new, said, strict=True):
            self.known[key] = dict(zip(self.labels, answer.probabilities.tolist(), strict=True))
        return [self.known[key] for key in keys]

    def erased(
        self, documents: Sequence[Document], scores: Sequence[Values], chosen: Sequence[Mask]
    ) -> list[tuple[Erased, Mapping[float, Erased]]]:
        """Of each document, the answers at the tokens `chosen`, and at ERASER's shares of those that score highest."""
        picked = [
            [own, *(highest(values, budget(len(values), share)) for share in BUDGETS)]
            for values, own in zip(scores, chosen, strict=True)
        ]
        asked = [
            (document, keep)
            for document, masks in zip(documents, picked, strict=True)
            for mask in masks
            for keep in (~mask, mask)
        ]
        read = iter(self.read(asked))
        found: list[tuple[Erased, Mapping[float, Erased]]] = []
        for _ in documents:
            own, *shares = [Erased(next(read), next(read)) for _ in range(1 + len(BUDGETS))]
            found.append((own, dict(zip(BUDGETS, shares, strict=True))))
        return found
