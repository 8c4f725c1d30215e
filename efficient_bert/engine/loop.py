"""The adaptive forward pass: the one loop of the project.

Between two layers a policy, a pure function of a `View`, answers with a `Decision`: which tokens stay, which
examples are done, how wide the next layer runs. The loop turns decisions into removal, under one `Execution`:

    gathered  tokens, rows and heads are really removed: the only execution that may be timed
    masked    the same decisions by masks on a padded batch: for quality at any batch size
    soft      differentiable: nobody leaves, tokens fade by a bias on the attention logits: for training
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.encoder.layout import Layout
from efficient_bert.engine.decisions import Decision, Policy
from efficient_bert.engine.fingerprints import fingerprints
from efficient_bert.engine.states import Gathered, Masks, Padded, RunBlock, State
from efficient_bert.engine.trace import DecisionCost, Step, Trace, build_trace
from efficient_bert.errors import InputError

if TYPE_CHECKING:
    from efficient_bert.model import EfficientBertForSequenceClassification


class Execution(StrEnum):
    """How decisions are carried out."""

    GATHERED = "gathered"
    MASKED = "masked"
    SOFT = "soft"


@dataclass(frozen=True)
class Batch:
    """A padded batch: input_ids and token_type_ids (B, L) int64, mask (B, L) bool."""

    input_ids: Tensor
    mask: Tensor
    token_type_ids: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> Batch:
        """Make a batch of what a tokenizer returns; a missing attention mask means no padding.

        Raises:
            InputError: a row holds no token at all.
        """
        ids, mask, types = inputs["input_ids"], inputs.get("attention_mask"), inputs.get("token_type_ids")
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        if ids.numel() == 0 or not bool(mask.any(1).all()):
            raise InputError("the batch has an example without tokens; every text needs at least [CLS]")
        return cls(ids, mask, torch.zeros_like(ids) if types is None else types)

    @classmethod
    def of_rows(
        cls, rows: Sequence[Mapping[str, Any]], *, pad_token_id: int, device: torch.device | str = "cpu"
    ) -> Batch:
        """Make a batch of encoded rows on a device, padded on the right to the longest row.

        Raises:
            InputError: a row holds no token at all.
        """
        return cls.of({name: part.to(device) for name, part in pad_rows(rows, pad_token_id=pad_token_id).items()})


def pad_rows(rows: Sequence[Mapping[str, Any]], *, pad_token_id: int) -> dict[str, Tensor]:
    """Pad rows on the right: int64 `input_ids`, `token_type_ids` and `attention_mask`, each (B, L)."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), pad_token_id)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[number, :length] = torch.tensor(row["input_ids"])
        types[number, :length] = torch.tensor(row["token_type_ids"])
        mask[number, :length] = 1
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


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


