"""The one loop: gathered execution equals masked, examples do not disturb one another, soft execution learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, InputError, run
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.engine.recorder import Output
from efficient_bert.engine.trace import Trace
from efficient_bert.model import ExitHead
from tests.support.tiny import SHAPES, everything, rows_of, tiny_batch, tiny_model

TOLERANCE = 1e-5


def assert_same_trace(one: Trace, other: Trace) -> None:
    """Every field of two traces is equal."""
    for field in fields(Trace):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def gathered_and_masked(
    model: EfficientBertForSequenceClassification, batch: Batch, policy: Policy
) -> tuple[Output, Output]:
    """Both hard executions, after checking that they agree in logits, exits and trace."""
    with torch.inference_mode():
        gathered = run(model, batch, policy, execution=Execution.GATHERED)
        masked = run(model, batch, policy, execution=Execution.MASKED)
    torch.testing.assert_close(gathered.logits, masked.logits, atol=TOLERANCE, rtol=0)
    assert list(gathered.exit_logits) == list(masked.exit_logits)
    for depth, logits in gathered.exit_logits.items():
        torch.testing.assert_close(logits, masked.exit_logits[depth], atol=TOLERANCE, rtol=0)
    assert_same_trace(gathered.trace, masked.trace)
    return gathered, masked


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("left", [False, True])
def test_everything_at_once_gathers_as_it_masks(shape: str, attention: str, left: bool) -> None:
    """A policy that drops, narrows and leaves gives equal logits and traces on every shape, padded on either side."""
    model = tiny_model(shape, seed=4)
    model.set_attn_implementation(attention)
    policy = Policy(everything, exits=tuple(model.config.exit_depths))
    batch = tiny_batch([12, 3, 1, 7, 9, 5, 11, 2], seed=5, left=left)
    gathered, _ = gathered_and_masked(model, batch, policy)
    assert len(gathered.trace.exit_depth.unique()) > 1
    assert any(len(set(column[column > 0].tolist())) > 1 for column in gathered.trace.heads.T)
    assert (gathered.trace.tokens[:, -1] < gathered.trace.length).any()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 10_000),
    order=st.randoms(use_true_random=False),
)
def test_examples_do_not_disturb_one_another(lengths: list[int], seed: int, order: Any) -> None:
    """In any order and company an example gets the answer and the trace that it gets alone, however it is run."""
    model, batch = MODEL, tiny_batch(lengths, seed=seed)
    policy = Policy(everything, exits=(1, 2, 3))
    places = list(range(len(lengths)))
    order.shuffle(places)
    mixed, _ = gathered_and_masked(model, rows_of(batch, places), policy)
    for row, place in enumerate(places):
        alone, _ = gathered_and_masked(model, rows_of(batch, [place]), policy)
        torch.testing.assert_close(mixed.logits[row], alone.logits[0], atol=TOLERANCE, rtol=0)
        for name in ("exit_depth", "tokens", "heads", "neurons", "head_runs", "decision_macs"):
            assert torch.equal(getattr(mixed.trace, name)[row], getattr(alone.trace, name)[0]), name
        assert torch.equal(mixed.trace.kept[row].nonzero(), alone.trace.kept[0].nonzero())


MODEL = tiny_model(seed=4)


def test_a_trace_by_hand() -> None:
    """Two examples: one drops a token before layer 1 and leaves at depth 2, one is told to run at half width."""
    first_leaves = torch.tensor([True, False])

    def decide(view: View) -> Decision:
        keep = view.mask & (view.positions < 2) if view.depth == 1 else None
        if view.depth == 2:
            return Decision(leave=first_leaves, width=torch.tensor([1.0, 0.5]), macs=torch.tensor([10, 20]))
        return Decision(keep=keep, width=torch.tensor([1.0, 0.5]) if len(view.mask) == 2 else None)

    batch = tiny_batch([3, 2])
    gathered, _ = gathered_and_masked(MODEL, batch, Policy(decide, exits=(2,)))
    trace = gathered.trace
    assert trace.length.tolist() == [3, 2]
    assert trace.exit_depth.tolist() == [2, 4]
    assert trace.tokens.tolist() == [[3, 2, 0, 0], [2, 2, 2, 2]]
    assert trace.heads.tolist() == [[12, 12, 0, 0], [6, 6, 6, 6]]
    assert trace.neurons.tolist() == [[192, 192, 0, 0], [96, 96, 96, 96]]
    assert trace.head_runs.tolist() == [1, 2]
    assert trace.decision_macs.tolist() == [[0, 0, 10, 0], [0, 0, 20, 0]]
    assert trace.kept[0].tolist() == [[True] * 3, [True, True, False], [False] * 3, [False] * 3]
    assert torch.equal(gathered.logits[0], gathered.exit_logits[2][0])
    assert not torch.equal(gathered.logits[1], gathered.exit_logits[2][1])


@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
@torch.inference_mode()
def test_an_exit_answers_as_the_truncated_model(execution: Execution) -> None:
    """An example that leaves at depth 2 has the logits of exit head 2 on Hugging Face-style states of two layers."""
    batch = tiny_batch([6, 3])
    states = MODEL(batch.input_ids, batch.mask, batch.token_type_ids, output_hidden_states=True).hidden_states
    head = MODEL.exits["2"]
    assert isinstance(head, ExitHead)
    expected = head.classifier(torch.tanh(head.pooler.dense(states[2][:, 0])))
    everyone = Policy(lambda view: Decision(leave=torch.full((2,), view.depth == 2)), exits=(2,))
    output = run(MODEL, batch, everyone, execution=execution)
    torch.testing.assert_close(output.logits, expected, atol=TOLERANCE, rtol=0)
    assert output.trace.exit_depth.tolist() == [2, 2]
    assert output.trace.head_runs.tolist() == [1, 1]


@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
@pytest.mark.parametrize(("width", "heads"), [
    # n = round(width * 12), halves to the even number: 6.6 -> 7, 7.5 -> 8, 4.5 -> 4
    (0.55, 7), (0.625, 8), (0.375, 4), (0.05, 1), (1.0, 12),
])  # fmt: skip
@torch.inference_mode()
def test_widths_round_half_to_even(execution: Execution, width: float, heads: int) -> None:
    """A width becomes round(width * 12) heads and as large a share of 192 neurons."""
    policy = Policy(lambda view: Decision(width=torch.tensor([width])))
    trace = run(MODEL, tiny_batch([4]), policy, execution=execution).trace
    assert trace.heads.tolist() == [[heads] * 4]
    assert trace.neurons.tolist() == [[16 * heads] * 4]


@pytest.mark.parametrize("width", [0.04, 1e-6, 0.0, 1.01])
def test_a_policy_cannot_ask_for_no_head(width: float) -> None:
    """A width that leaves no head (0.48 rounds to 0), or is none, is refused, as it is on the command line."""
    policy = Policy(lambda view: Decision(width=torch.tensor([width])))
    with pytest.raises(InputError, match="the width is"):
        run(MODEL, tiny_batch([4]), policy)


@torch.inference_mode()
def test_the_first_token_stays() -> None:
    """A policy that keeps nothing leaves each example its first token."""
    policy = Policy(lambda view: Decision(keep=torch.zeros_like(view.mask)))
    gathered, _ = gathered_and_masked(MODEL, tiny_batch([5, 2], left=True), policy)
    assert gathered.trace.tokens.tolist() == [[1] * 4, [1] * 4]
    assert gathered.trace.kept[:, 0].nonzero().tolist() == [[0, 0], [1, 3]]


@torch.inference_mode()
def test_dropped_tokens_never_come_back() -> None:
    """A policy that asks for all tokens after a drop gets those that are left."""
    policy = Policy(lambda view: Decision(keep=view.positions < 2 if view.depth == 1 else torch.ones_like(view.mask)))
    gathered, _ = gathered_and_masked(MODEL, tiny_batch([5, 4]), policy)
    assert gathered.trace.tokens.tolist() == [[5, 2, 2, 2], [4, 2, 2, 2]]


def fading(view: View) -> Decision:
    """Both ways to say that tokens go, by the same rule."""
    keep = (view.positions < 3) | (view.positions == 4)
    return Decision(keep=keep, fade=torch.where(keep, 0.0, -1e4))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.inference_mode()
def test_faded_tokens_are_as_good_as_gone(attention: str) -> None:
    """A fade towards minus infinity gives the logits of removal."""
    model = tiny_model()
    model.set_attn_implementation(attention)
    batch, policy = tiny_batch([8, 5, 2]), Policy(fading)
    soft, masked = (run(model, batch, policy, execution=way) for way in (Execution.SOFT, Execution.MASKED))
    torch.testing.assert_close(soft.logits, masked.logits, atol=TOLERANCE, rtol=0)
    assert (masked.logits - run(model, batch).logits).abs().max() > 0.01


@torch.inference_mode()
def test_fades_add_up() -> None:
    """A bias of -1 before each of two layers is a bias of -1, then -2, in Hugging Face's attention."""
    batch = tiny_batch([5])
    column = torch.tensor([0.0, 0.0, -1.0, 0.0, -1.0])[None]
    policy = Policy(lambda view: Decision(fade=column if view.depth < 2 else None))
    layers = MODEL.bert.encoder.layers
    output = run(MODEL, batch, policy, execution=Execution.SOFT, record=True)
    for layer, bias in ((0, column), (1, 2 * column), (2, 2 * column)):
        own, projections = output.hidden_states[layer], layers[layer].attention.self
        heads = [
            part(own).view(5, 12, 4).transpose(0, 1) for part in (projections.query, projections.key, projections.value)
        ]
        context = (heads[0] @ heads[1].transpose(1, 2) / 2 + bias).softmax(-1) @ heads[2]
        states = layers[layer].attention.output(context.transpose(0, 1).reshape(1, 5, 48), own)
        states = layers[layer].output(torch.nn.functional.gelu(layers[layer].intermediate.dense(states)), states)
        torch.testing.assert_close(output.hidden_states[layer + 1], states, atol=TOLERANCE, rtol=0)


