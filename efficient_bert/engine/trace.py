"""What ran: tokens, attention heads and neurons per example and layer, and where each example left.

A trace is all that cost, rationales and most plots read. B examples, N layers, L input positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Live(Protocol):
    """Which tokens of which examples are live."""

    @property
    def rows(self) -> tuple[int, ...]:
        """The examples, as numbered in the batch."""
        ...

    def live_positions(self, length: int) -> Tensor:
        """Return (rows, length) bool: the live positions of each of `rows`."""
        ...


@dataclass(frozen=True)
class Step:
    """One layer run on some rows; one entry of `attention_heads` and of `neurons` for each of `live.rows`."""

    layer: int
    live: Live
    attention_heads: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class DecisionCost:
    """What one decision of a policy cost.

    Attributes:
        layer: the layer before which it was taken.
        rows: the examples that it was taken for.
        macs: multiply-adds, (rows,) int64 or one number for each of them.
    """

    layer: int
    rows: Sequence[int]
    macs: Tensor | int


@dataclass(frozen=True)
class Trace:
    """What ran for each example of a batch; integer tensors on the CPU.

    Attributes:
        length: (B,) tokens entering layer 0.
        exit_depth: (B,) layers run, 1..N.
        tokens, heads, neurons: (B, N) per layer, 0 where the layer did not run; `heads` are attention heads.
        kept: (B, N, L) bool, the positions that were live in each layer.
        head_runs: (B,) classification heads evaluated: exits, and the final pooler and classifier.
        decision_macs: (B, N) multiply-adds that the policy's own modules spent before each layer.
    """

    length: Tensor
    exit_depth: Tensor
    tokens: Tensor
    heads: Tensor
    neurons: Tensor
    kept: Tensor
    head_runs: Tensor
    decision_macs: Tensor

    def until(self, depths: Tensor, *, head_runs: Tensor) -> Trace:
        """Cut the trace of a pass of all layers as if each example had left after its first (B,) layers.

        A decision before a layer that does not run any more is not charged.

        Args:
            depths: (B,) int64 layers that run.
            head_runs: (B,) int64 classification heads evaluated by then.
        """
        ran = torch.arange(self.tokens.shape[1]) < depths[:, None]
        return Trace(
            length=self.length,
            exit_depth=depths,
            tokens=self.tokens * ran,
            heads=self.heads * ran,
            neurons=self.neurons * ran,
            kept=self.kept & ran[..., None],
            head_runs=head_runs,
            decision_macs=self.decision_macs * ran,
        )


def build_trace(
    steps: Iterable[Step],
    *,
    mask: Tensor,
    layers: int,
    head_evaluations: Iterable[Sequence[int]],
    decision_costs: Iterable[DecisionCost],
) -> Trace:
    """Build the trace of one pass from what its loop recorded.

    Args:
        steps: the layers that ran.
        mask: the batch's (B, L) attention mask.
        layers: how many the model has, N.
        head_evaluations: for each evaluation of a classification head, the rows that it ran on.
        decision_costs: of the decisions that cost something.
    """
    attention_heads, neurons, kept = _layer_counts(steps, mask=mask, layers=layers)
    return Trace(
        length=mask.sum(1).cpu(),
        exit_depth=kept.any(2).sum(1),
        tokens=kept.sum(2),
        heads=attention_heads,
        neurons=neurons,
        kept=kept,
        head_runs=_count_rows(head_evaluations, examples=len(mask)),
        decision_macs=_decision_macs(decision_costs, examples=len(mask), layers=layers),
    )


def _layer_counts(steps: Iterable[Step], *, mask: Tensor, layers: int) -> tuple[Tensor, Tensor, Tensor]:
    """Collect attention heads and neurons, (B, N) int64 each, and live positions (B, N, L) bool."""
    examples, length = mask.shape
    attention_heads, neurons = torch.zeros(2, examples, layers, dtype=torch.int64)
    kept = torch.zeros(examples, layers, length, dtype=torch.bool)
    for step in steps:
        rows = list(step.live.rows)
        attention_heads[rows, step.layer] = torch.tensor(step.attention_heads)
        neurons[rows, step.layer] = torch.tensor(step.neurons)
        kept[rows, step.layer] = step.live.live_positions(length).cpu()
    return attention_heads, neurons, kept


def _count_rows(evaluations: Iterable[Sequence[int]], *, examples: int) -> Tensor:
    """Count in how many evaluations each example occurs: (B,) int64."""
    counts = torch.zeros(examples, dtype=torch.int64)
    for rows in evaluations:
        counts[list(rows)] += 1
    return counts


def _decision_macs(costs: Iterable[DecisionCost], *, examples: int, layers: int) -> Tensor:
    """Collect the multiply-adds of decisions: (B, N) int64."""
    macs = torch.zeros(examples, layers, dtype=torch.int64)
    for cost in costs:
        macs[list(cost.rows), cost.layer] = cost.macs if isinstance(cost.macs, int) else cost.macs.cpu()
    return macs
