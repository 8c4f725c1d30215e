"""Flexible BERT and DynaBERT beside numbers of the authors' code: importance, subnets, stages, grafts, gates, exits.

The set is read from the folder `flexible_bert` in GOLDEN_DIR; its README names the arrays and gives the tolerances.
Sizes, classes, widths, depths and thresholds come from the files, so another set in the same format will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification, run
from efficient_bert.config import kept_heads
from efficient_bert.fidelity import Fidelity
from efficient_bert.subnets import DepthRule, Subnet, kept_layers, ranked, subnet_policy, uniform
from efficient_bert.training.distillation import Distance, distance, readings, teach, teacher_states
from efficient_bert.training.grafting import donors, graft, graft_steps
from tests.golden.flexible_bert_set import FOLDER, MODES, Golden, close, flops_file, record

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no reference outputs in {FOLDER}; set GOLDEN_DIR")

LOGITS, STATES, LOSSES, GRADIENTS, PROBABILITIES, GRAFTED = 1e-4, 5e-5, 2e-5, 3e-5, 5e-6, 2e-7
RULES = {"prefix": DepthRule.PREFIX, "floor": DepthRule.FLOOR}
Losses = Callable[[EfficientBertForSequenceClassification], Iterator[tuple[float, float, Distance | None, Tensor]]]


@pytest.fixture(scope="module")
def golden() -> Golden:
    """The set, read once."""
    return Golden()


def test_full_model(golden: Golden) -> None:
    """Logits, and every state of one example with its padding."""
    logits, states = record(golden, uniform(golden.model.config, width=1.0))
    close(logits, golden.expected["full.logits"], atol=LOGITS)
    close(torch.stack(states)[:, 1], golden.expected["full.hidden_example1"], atol=STATES)


@pytest.mark.parametrize("rule", RULES)
def test_subnets(golden: Golden, rule: str) -> None:
    """Logits of every width and depth, and states where the set has them."""
    for place, width in enumerate(golden.widths):
        for deep, depth in enumerate(golden.depths):
            subnet = uniform(golden.model.config, width=width, depth=depth, rule=RULES[rule])
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
        swapped = (ranked(scores) != order).nonzero()
        for layer, place in swapped.tolist():  # only units that the set itself cannot tell apart
            ours, theirs = ranked(scores)[layer, place], order[layer, place]
            assert abs(expected[layer, ours] - expected[layer, theirs]) < 1e-5 * largest[layer, 0]
        assert (ranked(expected) == order).all()
    assert all(parameter.grad is None for parameter in golden.model.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_rewired_model(golden: Golden, mode: str) -> None:
    """Every width of the rewired model; the full one is the function that it was."""
    model, expected = golden.rewired(mode), golden.expected[f"rewired.{mode}.logits"]
    for width, logits in zip(golden.widths, expected, strict=True):
        with torch.no_grad():
            found = run(model, golden.batch, subnet_policy(uniform(model.config, width=width))).logits
        close(found, logits, atol=LOGITS)
    close(expected[golden.widths.index(1.0)], golden.expected["full.logits"], atol=LOGITS)


def distilled(
    student: EfficientBertForSequenceClassification,
    *,
    teacher: EfficientBertForSequenceClassification,
    batch: Batch,
    widths: list[float],
    depths: list[float],
    rule: DepthRule,
    weights: dict[str, float],
) -> Iterator[tuple[float, float, Distance | None, Tensor]]:
    """(width, depth, distance, loss) of every subnet, as released."""
    model, layers = teach(teacher, batch), student.config.num_hidden_layers
    for width in widths:
        for depth, reading in zip(depths, readings(student, batch, width=width, depths=depths, rule=rule), strict=True):
            places = teacher_states(depth, layers)
            found = distance(reading, model, batch.mask, places=places, fidelity=Fidelity.RELEASED)
            yield width, depth, found, found.loss(answers=weights["logit_weight"], states=weights["hidden_weight"])


def hard(
    student: EfficientBertForSequenceClassification, *, golden: Golden, rule: DepthRule
) -> Iterator[tuple[float, float, Distance | None, Tensor]]:
    """(width, depth, nothing, cross-entropy) of every subnet."""
    for width in golden.widths:
        found = readings(student, golden.batch, width=width, depths=golden.depths, rule=rule)
        for depth, reading in zip(golden.depths, found, strict=True):
            yield width, depth, None, F.cross_entropy(reading.logits, golden.labels)


def gradients(model: EfficientBertForSequenceClassification) -> Tensor:
    """The norm over all parameters."""
    found = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
    norm: Tensor = torch.stack(found).norm()
    return norm


def sum_up(
    golden: Golden, name: str, losses: Losses, model: EfficientBertForSequenceClassification, *, depths: list[float]
) -> None:
    """Check every subnet's loss and its parts, and leave the gradient of their sum behind."""
    expected = {
        part: golden.expected[f"{name}.{part}"].reshape(len(depths), len(golden.widths), *rest)
        for part, rest in (("loss", ()), ("soft_ce", ()), ("hidden_mse", (-1,)))
        if f"{name}.{part}" in golden.expected
    }
    seen = 0
    for width, depth, found, loss in losses(model):
        place = depths.index(depth), golden.widths.index(width)
        close(loss, expected["loss"][place], atol=LOSSES, rtol=1e-5)
        if found is not None:
            close(found.answers, expected["soft_ce"][place], atol=LOSSES, rtol=1e-5)
            states = expected["hidden_mse"][place]
            close(found.states, states[~states.isnan()], atol=LOSSES, rtol=1e-5)
        loss.backward(retain_graph=True)
        seen += 1
    assert seen == len(depths) * len(golden.widths)
    close(gradients(model), golden.expected[f"{name}.grad_norm"], atol=0, rtol=1e-5)


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
    losses = partial(
        distilled, teacher=golden.model, batch=golden.batch, widths=golden.widths, depths=[1.0],
        rule=DepthRule.PREFIX, weights=golden.config["stage1"],
    )  # fmt: skip
    sum_up(golden, "stage1", losses, student, depths=[1.0])
    check_gradients(golden, "stage1", student)
    rate = golden.config["golden_step"]["learning_rate"]
    step(student, adamw(student), rate=rate, number=1)
    for name in golden.named_tensors:
        found, expected = student.get_parameter(name), golden.expected[f"stage1.after_step.{name}"]
        close(meaningful(golden, name, found), meaningful(golden, name, expected), atol=1e-2 * rate)
        close(found, expected, atol=2 * rate)