def test_soft_execution_carries_gradients() -> None:
    """A loss on soft logits reaches the fade's own parameters and every parameter of the trunk."""
    model = tiny_model().train()
    strength = torch.tensor(0.5, requires_grad=True)
    policy = Policy(lambda view: Decision(fade=-strength * view.hidden.pow(2).mean(-1) * (view.positions > 0)))
    run(model, tiny_batch([7, 4]), policy, execution=Execution.SOFT).logits.square().sum().backward()
    assert strength.grad is not None
    assert strength.grad.isfinite()
    assert strength.grad != 0
    for name, parameter in model.named_parameters():
        if not name.startswith(("exits.", "contribution.", "gates.")):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("fading", [False, True])
def test_the_answer_needs_no_more_than_its_token(shape: str, attention: str, left: bool, fading: bool) -> None:
    """With the last layer run for [CLS] alone, answers and every gradient are those of the whole pass."""

    def fade(view: View) -> Decision:
        places = view.positions.double()
        gone = torch.where((places + view.depth) % 3 == 0, -40.0, -0.1 * places)
        return Decision(fade=torch.where(view.mask.cumsum(1) > 1, gone, 0.0))

    batch = tiny_batch([12, 3, 1, 7], seed=5, left=left)
    found = []
    for all_tokens in (True, False):
        model = tiny_model(shape, seed=4).double()
        model.set_attn_implementation(attention)
        policy = Policy(fade) if fading else None
        output = run(model, batch, policy, execution=Execution.SOFT, record=True, all_tokens=all_tokens)
        model.loss(output.logits, torch.tensor([0, 1, 2, 1])).backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        found.append((output.logits, output.hidden_states[-2], gradients))
        first = batch.mask.int().argmax(1)
        others = torch.arange(batch.mask.shape[1]) != first[:, None]
        same = torch.equal(output.hidden_states[-1][others], output.hidden_states[-2][others])
        assert same or all_tokens
        assert fading or not (same and all_tokens)  # fading may leave nothing else to run
    torch.testing.assert_close(found[0], found[1], atol=1e-12, rtol=1e-9)


