"""Flexible BERT and DynaBERT beside numbers of the authors' code: importance, subnets, stages, grafts, gates, exits.

The set is read from the folder `flexible_bert` in GOLDEN_DIR; its README names the arrays and gives the tolerances.
Sizes, classes, widths, depths and thresholds come from the files, so another set in the same format will do.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification, run
from efficient_bert.config import kept_heads
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.subnets import DepthRule, Subnet, kept_layers, subnet_policy, uniform_subnet
from efficient_bert.training.distillation import distance, readings, teach, teacher_state_numbers
from efficient_bert.training.flexible.gating import gate_loss, labels_of, states_of
from efficient_bert.training.flexible.grafting import donors, graft, graft_steps
from efficient_bert.training.flexible.rewiring import rank_units
from efficient_bert.training.flexible.stage import Teaching, descend_jointly, joint_losses
from tests.golden.flexible_bert_set import FOLDER, MODES, Golden, close, flops_file, record

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no reference outputs in {FOLDER}; set GOLDEN_DIR")

LOGITS, STATES, LOSSES, GRADIENTS, PROBABILITIES, GRAFTED = 1e-4, 5e-5, 2e-5, 3e-5, 5e-6, 2e-7
RULES = {"prefix": DepthRule.PREFIX, "floor": DepthRule.FLOOR}


@pytest.fixture(scope="module")
def golden() -> Golden:
    """The set, read once."""
    return Golden()


def test_full_model(golden: Golden) -> None:
    """Logits, and every state of one example with its padding."""
    logits, states = record(golden, uniform_subnet(golden.model.config, width=1.0))
    close(logits, golden.expected["full.logits"], atol=LOGITS)
    close(torch.stack(states)[:, 1], golden.expected["full.hidden_example1"], atol=STATES)


@pytest.mark.parametrize("rule", RULES)
def test_subnets(golden: Golden, rule: str) -> None:
    """Logits of every width and depth, and states where the set has them."""
    for place, width in enumerate(golden.widths):
        for deep, depth in enumerate(golden.depths):
            subnet = uniform_subnet(golden.model.config, width=width, depth_mult=depth, rule=RULES[rule])
            logits, states = record(golden, subnet)
            close(logits, golden.expected[f"sub.{rule}.logits"][place, deep], atol=LOGITS)
            tag = "d100" if depth == 1 else f"{rule}.d{round(100 * depth):03d}"
            if rule == "prefix" and depth < 1:  # a prefix has the whole model's states
                tag = "d100"
            expected = golden.expected[f"sub.{tag}.hidden_cls"][place][: len(states)]
            close(torch.stack(states)[:, :, 0], expected, atol=STATES)
            projected = torch.stack(states) @ golden.expected["proj.vector"]
            close(projected, golden.expected[f"sub.{tag}.hidden_proj"][place][: len(states)], atol=LOGITS)


def test_mixed_widths(golden: Golden) -> None:
    """One width for each layer, odd ones too."""
    for place, widths in enumerate(golden.expected["mixed.widths"].tolist()):
        logits, states = record(golden, Subnet(tuple(range(len(widths))), tuple(widths)))
        close(logits, golden.expected["mixed.logits"][place], atol=LOGITS)
        close(states[-1][:, 0], golden.expected["mixed.last_cls"][place], atol=STATES)


@pytest.mark.parametrize("mode", MODES)
def test_importance_and_order(golden: Golden, mode: str) -> None:
    """Scores within 1e-4 of the layer's largest, and the order that they make; gradients are left as they were."""
    found = golden.importances[mode]
    for kind, scores in (("head", found.heads), ("neuron", found.neurons)):
        expected = golden.expected[f"imp.{mode}.{kind}"]
        largest = expected.amax(1, keepdim=True)
        close(scores / largest, expected / largest, atol=1e-4)
        order = golden.expected[f"perm.{mode}.{kind}"].long()
        swapped = (rank_units(scores) != order).nonzero()
        for layer, place in swapped.tolist():  # only units that the set itself cannot tell apart
            ours, theirs = rank_units(scores)[layer, place], order[layer, place]
            assert abs(expected[layer, ours] - expected[layer, theirs]) < 1e-5 * largest[layer, 0]
        assert (rank_units(expected) == order).all()
    assert all(parameter.grad is None for parameter in golden.model.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_rewired_model(golden: Golden, mode: str) -> None:
    """Every width of the rewired model; the full one is the function that it was."""
    model, expected = golden.rewired(mode), golden.expected[f"rewired.{mode}.logits"]
    for width, logits in zip(golden.widths, expected, strict=True):
        with torch.no_grad():
            found = run(model, golden.batch, subnet_policy(uniform_subnet(model.config, width=width))).logits
        close(found, logits, atol=LOGITS)
    close(expected[golden.widths.index(1.0)], golden.expected["full.logits"], atol=LOGITS)


def gradients(model: EfficientBertForSequenceClassification) -> Tensor:
    """The norm over all parameters."""
    found = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
    norm: Tensor = torch.stack(found).norm()
    return norm


def released(
    golden: Golden,
    stage: str,
    *,
    teacher: EfficientBertForSequenceClassification | None,
    depths: list[float],
    rule: DepthRule = DepthRule.PREFIX,
) -> Teaching:
    """What the subnets of a stage learn, as released."""
    weights = golden.config.get(stage, {"logit_weight": 1.0, "hidden_weight": 0.0})
    return Teaching(
        tuple(golden.widths),
        tuple(depths),
        rule,
        teacher=teacher,
        answers=weights["logit_weight"],
        states=weights["hidden_weight"],
        fidelity=Fidelity.RELEASED,
    )


def check_stage(golden: Golden, name: str, model: EfficientBertForSequenceClassification, teaching: Teaching) -> None:
    """Check every subnet's loss, their sum, and its gradients, which are left behind."""
    expected = golden.expected[f"{name}.loss"].reshape(len(teaching.depths), len(teaching.widths))
    with torch.no_grad():
        for depth, losses in zip(teaching.depths, expected, strict=True):
            found = torch.stack(list(joint_losses(model, golden.inputs, replace(teaching, depths=(depth,)))))
            close(found, losses, atol=LOSSES, rtol=1e-5)
    total = descend_jointly(model, golden.inputs, teaching, Tensor.backward)
    close(total, expected.sum(), atol=LOSSES, rtol=1e-5)
    close(gradients(model), golden.expected[f"{name}.grad_norm"], atol=0, rtol=1e-5)
    check_gradients(golden, name, model)


@torch.no_grad()
def check_parts(golden: Golden, name: str, model: EfficientBertForSequenceClassification, teaching: Teaching) -> None:
    """Check how far every subnet's answers and each of its states are from the teacher's."""
    assert teaching.teacher is not None
    shape = len(teaching.depths), len(teaching.widths)
    answers = golden.expected[f"{name}.soft_ce"].reshape(shape)
    squares = golden.expected[f"{name}.hidden_mse"].reshape(*shape, -1)
    teacher, layers = teach(teaching.teacher, golden.batch), model.config.num_hidden_layers
    for column, width in enumerate(teaching.widths):
        found = readings(model, golden.batch, width=width, depths=teaching.depths, rule=teaching.rule)
        for row, (depth, reading) in enumerate(zip(teaching.depths, found, strict=True)):
            state_numbers = teacher_state_numbers(depth, layers)
            apart = distance(
                reading, teacher, golden.batch.mask, state_numbers=state_numbers, fidelity=Fidelity.RELEASED
            )
            close(apart.answers, answers[row, column], atol=LOSSES, rtol=1e-5)
            states = squares[row, column]
            close(apart.states, states[~states.isnan()], atol=LOSSES, rtol=1e-5)


def check_gradients(golden: Golden, name: str, model: EfficientBertForSequenceClassification) -> None:
    """The named gradients, before clipping."""
    for parameter in golden.named_tensors:
        grad = model.get_parameter(parameter).grad
        assert grad is not None
        close(grad, golden.expected[f"{name}.grad.{parameter}"], atol=GRADIENTS)


def step(
    model: EfficientBertForSequenceClassification, optimizer: torch.optim.Optimizer, *, rate: float, number: int
) -> None:
    """Clip and descend, step by step from 1; the release adds epsilon to the second moment before its correction."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group |= {"lr": rate, "eps": 1e-8 / math.sqrt(1 - 0.999**number)}
    optimizer.step()
    optimizer.zero_grad()


def adamw(model: EfficientBertForSequenceClassification) -> torch.optim.Optimizer:
    """The set's optimiser."""
    return torch.optim.AdamW(model.parameters(), weight_decay=0.0)


def meaningful(golden: Golden, name: str, value: Tensor) -> Tensor:
    """The part of a parameter that a subnet narrower than the full model runs on."""
    second = sorted(golden.widths)[-2]
    heads, config = kept_heads(second, golden.model.config.num_attention_heads), golden.model.config
    if "self" in name:
        return value[: heads * config.head_size]
    return value[:, : config.neurons(heads)]


def test_stage_1(golden: Golden) -> None:
    """Width-adaptive distillation: parts, losses, accumulated gradients, and the weights after a step."""
    student = golden.rewired("cumulative")
    teaching = released(golden, "stage1", teacher=golden.model, depths=[1.0])
    check_parts(golden, "stage1", student, teaching)
    check_stage(golden, "stage1", student, teaching)
    rate = golden.config["golden_step"]["learning_rate"]
    step(student, adamw(student), rate=rate, number=1)
    for name in golden.named_tensors:
        found, expected = student.get_parameter(name), golden.expected[f"stage1.after_step.{name}"]
        close(meaningful(golden, name, found), meaningful(golden, name, expected), atol=1e-2 * rate)
        close(found, expected, atol=2 * rate)


@pytest.mark.parametrize("rule", RULES)
def test_stage_2(golden: Golden, rule: str) -> None:
    """Width- and depth-adaptive distillation under both depth rules; prefixes share their pass."""
    student, teacher = golden.rewired("cumulative"), golden.rewired("cumulative")
    teaching = released(golden, "stage2", teacher=teacher, depths=golden.depths, rule=RULES[rule])
    check_parts(golden, f"stage2.{rule}", student, teaching)
    check_stage(golden, f"stage2.{rule}", student, teaching)


@pytest.mark.parametrize("rule", RULES)
def test_stage_3(golden: Golden, rule: str) -> None:
    """Gold classes for every subnet."""
    student = golden.rewired("cumulative")
    teaching = released(golden, "stage3", teacher=None, depths=golden.depths, rule=RULES[rule])
    check_stage(golden, f"stage3.{rule}", student, teaching)


def test_trajectory(golden: Golden) -> None:
    """Steps of stage 1 after a graft: losses, norms, and the weights in the end."""
    settings, student = golden.config["trajectory"], deepcopy(golden.model)
    graft(student, golden.importances["cumulative"])
    optimizer, size = adamw(student), settings["batch_size"]
    teaching = released(golden, "stage1", teacher=golden.model, depths=[1.0])
    for number, rate in enumerate(settings["learning_rates"]):
        inputs = {name: value[number * size : (number + 1) * size] for name, value in golden.inputs.items()}
        with torch.no_grad():
            found = torch.stack(list(joint_losses(student, inputs, teaching)))
        close(found, golden.expected["traj.loss"][number], atol=1e-4)
        descend_jointly(student, inputs, teaching, Tensor.backward)
        close(gradients(student), golden.expected["traj.grad_norm"][number], atol=0, rtol=1e-5)
        step(student, optimizer, rate=rate, number=number + 1)
    for name in golden.named_tensors:
        close(student.get_parameter(name), golden.expected[f"traj.final.{name}"], atol=1e-6)


def test_gate_loss(golden: Golden) -> None:
    """Rows that are labelled and read as the stage does it have each class's loss, under every weighting."""
    model, names = golden.model, ("input_ids", "token_type_ids")
    lengths, labels = golden.batch.mask.sum(1).tolist(), golden.labels.tolist()
    rows: list[dict[str, Any]] = [
        {**{name: golden.inputs[name][row, :length].tolist() for name in names}, "label": label}
        for row, (length, label) in enumerate(zip(lengths, labels, strict=True))
    ]
    classes = labels_of(model, rows)
    assert torch.equal(classes, golden.expected["gate.labels"].long())
    states = states_of(model, [{**row, "gate_label": label} for row, label in zip(rows, classes, strict=True)])
    inputs = {"states": states.clone(), "gate_labels": classes.clone()}
    options = {"flops_lambda": 0.0, "flops_target": 0.5}
    weightings = [name for name in golden.expected if name.startswith("gate.class_weights_")]
    assert len(weightings) > 1
    for name in weightings:
        weights, expected = golden.expected[name], golden.expected[name.replace("class_weights", "loss_weighted")]
        for place, width in enumerate(golden.widths):
            own = weights * (torch.tensor(model.config.widths) == width)
            found = gate_loss(model, inputs, weights=own, options=options)
            close(found, expected[place], atol=LOSSES, rtol=1e-5)
        total = gate_loss(model, inputs, weights=weights, options=options)
        close(total, expected.sum(), atol=LOSSES, rtol=1e-5)
    total = gate_loss(model, inputs, weights=golden.expected["gate.class_weights_rte"], options=options)
    grads = torch.autograd.grad(total, list(model.width_gates().parameters()))
    close(torch.stack([grad.norm() for grad in grads]).norm(), golden.expected["gate.grad_norm"], atol=0, rtol=1e-5)


def test_graft(golden: Golden) -> None:
    """Donors of every unit, every parameter of the layers in the set, and the full model's logits."""
    scores, model = golden.importances["cumulative"], deepcopy(golden.model)
    for kind, found in (("head", scores.heads), ("neuron", scores.neurons)):
        assert torch.equal(donors(found), golden.expected[f"graft.donor.{kind}"].long())
    settings = golden.config["graft"]
    graft(model, scores, alpha=settings["alpha"], fraction=settings["fraction"])
    names = [name.removeprefix("graft.after.") for name in golden.expected if name.startswith("graft.after.")]
    assert names
    for name in names:
        close(golden.model.get_parameter(name), golden.expected[f"graft.before.{name}"], atol=0)
        close(model.get_parameter(name), golden.expected[f"graft.after.{name}"], atol=GRAFTED)
    with torch.no_grad():
        close(run(model, golden.batch).logits, golden.expected["graft.logits_after"], atol=LOGITS)


def test_graft_schedule(golden: Golden) -> None:
    """The steps after which the released loop grafts."""
    for example in golden.config["graft"]["examples_of_schedule"]:
        found = graft_steps(
            examples=example["train_examples"], batch_size=example["batch_size"], epochs=example["epochs"]
        )
        assert list(found) == example["graft_after_global_step"]


def test_slices() -> None:
    """How many heads, dimensions and neurons each width keeps."""
    figures = flops_file()
    sizes = figures["sizes"]
    config = EfficientBertConfig(
        num_attention_heads=sizes["heads"], hidden_size=sizes["hidden"], intermediate_size=sizes["intermediate"]
    )
    for row in figures["slices"]:
        heads = kept_heads(row["width"], sizes["heads"])
        assert heads == row["heads"]
        assert heads * config.head_size == row[f"hidden{sizes['hidden']}"]
        assert config.neurons(heads) == row[f"ffn{sizes['intermediate']}"]


def test_depth_rules() -> None:
    """The layers that each rule keeps of twelve, by hand; the sets of the paper end with the last layer."""
    assert kept_layers(0.75, 12, DepthRule.FLOOR) == (0, 1, 2, 4, 5, 6, 8, 9, 10)
    assert kept_layers(0.5, 12, DepthRule.FLOOR) == (0, 2, 4, 6, 8, 10)
    assert kept_layers(0.75, 12, DepthRule.KEEP_LAST) == (0, 1, 3, 4, 5, 7, 8, 9, 11)
    assert kept_layers(0.5, 12, DepthRule.KEEP_LAST) == (1, 3, 5, 7, 9, 11)
    assert kept_layers(0.5, 12, DepthRule.PREFIX) == (0, 1, 2, 3, 4, 5)
    assert all(kept_layers(1.0, 12, rule) == tuple(range(12)) for rule in DepthRule)
