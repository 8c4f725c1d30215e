"""Width gates: static subnets, exits and batches beside them, labels by brute force, losses by hand, refusals."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from efficient_bert import (
    Batch,
    EfficientBertForSequenceClassification,
    Execution,
    InputError,
    run,
)
from efficient_bert.cost.counters import count_with_fvcore, count_with_torch
from efficient_bert.cost.flops import trace_flops
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Value, parse_numbers
from efficient_bert.model import rebuild
from efficient_bert.policies.exit_rules import entropy, is_certain, require_exits, scores_agree
from efficient_bert.policies.gates import (
    balanced_weights,
    class_widths,
    expected_width,
    gate_macs,
    gate_policy,
    gumbel_softmax,
    gumbel_temperature,
    label_losses,
    width_labels,
)
from efficient_bert.policies.subnets import subnet_policy, uniform_subnet
from efficient_bert.training.flexible.gating import gate_loss
from tests.conftest import MiniLM, aim_gates
from tests.support.tiny import tiny_batch, tiny_config, tiny_model

TOLERANCE = 1e-5
WIDTHS = (0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def flexible(
    minilm: MiniLM, texts: list[list[tuple[str, ...]]]
) -> tuple[EfficientBertForSequenceClassification, list[tuple[str, ...]]]:
    """The packaged weights with random gates that choose every class, exits that share the final head, sentences."""
    torch.manual_seed(0)
    fields = {"exit_depths": [2, 4], "shared_head": True, "num_gates": 6, "widths": list(WIDTHS)}
    model = rebuild(minilm.ours("sdpa"), **fields)
    model.eval()
    rows = texts[0][:32]
    aim_gates(model, minilm.batches(rows, size=32)[0])
    return model, rows


@torch.inference_mode()
def test_equal_widths_are_the_static_subnet(
    minilm: MiniLM, flexible: tuple[EfficientBertForSequenceClassification, list[tuple[str, ...]]]
) -> None:
    """Four equal widths answer exactly as the subnet of that width; only the gates' own work comes on top."""
    model, rows = flexible
    batch = minilm.batches(rows, size=32)[0]
    for width in (0.25, 0.55, 1.0):
        gated = run(model, batch, gate_policy(model.width_gates(), [width] * 4))
        static = run(model, batch, subnet_policy(uniform_subnet(model.config, width=width)))
        assert torch.equal(gated.logits, static.logits)
        extra = trace_flops(gated.trace, model.config) - trace_flops(static.trace, model.config)
        # a gate: 384 x 384 + 384 x 4 multiply-adds, before each of six layers
        assert extra.tolist() == [2 * 6 * (147456 + 1536)] * 32


@torch.inference_mode()
def test_exits_are_the_depth_prefixes(
    minilm: MiniLM, flexible: tuple[EfficientBertForSequenceClassification, list[tuple[str, ...]]]
) -> None:
    """At equal widths an exit's logits are exactly those of the subnet that ends there; whoever leaves has them."""
    model, rows = flexible
    batch = minilm.batches(rows, size=32)[0]
    for width, (depth, fraction) in itertools.product((0.5, 1.0), ((2, 1 / 3), (4, 2 / 3))):
        policy = gate_policy(model.width_gates(), [width] * 4, exits=(2, 4))
        static = run(model, batch, subnet_policy(uniform_subnet(model.config, width=width, depth_mult=fraction)))
        assert torch.equal(run(model, batch, policy).exit_logits[depth], static.logits)
    everyone = gate_policy(model.width_gates(), [0.5] * 4, exits=(2,), done=partial(is_certain, threshold=9.0))
    left = run(model, batch, everyone)
    static = run(model, batch, subnet_policy(uniform_subnet(model.config, width=0.5, depth_mult=1 / 3)))
    assert torch.equal(left.logits, static.logits)
    assert left.trace.exit_depth.tolist() == [2] * 32


def torn(model: EfficientBertForSequenceClassification, batch: Batch) -> Policy:
    """Gates and an exit whose threshold lies in the middle of the widest gap between the sentences' entropies."""
    gates, exits = model.width_gates(), (4,)
    entropies = entropy(run(model, batch, gate_policy(gates, WIDTHS, exits=exits)).exit_logits[4]).sort().values
    inner = entropies[8:-8]
    place = int(inner.diff().argmax())
    threshold = float(inner[place : place + 2].mean())
    return gate_policy(gates, WIDTHS, exits=exits, done=partial(is_certain, threshold=threshold))


