"""The rows on which the importance of heads and neurons is scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from efficient_bert.calibration.importance import Importance, importance
from efficient_bert.fidelity import Fidelity
from efficient_bert.knobs import Knob, Values
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.training import Context
from efficient_bert.training.batches import labelled_batches

FIDELITY = Knob(
    "fidelity",
    "gradients cleared between batches and padding left out (corrected), or as in the authors' code",
    "corrected",
    choices=tuple(Fidelity),
)
IMPORTANCE = (
    Knob("importance_rows", "rows on which importance is scored", 2048, low=1),
    Knob("importance_split", "where they come from; the authors use the evaluation split", "train",
         choices=("train", "heldout")),
    FIDELITY,
)  # fmt: skip


def score_importance(model: EfficientBertForSequenceClassification, context: Context) -> Importance:
    """Score heads and neurons on evenly spaced rows of the chosen split, in full precision."""
    rows = context.train if context.options["importance_split"] == "train" else context.heldout
    chosen = [rows[number] for number in importance_row_numbers(len(rows), context.options)]
    with torch.autocast(model.device.type, enabled=False):
        return importance(model, labelled_batches(model, chosen), fidelity=Fidelity(context.options["fidelity"]))


def importance_row_numbers(rows: int, options: Values) -> list[int]:
    """Return the numbers of `importance_rows` rows that are evenly spaced among `rows` rows."""
    count = min(rows, options["importance_rows"])
    return [index * rows // count for index in range(count)]


def rows_without_importance(rows: int, options: Values, seed: int) -> Sequence[int]:
    """Return the numbers of the held-out rows whose labels importance does not read."""
    read = importance_row_numbers(rows, options) if options["importance_split"] == "heldout" else ()
    return sorted(set(range(rows)).difference(read))
