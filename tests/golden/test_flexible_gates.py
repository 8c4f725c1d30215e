"""Flexible BERT's gates, exits and FLOPs beside numbers of the authors' code; the set is that of test_flexible_bert."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert import EfficientBertConfig, Execution, run
from efficient_bert.config import kept_heads
from efficient_bert.cost.flexible_published import pass_flops
from efficient_bert.cost.flops import head_macs, layer_macs
from efficient_bert.policies.exit_rules import entropy, is_certain
from efficient_bert.policies.gates import (
    balanced_weights,
    gate_macs,
    gate_policy,
    gumbel_softmax,
    label_losses,
    width_labels,
)
from efficient_bert.policies.subnets import uniform_subnet
from tests.golden.flexible_bert_set import FOLDER, Golden, close, flops_file, our_name, record

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no reference outputs in {FOLDER}; set GOLDEN_DIR")

LOGITS, STATES, LOSSES, GRADIENTS, PROBABILITIES = 1e-4, 5e-5, 2e-5, 3e-5, 5e-6


@pytest.fixture(scope="module")
def golden() -> Golden:
    """The set, read once."""
    return Golden()


def first(golden: Golden, width: float) -> Tensor:
    """The [CLS] states that the gates read, (B, G, D), in a pass at one width."""
    _, states = record(golden, uniform_subnet(golden.model.config, width=width))
    gates = golden.model.width_gates()
    return torch.stack(states[: -1 : gates.span], dim=1)[:, :, 0]


def test_gate_logits(golden: Golden) -> None:
    """What the gates read and say in the full-width pass."""
    states = first(golden, 1.0)
    close(states.transpose(0, 1), golden.expected["gate.cls_states"], atol=STATES)
    logits = golden.model.width_gates().all_logits(states)
    close(logits.transpose(0, 1), golden.expected["gate.logits"], atol=STATES)


def test_gate_labels(golden: Golden) -> None:
    """The smallest width that is right, how often each occurs, and balanced weights."""
    classes = golden.model.config.widths
    logits = [record(golden, uniform_subnet(golden.model.config, width=width))[0] for width in classes[:-1]]
    close(torch.stack(logits), golden.expected["gate.static_logits"], atol=LOGITS)
    labels = width_labels(torch.stack(logits).argmax(2) == golden.labels)
    assert torch.equal(labels, golden.expected["gate.labels"].long())
    assert labels.bincount(minlength=len(classes)).tolist() == golden.expected["gate.label_counts"].tolist()
    close(balanced_weights(labels, len(classes)), golden.expected["gate.class_weights_balanced"], atol=1e-12)


def test_gate_losses_and_gradients(golden: Golden) -> None:
    """Probabilities of every pass, each class's loss under every weighting, and the released one's gradient."""
    gates, labels = golden.model.width_gates(), golden.expected["gate.labels"].long()
    classes = golden.model.config.widths
    own = torch.zeros(len(labels), len(gates), len(classes))
    for width, expected in zip(golden.widths, golden.expected["gate.soft_zero_noise"], strict=True):
        found = gumbel_softmax(gates.all_logits(first(golden, width)), temperature=golden.config["gate"]["tau"])
        close(found.transpose(0, 1), expected, atol=PROBABILITIES)
        own = torch.where((labels == classes.index(width))[:, None, None], found, own)
    losses = label_losses(own, labels)
    order = [classes.index(width) for width in golden.widths]
    close(losses[order], golden.expected["gate.loss_unweighted"], atol=LOSSES, rtol=1e-5)
    weightings = [name for name in golden.expected if name.startswith("gate.class_weights_")]
    assert len(weightings) > 1
    for name in weightings:
        weighted = losses * golden.expected[name]
        expected = golden.expected[name.replace("class_weights", "loss_weighted")]
        close(weighted[order].float(), expected, atol=LOSSES, rtol=1e-5)
    released = golden.expected["gate.class_weights_rte"]
    names = [name.removeprefix("gate.grad.") for name in golden.expected if name.startswith("gate.grad.")]
    assert names
    grads = torch.autograd.grad((losses * released).sum(), list(gates.parameters()))
    close(torch.stack([grad.norm() for grad in grads]).norm(), golden.expected["gate.grad_norm"], atol=0, rtol=1e-5)
    by_name = dict(zip((f"gates.{name}" for name, _ in gates.named_parameters()), grads, strict=True))
    for name in names:
        close(by_name[our_name(name)], golden.expected[f"gate.grad.{name}"], atol=GRADIENTS)


def test_gumbel_softmax(golden: Golden) -> None:
    """With given draws and temperature."""
    expected = golden.expected
    found = gumbel_softmax(
        expected["gate.logits"], expected["gumbel.exponential"], temperature=float(expected["gumbel.tau"])
    )
    close(found, expected["gumbel.soft"], atol=PROBABILITIES)


def lists(golden: Golden) -> dict[str, list[float]]:
    """Name -> width of each class."""
    found: dict[str, list[float]] = golden.config["width_lists"]
    return found


@pytest.mark.parametrize("alone", [False, True])
@torch.no_grad()
def test_dynamic_widths(golden: Golden, alone: bool) -> None:
    """Gathered passes without exits: widths exactly, logits, and every exit's logits and entropy."""
    model, depths = golden.model, tuple(golden.config["exit_layers_1based"])
    for name, widths in lists(golden).items():
        policy = gate_policy(model.width_gates(), widths, exits=depths)
        rows = range(len(golden.labels)) if alone else [slice(None)]
        for row in rows:
            part = slice(row, row + 1) if isinstance(row, int) else row
            batch = golden.rows(part.start or 0, part.stop or len(golden.labels))
            output = run(model, batch, policy)
            close(output.logits, golden.expected[f"dyn.{name}.logits"][part], atol=LOGITS)
            for depth in depths:
                logits = output.exit_logits[depth]
                close(logits, golden.expected[f"dyn.{name}.ramp{depth}_logits"][part], atol=LOGITS)
                close(entropy(logits), golden.expected[f"dyn.{name}.entropy{depth}"][part], atol=LOSSES, rtol=1e-5)
            if f"dyn.{name}.width" in golden.expected:
                expected = golden.expected[f"dyn.{name}.width"][part].tolist()
                heads = [[kept_heads(width, model.config.num_attention_heads) for width in row] for row in expected]
                assert output.trace.heads.tolist() == heads