@torch.inference_mode()
def test_nobody_leaves_softly() -> None:
    """In soft execution leaving and keeping are ignored, and those who would leave run as wide as they are told."""
    widths = torch.tensor([0.5, 1.0])

    def leaving(view: View) -> Decision:
        return Decision(leave=torch.tensor([True, False]), width=widths, keep=torch.zeros_like(view.mask))

    batch = tiny_batch([5, 3])
    soft = run(MODEL, batch, Policy(leaving, exits=(1,)), execution=Execution.SOFT)
    hard = run(MODEL, batch, Policy(lambda view: Decision(width=widths)), execution=Execution.MASKED)
    torch.testing.assert_close(soft.logits, hard.logits, atol=TOLERANCE, rtol=0)
    assert soft.trace.exit_depth.tolist() == [4, 4]
    assert soft.trace.heads.tolist() == [[6] * 4, [12] * 4]


@pytest.mark.parametrize("execution", Execution)
@torch.inference_mode()
def test_the_view_is_what_is_left(execution: Execution) -> None:
    """A policy sees states, positions and the mask of live tokens, and the exits' logits so far, in order."""
    views: list[View] = []

    def decide(view: View) -> Decision:
        views.append(view)
        return Decision()

    batch = tiny_batch([4, 2], left=True)
    output = run(MODEL, batch, Policy(decide, exits=(1, 3)), execution=execution)
    assert [view.depth for view in views] == [0, 1, 2, 3]
    assert [len(view.logits) for view in views] == [0, 1, 1, 2]
    assert views[-1].logits.shape == (2, 2, 3)
    torch.testing.assert_close(views[-1].logits[1], output.exit_logits[3])
    for view in views:
        live = [row[there].tolist() for row, there in zip(view.positions, view.mask, strict=True)]
        assert live == [[0, 1, 2, 3], [2, 3]]
        assert view.hidden.shape == (*view.mask.shape, 48)


