"""Numbers that are none (NaN, infinity): they are never counted, stored or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.data.layouts import quote
from bench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from bench.planning.plan import Plan
    from efficient_bert import EfficientBertForSequenceClassification

REMEDY = "leave it out, or train at a lower learning rate or from another backbone"
WORDS = "bert.embeddings.word_embeddings.weight"


def require_finite(values: Tensor, names: Sequence[str], *, kind: str = "answer to") -> None:
    """Check what a model says of some examples (rows, ...).

    Args:
        names: of the examples.
        kind: what the values are.

    Raises:
        InputError: it holds something that is no number.
    """
    finite = values.isfinite().flatten(1).all(1)
    if not finite.all():
        name = names[int(finite.int().argmin())]
        raise InputError(f"the model's {kind} example {quote(name, repr)} is no finite number; {REMEDY}")


def odd_row(table: pa.Table) -> int | None:
    """Return the first row of a table of examples whose answer is no finite number; None where there is none."""
    import pyarrow.compute as pc

    shares, scores = table["probabilities"].combine_chunks(), table["prediction"].combine_chunks()
    odd = [
        *pc.list_parent_indices(shares).filter(pc.invert(pc.is_finite(pc.list_flatten(shares)))).to_pylist(),
        *pc.indices_nonzero(pc.invert(pc.is_finite(scores))).to_pylist(),
    ]
    return min(odd, default=None)


def require_weights(plan: Plan, model: EfficientBertForSequenceClassification) -> None:
    """Check the weights that a backbone brings.

    A word piece that no row holds does no harm; one that is not a number is refused with the first row that holds it.

    Raises:
        InputError: a number of theirs is none.
    """
    for name, weights in model.named_parameters():
        odd = ~weights.detach().isfinite()
        if not odd.any():
            continue
        pieces = set(odd.any(1).nonzero().flatten().tolist()) if name == WORDS else set()
        row = holder(plan, pieces)
        if name == WORDS and row is None and plan.config.padding not in pieces:
            continue
        where = f", which example {quote(row, repr)} is read with" if row is not None else ""
        raise InputError(
            f"the weights of backbone {plan.backbone.name!r} hold {int(odd.sum())} values that are no finite numbers, "
            f"in {name}{where}; pass a whole checkpoint" + (", or leave such rows out" if row is not None else "")
        )


def holder(plan: Plan, pieces: set[int]) -> str | None:
    """Return the first example with one of these word pieces, of the reported ones and then of those to train on."""
    if not pieces:
        return None
    data = plan.data
    for part in (data.evaluation, data.heldout, data.train):
        rows: Sequence[Mapping[str, Any]] = part.select_columns(["example_id", "input_ids"]).to_list()
        for row in rows:
            if not pieces.isdisjoint(row["input_ids"]):
                return str(row["example_id"])
    return None