@torch.inference_mode()
def test_a_gathered_batch_equals_its_examples_alone(
    minilm: MiniLM, flexible: tuple[EfficientBertForSequenceClassification, list[tuple[str, ...]]]
) -> None:
    """32 real sentences at once: logits, widths, depths and FLOPs are those of batch 1 and of masks, and they vary."""
    model, rows = flexible
    batch = minilm.batches(rows, size=32)[0]
    policy = torn(model, batch)
    together = run(model, batch, policy)
    masked = run(model, batch, policy, execution=Execution.MASKED)
    torch.testing.assert_close(together.logits, masked.logits, atol=TOLERANCE, rtol=0)
    assert torch.equal(together.trace.heads, masked.trace.heads)
    for row, alone in enumerate(minilm.batches(rows, size=1)):
        output = run(model, alone, policy)
        torch.testing.assert_close(output.logits[0], together.logits[row], atol=TOLERANCE, rtol=0)
        assert torch.equal(output.trace.heads[0], together.trace.heads[row])
        spent = trace_flops(output.trace, model.config)
        assert spent == trace_flops(together.trace, model.config)[row]
    heads = together.trace.heads
    assert set(heads[:, 1].tolist()) == {3, 6, 9, 12}
    assert together.trace.exit_depth.unique().tolist() == [4, 6]


@pytest.mark.parametrize("gates", [1, 2, 4])
def test_shared_gates_decide_for_their_layers(gates: int) -> None:
    """With fewer gates than layers a width holds until the next gate, for each example its own, also when gathered."""
    model, batch = tiny_model(num_gates=gates, seed=3), tiny_batch([9, 4, 7, 2, 5, 3])
    policy = gate_policy(model.width_gates(), WIDTHS)
    with torch.inference_mode():
        outputs = [run(model, batch, policy, execution=kind) for kind in (Execution.GATHERED, Execution.MASKED)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=TOLERANCE, rtol=0)
    heads = outputs[0].trace.heads
    assert torch.equal(heads, outputs[1].trace.heads)
    groups = heads.view(len(heads), gates, 4 // gates)
    assert (groups == groups[:, :, :1]).all()
    assert outputs[0].trace.decision_macs.sum(1).tolist() == [gates * gate_macs(model.config)] * len(heads)
    if gates < 4:
        assert len(heads.unique()) > 1


def test_gated_passes_are_counted_to_the_digit() -> None:
    """The closed form equals both counters, with widths that differ, exits, and gates of those who stay alone."""
    model, batch = tiny_model(seed=5), tiny_batch([9, 4, 7, 2, 5])
    policy = gate_policy(model.width_gates(), WIDTHS, exits=(1, 2), done=partial(is_certain, threshold=0.5))
    with torch.inference_mode():
        trace = run(model, batch, policy).trace
    assert len(trace.exit_depth.unique()) > 1
    expected = int(trace_flops(trace, model.config).sum())
    assert count_with_torch(model, batch, policy) == expected
    assert count_with_fvcore(model, batch, policy) == expected
    layers = trace.exit_depth
    assert torch.equal(trace.decision_macs.sum(1), layers * gate_macs(model.config))


def test_labels_equal_brute_force() -> None:
    """For every pattern of right and wrong at three widths: the smallest right one, else the last class."""
    patterns = list(itertools.product([False, True], repeat=3))
    expected = [next((place for place, right in enumerate(pattern) if right), 3) for pattern in patterns]
    assert width_labels(torch.tensor(patterns).T).tolist() == expected


def test_balanced_weights_of_published_counts() -> None:
    """The weights of RTE's release follow from its label counts; a class without examples weighs nothing."""
    counts = (2413, 22, 4, 51)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    assert [round(weight, 1) for weight in balanced_weights(labels, 4).tolist()] == [0.3, 28.3, 155.6, 12.2]
    assert balanced_weights(torch.tensor([0, 0, 2]), 3).tolist() == [0.5, 0.0, 1.0]


def test_the_loss_is_a_cross_entropy() -> None:
    """Without noise, weighted and summed, it is torch's weighted cross-entropy over gates and examples."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 3, 4, generator=generator), torch.tensor([0, 3, 1, 1, 0, 0, 3])
    weights = torch.tensor([0.3, 2.0, 5.0, 1.5])
    losses = label_losses(gumbel_softmax(logits), labels)
    each = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(3), weight=weights, reduction="none")
    torch.testing.assert_close((losses * weights).sum(), each.mean())
    assert losses[2] == 0
    assert label_losses(torch.tensor([[[0.0, 1.0]]]), torch.tensor([0])).tolist() == pytest.approx([13.8155, 0.0])


def test_gumbel_softmax_samples_by_probability() -> None:
    """Over many draws the class with the largest noisy logit comes as often as its probability says."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.5, -1.0, 1.0, 0.0])
    draws = torch.empty(20000, 4).exponential_(generator=generator)
    chosen = gumbel_softmax(logits.expand(20000, -1), draws, temperature=0.7).argmax(-1)
    torch.testing.assert_close(chosen.bincount() / 20000, logits.softmax(0), atol=0.015, rtol=0)


def test_the_temperature_falls_to_a_half() -> None:
    """From 1, exponentially towards 0.3, but not below 0.5."""
    assert gumbel_temperature(0.0) == 1.0
    assert gumbel_temperature(0.25) == pytest.approx(0.3**0.25)
    assert gumbel_temperature(1.0) == 0.5


def test_the_expected_width_by_hand() -> None:
    """Probabilities times widths, over gates and examples."""
    probabilities = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]]])
    assert expected_width(probabilities, (0.25, 1.0)).item() == pytest.approx((0.25 + 0.625 + 1 + 1) / 4)