def test_an_exit_without_a_head_is_refused() -> None:
    """A policy that reads an exit the model lacks is told which, in one line."""
    model = tiny_model(exit_depths=[1])
    with pytest.raises(InputError, match=r"no exit head at \[2\]") as caught:
        run(model, tiny_batch([3]), Policy(exits=(1, 2)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
def test_leaving_before_any_exit_is_a_mistake(execution: Execution) -> None:
    """Nobody can leave without an answer."""
    with pytest.raises(ValueError, match="before any exit"):
        run(MODEL, tiny_batch([3]), Policy(lambda view: Decision(leave=torch.tensor([True]))), execution=execution)


def test_gathered_execution_records_nothing() -> None:
    """Packed states have no padded form to record."""
    with pytest.raises(ValueError, match="padded"):
        run(MODEL, tiny_batch([3]), record=True)


@pytest.mark.parametrize("inputs", [
    {"input_ids": torch.zeros(0, 3, dtype=torch.int64)},
    {"input_ids": torch.ones(2, 2, dtype=torch.int64), "attention_mask": torch.tensor([[1, 0], [0, 0]])},
])  # fmt: skip
def test_empty_batches_are_refused(inputs: Mapping[str, Tensor]) -> None:
    """No rows, or a row without a token, is an error in one line."""
    with pytest.raises(InputError, match="without tokens"):
        Batch.of(inputs)


@pytest.mark.parametrize("execution", Execution)
def test_longer_inputs_than_positions_are_refused(execution: Execution) -> None:
    """An input of more word pieces than the model has positions gives the two numbers and the remedy."""
    model = tiny_model("four_heads", exit_depths=[])
    most = model.config.max_position_embeddings
    with pytest.raises(InputError, match=rf"{most + 1} word pieces, but the model takes {most}; truncate"):
        run(model, tiny_batch([most + 1]), execution=execution)


def test_fused_attention_has_no_maps_to_give() -> None:
    """Attention maps are asked of a model with fused attention: one line says how to load it."""
    model = tiny_model("four_heads", exit_depths=[])
    with pytest.raises(InputError, match="attn_implementation='eager'"):
        model(tiny_batch([3]).input_ids, output_attentions=True)


@pytest.mark.parametrize("training", [True, False])
def test_fused_attention_records_no_maps(training: bool) -> None:
    """Probabilities are kept of eager attention alone, also where a CPU learns by plain products."""
    model = tiny_model("four_heads", exit_depths=[]).train(training)
    output = run(model, tiny_batch([3, 5]), execution=Execution.SOFT, record=True)
    assert output.attentions == ()