@pytest.mark.parametrize("rule", RULES)
def test_stage_2(golden: Golden, rule: str) -> None:
    """Width- and depth-adaptive distillation under both depth rules; prefixes share their pass."""
    student = golden.rewired("cumulative")
    losses = partial(
        distilled, teacher=golden.rewired("cumulative"), batch=golden.batch, widths=golden.widths,
        depths=golden.depths, rule=RULES[rule], weights=golden.config["stage2"],
    )  # fmt: skip
    sum_up(golden, f"stage2.{rule}", losses, student, depths=golden.depths)
    check_gradients(golden, f"stage2.{rule}", student)


@pytest.mark.parametrize("rule", RULES)
def test_stage_3(golden: Golden, rule: str) -> None:
    """Gold classes for every subnet."""
    student = golden.rewired("cumulative")
    losses = partial(hard, golden=golden, rule=RULES[rule])
    sum_up(golden, f"stage3.{rule}", losses, student, depths=golden.depths)
    check_gradients(golden, f"stage3.{rule}", student)


def test_trajectory(golden: Golden) -> None:
    """Steps of stage 1 after a graft: losses, norms, and the weights in the end."""
    settings, student = golden.config["trajectory"], deepcopy(golden.model)
    graft(student, golden.importances["cumulative"])
    optimizer, size = adamw(student), settings["batch_size"]
    for number, rate in enumerate(settings["learning_rates"]):
        batch = golden.rows(number * size, (number + 1) * size)
        for width, _, _, loss in distilled(
            student, teacher=golden.model, batch=batch, widths=golden.widths, depths=[1.0],
            rule=DepthRule.PREFIX, weights=golden.config["stage1"],
        ):  # fmt: skip
            close(loss, golden.expected["traj.loss"][number, golden.widths.index(width)], atol=1e-4)
            loss.backward()
        close(gradients(student), golden.expected["traj.grad_norm"][number], atol=0, rtol=1e-5)
        step(student, optimizer, rate=rate, number=number + 1)
    for name in golden.named_tensors:
        close(student.get_parameter(name), golden.expected[f"traj.final.{name}"], atol=1e-6)


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
