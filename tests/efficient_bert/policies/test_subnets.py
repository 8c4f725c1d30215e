"""Subnets: importance against finite differences, rewiring, slices beside exported models, refusals."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, InputError, run
from efficient_bert.calibration.importance import Importance, importance
from efficient_bert.config import kept_heads
from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.export.dense import export
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.subnets import DepthRule, Subnet, kept_layers, subnet_policy, uniform_subnet
from efficient_bert.training.flexible.grafting import donors, graft, graft_steps
from efficient_bert.training.flexible.rewiring import rewire
from tests.conftest import MiniLM
from tests.support.tiny import rows_of, tiny_batch, tiny_config, tiny_model

TOLERANCE = 1e-5
STEP = 1e-5


def doubled(shape: str) -> EfficientBertForSequenceClassification:
    """A random model in double precision."""
    model = tiny_model(shape)
    nn.Module.to(model, torch.float64)
    return model


def labelled(count: int = 8, *, seed: int = 0) -> tuple[Batch, Tensor]:
    """A ragged batch with classes."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (count,), generator=generator).tolist()
    return tiny_batch(lengths, seed=seed), torch.randint(0, 3, (count,), generator=generator)


def slope(model: EfficientBertForSequenceClassification, parts: list[Tensor], batch: Batch, classes: Tensor) -> float:
    """Central difference of the loss by a common factor on views of some weights."""
    losses = []
    with torch.no_grad():
        kept = [part.clone() for part in parts]
        for factor in (1 + STEP, 1 - STEP):
            for part, value in zip(parts, kept, strict=True):
                part.copy_(factor * value)
            losses.append(F.cross_entropy(run(model, batch, execution=Execution.MASKED).logits, classes))
        for part, value in zip(parts, kept, strict=True):
            part.copy_(value)
    return float((losses[0] - losses[1]) / (2 * STEP))


@pytest.mark.parametrize("shape", ["four_heads", "odd_inner"])
def test_importance_is_the_slope_of_the_loss(shape: str) -> None:
    """Scores are central differences: a head's by a factor on its values, a neuron's on its row and on its column."""
    model, (batch, classes) = doubled(shape), labelled()
    found = importance(model, [(batch, classes)])
    for place, layer in enumerate(model.bert.encoder.layers):
        value = layer.attention.self.value
        for head in range(layer.heads):
            rows = slice(head * layer.head_size, (head + 1) * layer.head_size)
            expected = abs(slope(model, [value.weight.data[rows], value.bias.data[rows]], batch, classes))
            assert found.heads[place, head].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
        widen, narrow = layer.intermediate.dense, layer.output.dense
        for neuron in (0, 7, widen.out_features - 1):
            row = [widen.weight.data[neuron], widen.bias.data[neuron : neuron + 1]]
            expected = abs(slope(model, row, batch, classes)) + abs(
                slope(model, [narrow.weight.data[:, neuron]], batch, classes)
            )
            assert found.neurons[place, neuron].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_importance_over_batches() -> None:
    """Corrected, scores of batches add up; as released the second batch adds the slope of both batches' loss."""
    model, (batch, classes) = doubled("four_heads"), labelled(8)
    halves = [(rows_of(batch, range(4)), classes[:4]), (rows_of(batch, range(4, 8)), classes[4:])]
    first, second = (importance(model, [half]) for half in halves)
    both = importance(model, [(batch, classes)])
    corrected = importance(model, halves)
    released = importance(model, halves, fidelity=Fidelity.RELEASED)
    torch.testing.assert_close(corrected.heads, first.heads + second.heads)
    torch.testing.assert_close(corrected.neurons, first.neurons + second.neurons)
    torch.testing.assert_close(released.heads, first.heads + 2 * both.heads)
    assert not torch.allclose(released.heads, corrected.heads)
    torch.testing.assert_close(released.neurons, first.neurons + 2 * both.neurons)


def test_importance_leaves_no_trace() -> None:
    """Neither gradients nor the training mode change: nothing of these rows can reach the next step."""
    model, given = tiny_model(), labelled()
    model.train()
    before = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    importance(model, [given])
    assert model.training
    assert before == [parameter.grad for parameter in model.parameters()]


@pytest.fixture(scope="module")
def rewired(
    minilm: MiniLM, texts: list[list[tuple[str, ...]]]
) -> tuple[EfficientBertForSequenceClassification, Batch, Tensor]:
    """The packaged weights in order of importance, 32 real sentences, and the logits before rewiring."""
    model = minilm.ours("sdpa")
    batch = minilm.batches(texts[0][:32], size=32)[0]
    with torch.inference_mode():
        before = run(model, batch).logits.clone()
    scores = importance(model, [(batch, torch.arange(32) % 3)])
    rewire(model, scores)
    return model, batch, before


