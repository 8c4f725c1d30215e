"""The adaptive forward pass: the one loop of the project.

Between two layers a policy, a pure function of a `View`, answers with a `Decision`: which tokens stay, which
examples are done, how wide the next layer runs. The loop turns decisions into removal, under one `Execution`:

    gathered  tokens, rows and heads are really removed: the only execution that may be timed
    masked    the same decisions by masks on a padded batch: for quality at any batch size
    soft      differentiable: nobody leaves, tokens fade by a bias on the attention logits: for training
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.encoder.bert import Bert
from efficient_bert.encoder.layout import Layout
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.fingerprints import fingerprints
from efficient_bert.engine.recorder import Output, Recorder
from efficient_bert.engine.states import Gathered, Masks, Padded, RunBlock, State
from efficient_bert.engine.trace import Step
from efficient_bert.errors import InputError


class Execution(StrEnum):
    """How decisions are carried out."""

    GATHERED = "gathered"
    MASKED = "masked"
    SOFT = "soft"


class Model(Protocol):
    """What the loop needs of a model."""

    @property
    def config(self) -> EfficientBertConfig:
        """Sizes, exit depths and the kind of attention."""

    @property
    def bert(self) -> Bert:
        """The embeddings and the layers."""

    def classify(self, first: Tensor, *, depth: int | None = None) -> Tensor:
        """Classify [CLS] states (B, D) by the head at an exit depth, or by the final one: (B, C) logits."""


def run(
    model: Model,
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


def check_exits(model: Model, policy: Policy) -> None:
    """Raise InputError where the policy reads an exit that the model has no head for."""
    missing = sorted(set(policy.exits) - set(model.config.exit_depths))
    if missing:
        raise InputError(
            f"the method reads exits at depths {list(policy.exits)}, but the model has no exit head at {missing}; "
            f"train exit heads first (stage 'exits')"
        )


def embed_batch(
    model: Model,
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