@torch.no_grad()
def test_dynamic_classes(golden: Golden) -> None:
    """What the gates say of the states of mixed widths, and the class that they choose."""
    for name, widths in lists(golden).items():
        if f"dyn.{name}.class" not in golden.expected:
            continue
        gates = golden.model.width_gates()
        policy = gate_policy(gates, widths)
        output = run(golden.model, golden.batch, policy, execution=Execution.MASKED, record=True)
        logits = gates.all_logits(torch.stack(output.hidden_states[: -1 : gates.span], dim=1)[:, :, 0])
        close(logits, golden.expected[f"dyn.{name}.gate_logits"], atol=STATES)
        assert torch.equal(logits.argmax(2), golden.expected[f"dyn.{name}.class"].long())


@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
@torch.no_grad()
def test_exits(golden: Golden, execution: Execution) -> None:
    """At every threshold and width list: where each example leaves, its logits, accuracy and mean loss."""
    model, depths = golden.model, tuple(golden.config["exit_layers_1based"])
    left = set()
    for name, widths in lists(golden).items():
        for place, threshold in enumerate(golden.config["exit_thresholds"]):
            policy = gate_policy(
                model.width_gates(), widths, exits=depths, done=partial(is_certain, threshold=threshold)
            )  # fmt: skip
            output = run(model, golden.batch, policy, execution=execution)
            expected = golden.expected[f"dyn.{name}.exit_layer"][place]
            assert output.trace.exit_depth.tolist() == expected.tolist()
            left |= set(expected.tolist())
            close(output.logits, golden.expected[f"dyn.{name}.exit_logits"][place], atol=LOGITS)
            accuracy = (output.logits.argmax(1) == golden.labels).float().mean()
            close(accuracy, golden.expected[f"dyn.{name}.exit_acc"][place], atol=1e-6)
            loss = F.cross_entropy(output.logits, golden.labels)
            close(loss, golden.expected[f"dyn.{name}.exit_mean_loss"][place], atol=LOSSES, rtol=1e-5)
    assert len(left) > 1


def configured(sizes: dict[str, int], case: dict[str, Any]) -> EfficientBertConfig:
    """The configuration of a case; nothing is allocated."""
    return EfficientBertConfig(
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        hidden_size=sizes["hidden"],
        intermediate_size=sizes["intermediate"],
        num_labels=case["num_labels"],
        num_gates=sizes["layers"],
        widths=[(place + 1) / len(case["width_list"]) for place in range(len(case["width_list"]))],
    )


def test_flops() -> None:
    """The released counter to the digit, and our closed form of the same passes: with attention, without idle gates."""
    figures = flops_file()
    sizes = figures["sizes"]
    for case in figures["configurations"]:
        config, parts = configured(sizes, case), case["closed_form"]
        heads = torch.tensor([kept_heads(width, sizes["heads"]) for width in case["layer_widths"]])
        assert heads.tolist() == case["layer_heads"]
        padded = F.pad(heads, (0, sizes["layers"] - len(heads)))[None]
        runs = torch.tensor([case["exit_heads_run"]])
        released = pass_flops(padded, exits=runs, tokens=torch.tensor([sizes["sequence_length"]]), config=config)
        assert released.tolist() == [2 * case["counter_macs"]]
        assert released.item() / 1e10 == pytest.approx(case["released_value"], rel=1e-12)
        neurons = torch.tensor([config.neurons(own) for own in heads.tolist()])
        tokens = torch.tensor([sizes["sequence_length"]])
        layers = layer_macs(tokens, heads=heads, neurons=neurons, config=config).sum()
        assert layers == parts["trunk_linear_macs"] + parts["attention_product_macs"]
        assert case["gates_run"] * gate_macs(config) == parts["gate_macs"]
        assert case["exit_heads_run"] * head_macs(config) == parts["exit_head_macs"]
        assert head_macs(config) == parts["final_pooler_classifier_macs"]