def test_the_target_is_of_the_heads_that_run() -> None:
    """Of twelve heads a width of 0.3 runs four: with a gate that cannot tell, a third and the whole make two thirds."""
    model = tiny_model("twelve_heads", widths=[0.3, 1.0])
    for parameter in model.width_gates().parameters():
        parameter.data.zero_()
    states = torch.zeros(2, len(model.width_gates()), model.config.hidden_size)
    inputs = {"states": states, "gate_labels": torch.tensor([0, 1])}
    options: dict[str, Value] = {"flops_lambda": 9.0, "flops_target": 0.0}
    without = gate_loss(model, inputs, weights=torch.ones(2), options={**options, "flops_lambda": 0.0})
    loss = gate_loss(model, inputs, weights=torch.ones(2), options=options)
    assert (loss - without).item() == pytest.approx(9 * (2 / 3) ** 2)


def test_scores_that_stay_the_same_are_done() -> None:
    """Regression: done where the two newest exits differ by less than the threshold, never at the first exit."""
    scores = torch.tensor([[[1.0], [2.0]], [[1.2], [4.0]]])
    assert scores_agree(scores, 0.5).tolist() == [True, False]
    assert scores_agree(scores[:1], 0.5).tolist() == [False, False]


def test_one_exit_is_none_for_scores() -> None:
    """Regression: two scores are compared, so that nobody could leave at a single exit; of classes one is enough."""
    for classes, depths in ((1, [2, 3]), (2, [2])):
        require_exits(tiny_config(classes=classes, exit_depths=depths), "flexible")
    with pytest.raises(InputError, match="only one is an exit"):
        require_exits(tiny_config(classes=1, exit_depths=[2]), "flexible")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0.75", "4 classes"),
        ("0.5,0.75,x,1", "numbers separated by commas"),
        ("0.5,0.75,0.01,1", "leaves none of 12 heads"),
        ("0.5,0.75,nan,1", "in (0, 1]"),
        ("0.5,0.75,1,2", "in (0, 1]"),
    ],
)
def test_bad_width_lists_are_refused(text: str, message: str) -> None:
    """One line names the value and the rule."""
    with pytest.raises(InputError) as caught:
        class_widths(text, tiny_config())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_width_lists_are_read() -> None:
    """Numbers in the order of the classes."""
    assert class_widths("0.5,0.75,0.75,0.75", tiny_config()) == (0.5, 0.75, 0.75, 0.75)
    assert parse_numbers("1") == (1.0,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_gates": 3}, "divide 4 layers"),
        ({"num_gates": -1}, "divide 4 layers"),
        ({"num_gates": 4, "widths": []}, "ascend"),
        ({"widths": [0.5, 0.25]}, "ascend"),
        ({"widths": [0.01, 0.5]}, "leaves none"),
        ({"layer_heads": [12, 12]}, "4 layers"),
        ({"layer_heads": [12, 12, 0, 3]}, "1 to 12 heads"),
    ],
)
def test_bad_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    """Gates that do not divide the layers, widths out of order, heads that are not there."""
    with pytest.raises(InputError, match=message):
        tiny_config(**fields)


def test_a_model_without_gates_says_so() -> None:
    """Asking for gates that were never trained names the remedy."""
    with pytest.raises(InputError, match="no width gates"):
        tiny_model(num_gates=0).width_gates()
