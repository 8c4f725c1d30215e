"""The classification report: precision, recall and F1 of each class, their averages, and accuracy.

Its names and conventions are scikit-learn's: no prediction of a class is precision 0, "macro avg" is the plain mean
over classes and "weighted avg" the mean by support. The classes are those of the gold and of the predictions together.
"""

from __future__ import annotations

import numpy as np

from eraser_eval.errors import InputError, shorten
from eraser_eval.metrics.table import Array, Flat, Sums, Table, Terms, f1, ratio

RESERVED = ("accuracy", "macro avg", "weighted avg")
"""Rows of the report that are no class."""

REPORTED = 100
"""More classes than this have no intervals: their sums would not fit in memory."""


class Classes:
    """Gold and predicted class of each annotation, as numbers."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.table = Table()

    def append(self, gold: str, predicted: str) -> None:
        """Add an annotation.

        Raises:
            InputError: a class is called like another row of the report.
        """
        for label in (gold, predicted):
            if label in RESERVED:
                raise InputError(f"a class is called {shorten(label)}, as a row of the report is; rename it")
        codes = [self.numbers.setdefault(label, len(self.numbers)) for label in (gold, predicted)]
        self.table.append({"gold": codes[0], "predicted": codes[1]})

    def terms(self, table: Terms) -> Terms:
        """Compute what is summed over annotations: for each class whether it is gold, predicted, and both."""
        gold, predicted = table["gold"], table["predicted"]
        terms = {"rows": np.ones_like(gold), "right": (gold == predicted).astype(float)}
        for number in range(len(self.numbers) if len(self.numbers) <= REPORTED else 0):
            is_gold, is_predicted = gold == number, predicted == number
            terms |= {
                f"gold_{number}": is_gold.astype(float),
                f"predicted_{number}": is_predicted.astype(float),
                f"both_{number}": (is_gold & is_predicted).astype(float),
            }
        return terms

    def sums(self) -> Sums:
        """Sum over all annotations [1], for any number of classes."""
        codes = {name: np.array(column).astype(np.int64) for name, column in self.table.columns.items()}
        right = codes["gold"] == codes["predicted"]
        sums = {"rows": np.array([float(len(right))]), "right": np.array([float(right.sum())])}
        for name, each in {**codes, "both": codes["gold"][right]}.items():
            counts = np.bincount(each, minlength=len(self.numbers))
            sums |= {f"{name}_{number}": np.array([float(count)]) for number, count in enumerate(counts)}
        return sums


def classification_scores(sums: Sums, classes: Classes) -> Flat:
    """Compute the official numbers accuracy and prf of the block classification_scores."""
    accuracy = ratio(sums["right"], sums["rows"])
    scores: Flat = {("classification_scores", "accuracy"): accuracy}
    if "gold_0" not in sums:
        return scores
    parts = {
        label: _class_scores(*(sums[f"{kind}_{number}"] for kind in ("both", "predicted", "gold")))
        for label, number in sorted(classes.numbers.items())
    }
    support = np.stack([part["support"] for part in parts.values()])
    for average, weights in (("macro avg", np.ones_like(support)), ("weighted avg", support)):
        parts[average] = {
            name: ratio((weights * [parts[label][name] for label in sorted(classes.numbers)]).sum(0), weights.sum(0))
            for name in ("precision", "recall", "f1-score")
        } | {"support": sums["rows"]}
    key = ("classification_scores", "prf")
    scores |= {(*key, label, name): value for label, part in parts.items() for name, value in part.items()}
    scores[(*key, "accuracy")] = accuracy
    return scores


def _class_scores(both: Array, predicted: Array, gold: Array) -> dict[str, Array]:
    precision, recall = ratio(both, predicted, empty=0.0), ratio(both, gold, empty=0.0)
    return {"precision": precision, "recall": recall, "f1-score": f1(precision, recall), "support": gold}