@torch.inference_mode()
def test_rewiring_changes_no_logit_on_real_weights(
    rewired: tuple[EfficientBertForSequenceClassification, Batch, Tensor],
) -> None:
    """The rewired model answers as before, gathered and masked."""
    model, batch, before = rewired
    for execution in (Execution.GATHERED, Execution.MASKED):
        torch.testing.assert_close(run(model, batch, execution=execution).logits, before, atol=TOLERANCE, rtol=0)


def test_rewiring_sorts() -> None:
    """Scored again, every layer's heads and neurons descend, and the second rewiring changes nothing."""
    model, given = tiny_model(), labelled()
    first = importance(model, [given])
    rewire(model, first)
    again = importance(model, [given])
    torch.testing.assert_close(again.heads, first.heads.sort(1, descending=True).values, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(again.neurons, first.neurons.sort(1, descending=True).values, rtol=1e-3, atol=1e-6)
    assert not torch.equal(first.heads, again.heads)


def assert_slice_is_dense(model: EfficientBertForSequenceClassification, batch: Batch, subnet: Subnet) -> None:
    """The subnet and its exported model answer alike and cost the same."""
    dense = export(model, subnet)
    with torch.inference_mode():
        sliced, whole = run(model, batch, subnet_policy(subnet)), run(dense, batch)
        torch.testing.assert_close(sliced.logits, whole.logits, atol=TOLERANCE, rtol=0)
    expected = full_flops(whole.trace.length, dense.config)
    assert torch.equal(trace_flops(sliced.trace, model.config), expected)
    assert torch.equal(trace_flops(whole.trace, dense.config), expected)
    assert sum(map(torch.numel, dense.parameters())) < sum(map(torch.numel, model.parameters()))


@pytest.mark.parametrize("rule", DepthRule)
@pytest.mark.parametrize(("width", "depth"), [(0.25, 1.0), (0.5, 0.5), (0.75, 0.67), (1.0, 0.5), (0.55, 1.0)])
def test_a_slice_equals_the_exported_model_on_real_weights(
    rewired: tuple[EfficientBertForSequenceClassification, Batch, Tensor], width: float, depth: float, rule: DepthRule
) -> None:
    """At every width, depth and depth rule."""
    model, batch, _ = rewired
    assert_slice_is_dense(model, batch, uniform_subnet(model.config, width=width, depth_mult=depth, rule=rule))


@pytest.mark.parametrize("shape", ["twelve_heads", "odd_inner"])
def test_mixed_widths_equal_the_exported_model(shape: str, tmp_path: Path) -> None:
    """With another width in every layer, and an inner size that the heads do not divide; also when read from disk."""
    model, batch = tiny_model(shape), tiny_batch([7, 3, 5])
    layers = tuple(range(1, model.config.num_hidden_layers))
    subnet = Subnet(layers, (0.34, 1.0, 0.67)[: len(layers)])
    assert_slice_is_dense(model, batch, subnet)
    export(model, subnet).save_pretrained(tmp_path)
    stored = EfficientBertForSequenceClassification.from_pretrained(tmp_path)
    stored.eval()
    assert stored.config.layer_heads == [
        kept_heads(width, stored.config.num_attention_heads) for width in subnet.widths
    ]
    with torch.inference_mode():
        torch.testing.assert_close(
            run(stored, batch).logits, run(model, batch, subnet_policy(subnet)).logits, atol=TOLERANCE, rtol=0
        )


def test_a_subnet_of_an_exported_model_is_exported() -> None:
    """A width is a fraction of the heads that a layer has, and the numbers keep their precision."""
    model = tiny_model("twelve_heads")
    dense = export(model, uniform_subnet(model.config, width=0.5)).double()
    subnet = uniform_subnet(dense.config, width=0.5)
    assert_slice_is_dense(dense, tiny_batch([7, 3, 5]), subnet)
    assert export(dense, subnet).dtype == torch.float64
    assert export(dense, subnet).config.layer_heads == [3] * len(subnet.layers)


def test_an_exported_model_is_a_copy() -> None:
    """Changing it leaves the whole model alone."""
    model = tiny_model()
    before = deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in export(model, uniform_subnet(model.config, width=0.5)).parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_subnets_share_the_weights() -> None:
    """A narrow pass touches the weights of its slice, and nothing else has a gradient."""
    model, (batch, classes) = tiny_model(), labelled()
    subnet = uniform_subnet(model.config, width=0.5, depth_mult=0.5)
    F.cross_entropy(run(model, batch, subnet_policy(subnet), execution=Execution.SOFT).logits, classes).backward()
    first, third = model.bert.encoder.layers[0], model.bert.encoder.layers[2]
    grad = first.attention.self.query.weight.grad
    assert grad is not None
    assert grad[:24].abs().sum() > 0
    assert not grad[24:].any()
    assert third.attention.self.query.weight.grad is None


@pytest.mark.parametrize("rule", DepthRule)
def test_depth_rules_keep_distinct_ascending_layers(rule: DepthRule) -> None:
    """For every number of layers and common fractions: so many, within the model; `keep_last` keeps the last."""
    for layers in (2, 3, 4, 6, 12, 24):
        for depth in (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0):
            if not round(depth * layers):
                continue
            found = kept_layers(depth, layers, rule)
            assert len(set(found)) == len(found) == round(depth * layers)
            assert list(found) == sorted(found)
            assert found[-1] < layers
            if rule == DepthRule.KEEP_LAST:
                assert found[-1] == layers - 1


@pytest.mark.parametrize(
    ("width", "depth", "message"),
    [
        (0.04, 1.0, "leaves none of 12 heads"),
        (0.0, 1.0, "in (0, 1]"),
        (1.5, 1.0, "in (0, 1]"),
        (float("nan"), 1.0, "in (0, 1]"),
        (1.0, 0.1, "leaves none of 4 layers"),
        (1.0, float("nan"), "in (0, 1]"),
        (1.0, 2.0, "in (0, 1]"),
    ],
)
def test_subnets_that_are_none_are_refused(width: float, depth: float, message: str) -> None:
    """One line names the value, the rule and the remedy."""
    with pytest.raises(InputError, match=r".") as caught:
        uniform_subnet(tiny_config(), width=width, depth_mult=depth)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_graft_by_hand() -> None:
    """Of four heads the weakest takes a tenth of the strongest, the second weakest of the second strongest."""
    model = tiny_model("four_heads")
    before = deepcopy(model)
    scores = Importance(torch.tensor([[3.0, 1.0, 4.0, 2.0]] * 2), torch.arange(64.0).expand(2, -1))
    assert donors(scores.heads)[0].tolist() == [0, 2, 2, 0]
    assert donors(scores.neurons)[0].tolist() == [*range(63, 31, -1), *range(32, 64)]
    assert donors(torch.tensor([5.0, 1.0, 3.0]), fraction=0.5).tolist() == [0, 0, 2]
    graft(model, scores, alpha=0.1)
    for layer, old in zip(model.bert.encoder.layers, before.bert.encoder.layers, strict=True):
        for name in ("query", "key", "value"):
            own, was = layer.get_submodule(f"attention.self.{name}"), old.get_submodule(f"attention.self.{name}")
            for head, donor in ((1, 2), (3, 0)):
                mine, theirs = slice(8 * head, 8 * head + 8), slice(8 * donor, 8 * donor + 8)
                for part in ("weight", "bias"):
                    value = was.get_parameter(part)
                    expected = 0.9 * value[mine] + 0.1 * value[theirs]
                    torch.testing.assert_close(own.get_parameter(part)[mine], expected)
                    assert torch.equal(own.get_parameter(part)[theirs], value[theirs])
        was = old.attention.output.dense
        torch.testing.assert_close(
            layer.attention.output.dense.weight[:, 8:16], 0.9 * was.weight[:, 8:16] + 0.1 * was.weight[:, 16:24]
        )
        assert torch.equal(layer.attention.output.dense.bias, was.bias)
        narrow = old.output.dense.weight
        torch.testing.assert_close(layer.output.dense.weight[:, 0], 0.9 * narrow[:, 0] + 0.1 * narrow[:, 63])
        assert torch.equal(layer.output.dense.weight[:, 32:], narrow[:, 32:])


def test_grafts_are_spread_over_all_epochs_but_the_last() -> None:
    """Three in each of two epochs of three, none where there is a single epoch."""
    assert list(graft_steps(examples=960, batch_size=32, epochs=3)) == [10, 20, 30, 40, 50, 60]
    assert not list(graft_steps(examples=960, batch_size=32, epochs=1))
    assert list(graft_steps(examples=8, batch_size=32, epochs=4)) == []
