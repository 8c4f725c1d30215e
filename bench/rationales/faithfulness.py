"""Which tokens a method selects as its reason, and what the model answers without them, or to them alone.

A token is erased by leaving it out: what remains closes up and is read again, as ERASER's reference does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bench.backends.runners import Runner
from bench.rationales.documents import Document, Mask, Precision, Reader, Values, answers
from eraser_eval.formats.predictions import Erased

Layers = Literal["all", "last", "none"]
"""The layers in which the rationales are erased."""

BUDGETS = (0.01, 0.05, 0.10, 0.20, 0.50)
"""Shares of the tokens that ERASER erases (DeYoung et al., 2020, section 5.2)."""


def highest(scores: Values, count: int) -> Mask:
    """Return a mask [tokens] of the `count` tokens with the highest scores, the earlier of two that are equal."""
    mask = np.zeros(len(scores), np.bool_)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask


def budget(length: int, share: float) -> int:
    """Return how many of `length` tokens are at least `share` of them."""
    return math.ceil(length * share - 1e-9)


def runs_of(chosen: Mask) -> tuple[tuple[int, int], ...]:
    """Return the spans [start, end) of neighbouring tokens that are chosen."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(np.int8), [0]))))
    return tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2))


@dataclass(frozen=True)
class Eraser:
    """A model that reads documents with tokens left out; it reads no text twice."""

    runner: Runner
    reader: Reader
    labels: Sequence[str]
    precision: Precision = "no"
    known: dict[tuple[str, bytes], Mapping[str, float]] = field(default_factory=dict, repr=False)

    def read(self, texts: Sequence[tuple[Document, Mask]]) -> list[Mapping[str, float]]:
        """Return the class probabilities of what a mask [tokens] keeps of each document."""
        keys = [(document.annotation_id, np.packbits(keep).tobytes()) for document, keep in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self.known}
        read = answers(self.runner, self.reader, list(new.values()), precision=self.precision) if new else []
        for key, answer in zip(new, read, strict=True):
            self.known[key] = dict(zip(self.labels, answer.probabilities.tolist(), strict=True))
        return [self.known[key] for key in keys]

    def erased_answers(
        self, documents: Sequence[Document], scores: Sequence[Values], chosen: Sequence[Mask]
    ) -> list[tuple[Erased, Mapping[float, Erased]]]:
        """Return for each document the answers to the tokens `chosen`, and to ERASER's shares of the highest scores.

        Each is a pair: the answer without those tokens, and with them alone.
        """
        masks_of_texts = [
            [mask, *(highest(values, budget(len(values), share)) for share in BUDGETS)]
            for values, mask in zip(scores, chosen, strict=True)
        ]
        texts = [
            (document, keep)
            for document, masks in zip(documents, masks_of_texts, strict=True)
            for mask in masks
            for keep in (~mask, mask)
        ]
        read = iter(self.read(texts))
        results: list[tuple[Erased, Mapping[float, Erased]]] = []
        for _ in documents:
            rationale, *shares = [Erased(next(read), next(read)) for _ in range(1 + len(BUDGETS))]
            results.append((rationale, dict(zip(BUDGETS, shares, strict=True))))
        return results