def run(
    model: EfficientBertForSequenceClassification,
    batch: Batch,
    policy: Policy | None = None,
    *,
    execution: Execution = Execution.GATHERED,
    record: bool = False,
    all_tokens: bool = True,
    run_block: RunBlock | None = None,
) -> Output:
    """Run one forward pass of `model` over `batch` as `policy` decides; without a policy, the full model.

    Args:
        record: keep hidden states, and attention probabilities under eager attention (padded executions only).
        all_tokens: run the last layer for every token. If false, in a soft pass, it runs for [CLS] alone, from which
            the answer is read: the last recorded states of the others are those that entered it, the last attention
            probabilities (B, H, 1, L). The trace counts all tokens in any case.
        run_block: runs each text through a layer in a gathered pass; by default the layers are called.

    Raises:
        InputError: the policy wants an exit the model has no head for.
        ValueError: the policy lets examples leave before any exit, `record` under gathered execution, or `run_block`
            under another one.
    """
    policy = policy or Policy()
    check_exits(model, policy)
    layers = model.bert.encoder.layers
    order = range(len(layers)) if policy.layers is None else policy.layers
    recorder = Recorder(batch, model.config, record=record, may_leave=execution != Execution.SOFT)
    state = embed_batch(model, batch, execution=execution, attentions=recorder.attentions, run_block=run_block)
    recorder.state(state)
    lengths = batch.mask.sum(1)
    numbers = fingerprints(batch.input_ids, batch.mask) if policy.needs_fingerprints else None
    chosen_widths: dict[int, float] = {}
    for depth, index in enumerate(order):
        if depth in policy.exits:
            recorder.exit(depth, state.live.rows, model.classify(state.first(), depth=depth))
        if policy.decide is not None:
            view = state.view(depth, lengths=lengths, logits=recorder.history(), fingerprints=numbers)
            decision = policy.decide(view)
            recorder.decision(decision, state.live.rows, layer=index)
            if decision.width is not None:
                chosen_widths = dict(zip(state.live.rows, decision.width.tolist(), strict=True))
            state = state.apply(decision)
            if not state.live.rows:
                break
        layer = layers[index]
        width = 1.0 if policy.widths is None else policy.widths[depth]
        heads = tuple(kept_heads(chosen_widths.get(row, width), layer.heads) for row in state.live.rows)
        recorder.step(Step(index, state.live, heads, tuple(map(layer.neurons, heads))))
        if not all_tokens and depth == len(order) - 1:
            state = state.for_first_tokens()
        state = state.run(layer, heads)
        recorder.state(state)
    if state.live.rows:
        recorder.final(state.live.rows, model.classify(state.first()))
    return recorder.output()


def check_exits(model: EfficientBertForSequenceClassification, policy: Policy) -> None:
    """Raise InputError where the policy reads an exit that the model has no head for."""
    missing = sorted(set(policy.exits) - set(model.config.exit_depths))
    if missing:
        raise InputError(
            f"the method reads exits at depths {list(policy.exits)}, but the model has no exit head at {missing}; "
            f"train exit heads first (stage 'exits')"
        )


def embed_batch(
    model: EfficientBertForSequenceClassification,
    batch: Batch,
    *,
    execution: Execution,
    attentions: list[Tensor] | None,
    run_block: RunBlock | None = None,
) -> State:
    """Embed a batch into the state that `execution` works on.

    Args:
        attentions: where a padded execution appends attention probabilities; None where they are not wanted.
        run_block: what runs each text through a layer in a gathered execution; None calls the layers.

    Raises:
        InputError: an example has more word pieces than the model takes.
        ValueError: attention probabilities are wanted of a gathered execution, or `run_block` for another one.
    """
    longest, most = batch.mask.shape[1], model.config.max_position_embeddings
    if longest > most:
        raise InputError(f"an example has {longest} word pieces, but the model takes {most}; truncate it")
    eager = model.config._attn_implementation == "eager"
    rows = tuple(range(len(batch.mask)))
    embed = model.bert.embeddings
    if execution == Execution.GATHERED:
        if attentions is not None:
            raise ValueError("record needs a padded batch: use masked or soft execution")
        cells = batch.mask.flatten().nonzero().squeeze(1)
        positions = cells % longest
        layout = Layout(positions, tuple(batch.mask.sum(1).tolist()), rows)
        ids, types = (part.flatten().index_select(0, cells) for part in (batch.input_ids, batch.token_type_ids))
        return Gathered(embed(ids, positions, types), layout, eager, run_block)
    if run_block is not None:
        raise ValueError("run_block needs single texts: use gathered execution")
    positions = torch.arange(batch.mask.shape[1], device=batch.mask.device).expand_as(batch.mask)
    padded = embed(batch.input_ids, positions, batch.token_type_ids)
    return Padded(
        padded,
        Masks(batch.mask, rows),
        soft=execution == Execution.SOFT,
        eager=eager,
        dropout=model.config.attention_probs_dropout_prob,
        attentions=attentions,
    )


class Recorder:
    """What a pass leaves behind, collected while the loop runs; rows are numbered as in the batch.

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
