"""What a pass leaves behind: the `Output`, and the `Recorder` that collects it while the loop runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.decisions import Decision
from efficient_bert.engine.states import State
from efficient_bert.engine.trace import DecisionCost, Step, Trace, build_trace


@dataclass(frozen=True)
class Output:
    """The result of one pass over B examples.

    Attributes:
        logits: (B, C), each example's answer from where it left.
        exit_logits: depth -> (B, C); zeros in rows that had left before.
        hidden_states: with `record`, the embeddings and every layer's output, each (B, L, D).
        attentions: with `record` and eager attention, every layer's probabilities, each (B, H, L, L).
        decisions: the policy's answer before every layer, for the rows that were still there,
            in the order in which the state holds them (a gathered pass puts rows of one width side by side).
    """

    logits: Tensor
    exit_logits: Mapping[int, Tensor]
    hidden_states: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]
    decisions: tuple[Decision, ...]
    _trace: Callable[[], Trace] = field(repr=False)

    @cached_property
    def trace(self) -> Trace:
        """What ran; built when it is first read, so that a timed pass does not pay for it."""
        return self._trace()


class Recorder:
    """Collects what a pass leaves behind; rows are numbered as in the batch.

    Attributes:
        attentions: where attention probabilities go; None where they are not wanted.
    """

    def __init__(self, batch: Batch, config: EfficientBertConfig, *, record: bool, may_leave: bool) -> None:
        self.mask = batch.mask
        self.config = config
        self.record = record
        self.may_leave = may_leave
        self.attentions: list[Tensor] | None = [] if record else None
        self.exits: dict[int, Tensor] = {}
        self.answers: list[tuple[tuple[int, ...], Tensor]] = []
        self.states: list[Tensor] = []
        self.decisions: list[Decision] = []
        self.steps: list[Step] = []
        self.head_evaluations: list[tuple[int, ...]] = []
        self.decision_costs: list[DecisionCost] = []

    def scatter(self, rows: Sequence[int], values: Tensor) -> Tensor:
        """Scatter rows into the batch, with zeros elsewhere: (rows, ...) -> (all examples, ...)."""
        if tuple(rows) == tuple(range(len(self.mask))):
            return values
        indices = torch.tensor(rows, device=self.mask.device)
        return values.new_zeros(len(self.mask), *values.shape[1:]).index_copy(0, indices, values)

    @cached_property
    def no_exits(self) -> Tensor:
        """(0, all examples, C): the logits before any exit, made once and only for a policy that decides."""
        return torch.zeros(0, len(self.mask), self.config.classes, device=self.mask.device)

    def history(self) -> Tensor:
        """Return (E, all examples, C): the logits of the exits so far."""
        return torch.stack(list(self.exits.values())) if self.exits else self.no_exits

    def state(self, state: State) -> None:
        """Record what enters the next layer."""
        if self.record:
            self.states.append(state.values)

    def step(self, step: Step) -> None:
        """Record that a layer runs."""
        self.steps.append(step)

    def exit(self, depth: int, rows: tuple[int, ...], logits: Tensor) -> None:
        """Record that an exit head was evaluated on `rows`."""
        self.exits[depth] = self.scatter(rows, logits)
        self.head_evaluations.append(rows)

    def final(self, rows: tuple[int, ...], logits: Tensor) -> None:
        """Record that the final head was evaluated on `rows`."""
        self.answers.append((rows, logits))
        self.head_evaluations.append(rows)

    def decision(self, decision: Decision, rows: tuple[int, ...], *, layer: int) -> None:
        """Record a decision before a layer: its cost, and the answers of the examples that leave, where any may."""
        self.decisions.append(decision)
        if decision.macs is not None:
            self.decision_costs.append(DecisionCost(layer, rows, decision.macs))
        if decision.leave is None or not self.may_leave:
            return
        left = [row for row, leaves in zip(rows, decision.leave.tolist(), strict=True) if leaves]
        if left and not self.exits:
            raise ValueError("a policy lets examples leave before any exit was evaluated; name its exits")
        if left:
            newest = next(reversed(self.exits.values()))
            self.answers.append((tuple(left), newest[left]))

    def logits(self) -> Tensor:
        """Return (B, C): each example's answer, in the order of the batch."""
        logits = self.scatter(*self.answers[0])
        for rows, answer in self.answers[1:]:
            logits = logits + self.scatter(rows, answer)
        return logits

    def output(self) -> Output:
        """Return the finished pass."""
        return Output(
            logits=self.logits(),
            exit_logits=self.exits,
            hidden_states=tuple(self.states),
            attentions=tuple(self.attentions or ()),
            decisions=tuple(self.decisions),
            _trace=self.trace,
        )

    def trace(self) -> Trace:
        """Build the trace of the pass."""
        return build_trace(
            self.steps,
            mask=self.mask,
            layers=self.config.num_hidden_layers,
            head_evaluations=self.head_evaluations,
            decision_costs=self.decision_costs,
        )
