"""What Flexible BERT's stages make of their options: losses by hand, scored rows, kept epochs, shared passes, gates."""

from __future__ import annotations

import itertools
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert import EfficientBertForSequenceClassification, Execution, run
from efficient_bert.calibration.importance import Importance, importance
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.subnets import DepthRule, subnet_policy, uniform_subnet
from efficient_bert.rows import Rows
from efficient_bert.training import Context, Stage, Status
from efficient_bert.training.flexible import gating, grafting
from efficient_bert.training.flexible import stage as stages
from efficient_bert.training.flexible.gating import GATES, folds, gate_loss, labels_of, states_of, with_gates
from efficient_bert.training.flexible.rewiring import rewire
from efficient_bert.training.flexible.stage import DEPTH, FINAL, REWIRE, WIDTH, Teaching, joint_losses
from tests.efficient_bert.training.test_flexible_training import (
    ALL,
    WIDTHS,
    batch_and_classes,
    given,
    plain,
    states,
    supernet,
)
from tests.efficient_bert.training.test_training_loop import rows
from tests.support.tiny import tiny_model

STILL: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
PLACES = {1.0: (0, 1, 2, 3, 4), 0.75: (0, 1, 2, 4), 0.5: (0, 2, 4)}
"""Depth -> the teacher's states that a subnet of four layers is compared with."""

ONE_STEP: dict[str, Any] = {"label_split": "train", "batch_size": 64, "epochs": 1, "loss": "plain"}
"""Gates that take one step, on all training rows."""


def first_loss(stage: Stage, run_: Context) -> float:
    """What the first step of a stage reports."""
    seen: list[Status] = []
    stage.train(replace(run_, watch=seen.append))
    return seen[0].loss


def followed_by_hand(model: EfficientBertForSequenceClassification, some: Rows, options: dict[str, Any]) -> float:
    """The sum over subnets of what they learn from a copy of their model, each by a pass of its own."""
    batch, _ = batch_and_classes(some)
    live = torch.ones_like(batch.mask) if options.get("fidelity") == "released" else batch.mask
    total = 0.0
    for width, depth in itertools.product(WIDTHS, options["depths"]):
        rule = DepthRule(options.get("rule", "prefix"))
        own, teacher = (
            run(model, batch, subnet_policy(subnet), execution=Execution.SOFT, record=True)
            for subnet in (
                uniform_subnet(model.config, width=width, depth_mult=depth, rule=rule),
                uniform_subnet(model.config, width=width if options.get("teacher") == "same" else 1.0),
            )
        )
        squares = [
            F.mse_loss(state[live], teacher.hidden_states[place][live])
            for state, place in zip(own.hidden_states, PLACES[depth], strict=True)
        ]
        answers = F.cross_entropy(own.logits, teacher.logits.softmax(-1))
        total += options["lambda1"] * float(answers) + options["lambda2"] * float(torch.stack(squares).sum())
    return total


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        (WIDTH, {"lambda1": 1.0, "lambda2": 0.1}),
        (WIDTH, {"lambda1": 0.3, "lambda2": 0.7}),
        (WIDTH, {"lambda1": 1.0, "lambda2": 0.1, "fidelity": "released"}),
        (DEPTH, {"lambda1": 1.0, "lambda2": 1.0}),
        (DEPTH, {"lambda1": 0.3, "lambda2": 0.7}),
        (DEPTH, {"lambda1": 1.0, "lambda2": 1.0, "fidelity": "released"}),
        (DEPTH, {"lambda1": 1.0, "lambda2": 1.0, "teacher": "same"}),
        (DEPTH, {"lambda1": 1.0, "lambda2": 1.0, "teacher": "same", "rule": "floor"}),
    ],
)
def test_the_first_step_by_hand(tmp_path: Path, stage: Stage, options: dict[str, Any]) -> None:
    """Both weights, the teacher's width, padding and the depth rule are what the options say."""
    model = plain(**STILL, widths=[] if stage is WIDTH else list(WIDTHS))
    asked = {"epochs": 1, "batch_size": 16, **options, **({"graft": "no"} if stage is WIDTH else {})}
    run_ = given(tmp_path, stage, model=model, train=rows(12, 0), options=asked)
    with torch.no_grad():
        depths = (1.0,) if stage is WIDTH else ALL.depths
        expected = followed_by_hand(model, run_.train, {**options, "depths": depths})
    assert first_loss(stage, run_) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fidelity", Fidelity)
def test_padding_counts_as_released(fidelity: Fidelity) -> None:
    """A subnet's squared errors are over its batch's word pieces, or over the padding too."""
    model, (_, inputs) = supernet(), batch_and_classes(rows(12, 0))
    asked = {"lambda1": 0.0, "lambda2": 1.0, "fidelity": fidelity.value, "depths": ALL.depths}
    teaching = replace(ALL, teacher=model, answers=0.0, states=1.0, fidelity=fidelity)
    with torch.no_grad():
        found = sum(map(float, joint_losses(model, inputs, teaching)))
        assert found == pytest.approx(followed_by_hand(model, rows(12, 0), asked), rel=1e-5)


def scored_by_hand(model: EfficientBertForSequenceClassification, some: Rows, fidelity: str) -> Importance:
    """Importance on all of some rows, 64 at a time."""
    batches = [batch_and_classes(chunk) for chunk in (some[:64], some[64:])]
    return importance(model, [(batch, inputs["labels"]) for batch, inputs in batches], fidelity=Fidelity(fidelity))


@pytest.mark.parametrize("fidelity", Fidelity)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_rewiring_reads_the_chosen_rows(tmp_path: Path, split: str, fidelity: Fidelity) -> None:
    """The order is that of importance on the rows of the split that is named, in the arithmetic that is named."""
    options = {"importance_split": split, "fidelity": fidelity.value}
    run_ = given(tmp_path, REWIRE, train=rows(80, 0), heldout=rows(80, 1), options=options)
    orders = {}
    for name, arithmetic in itertools.product(("train", "heldout"), Fidelity):
        expected = deepcopy(run_.model)
        rewire(expected, scored_by_hand(expected, run_.train if name == "train" else run_.heldout, arithmetic))
        orders[name, arithmetic] = expected.state_dict()
    found = REWIRE.train(run_).model.state_dict()
    same = [asked for asked, order in orders.items() if all(torch.equal(order[name], found[name]) for name in found)]
    assert same == [(split, fidelity)]


def test_grafts_read_the_chosen_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units are weak by importance on the split that is named, in the arithmetic that is named, at that step."""
    options = {"importance_split": "heldout", "fidelity": "released", "grafts": 1, "epochs": 2, "batch_size": 40}
    run_ = given(tmp_path, WIDTH, train=rows(80, 0), heldout=rows(80, 1), options=options)
    seen: list[Importance] = []

    def watched(model: EfficientBertForSequenceClassification, scores: Importance, *, alpha: float) -> None:
        expected = scored_by_hand(model, run_.heldout, "released")
        torch.testing.assert_close(scores.heads, expected.heads)
        torch.testing.assert_close(scores.neurons, expected.neurons)
        seen.append(scores)
        grafting.graft(model, scores, alpha=alpha)

    monkeypatch.setattr(stages, "graft", watched)
    WIDTH.train(run_)
    assert len(seen) == 1


@pytest.mark.parametrize("stage", [WIDTH, DEPTH, FINAL], ids=lambda stage: stage.name)
def test_the_epoch_of_the_best_mean_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    """Not the one whose full model scores best, which is the last here."""
    means, scores = iter([0.1, 0.9, 0.5]), itertools.count()
    kept: list[dict[str, Tensor]] = []

    def mean(model: EfficientBertForSequenceClassification, context: Context, teaching: Teaching) -> float:
        assert teaching.widths == ALL.widths
        assert teaching.depths == ((1.0,) if stage is WIDTH else ALL.depths)
        kept.append(states(model))
        return next(means)

    monkeypatch.setattr(stages, "mean_score", mean)
    run_ = given(tmp_path, stage, train=rows(16, 0), score=lambda labels, logits: float(next(scores)))
    trained = stage.train(run_)
    assert list(trained.scores) == sorted(trained.scores)
    assert len(kept) == 3
    assert all(torch.equal(value, kept[1][name]) for name, value in trained.model.state_dict().items())


def counted(model: EfficientBertForSequenceClassification) -> list[int]:
    """The layers that are run from now on, one after the other."""
    seen: list[int] = []
    for place, layer in enumerate(model.bert.encoder.layers):
        layer.register_forward_hook(lambda module, inputs, output, place=place: seen.append(place))
    return seen


@pytest.mark.parametrize(("rule", "calls"), [("prefix", 4 * 12), ("floor", 4 * (12 + 9 + 6))])
def test_prefixes_share_their_pass(rule: str, calls: int) -> None:
    """Four widths run each of twelve layers once, by another rule every subnet its own; a teacher answers once."""
    model = tiny_model("four_heads", classes=2, num_hidden_layers=12, num_gates=0, exit_depths=[], contribution_size=0)
    teacher = deepcopy(model)
    _, inputs = batch_and_classes(rows(4, 0))
    runs, followed = counted(model), counted(teacher)
    list(joint_losses(model, inputs, replace(ALL, rule=DepthRule(rule), teacher=teacher)))
    assert len(runs) == calls
    assert followed == list(range(12))


def fixed_gates() -> EfficientBertForSequenceClassification:
    """Two gates that give the widths these probabilities, whatever they read."""
    model = with_gates(supernet(), 2)
    with torch.no_grad():
        for gate, probabilities in zip(model.width_gates(), ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]), strict=True):
            gate.get_parameter("choose.weight").zero_()
            gate.get_parameter("choose.bias").copy_(torch.tensor(probabilities).log())
    return model


NAMED = {"states": torch.ones(3, 2, 48), "gate_labels": torch.tensor([0, 1, 3])}
UNBOUND = {"flops_lambda": 0.0, "flops_target": 0.5}
ONES = torch.ones(4)


def test_classes_weigh_by_hand() -> None:
    """Labels .25, .5 and 1 have probabilities .1 .4, .2 .3 and .4 .1; their weights are 2, 5 and .5, of six answers."""
    with torch.no_grad():
        loss = gate_loss(fixed_gates(), NAMED, weights=torch.tensor([2.0, 5.0, 100.0, 0.5]), options=UNBOUND)
    # -ln .04 = 3.2188758, -ln .06 = 2.8134107
    assert loss.item() == pytest.approx((2 * 3.2188758 + 5 * 2.8134107 + 0.5 * 3.2188758) / 6)


@pytest.mark.parametrize(("strength", "target"), [(4.0, 0.5), (4.0, 0.75), (10.0, 0.625)])
@pytest.mark.parametrize("heat", [None, 0.7])
def test_the_width_has_a_target_by_hand(strength: float, target: float, heat: float | None) -> None:
    """The gates' expected widths are .75 and .5: the square of .625's distance counts, with noise and without."""
    losses = []
    for options in ({"flops_lambda": strength, "flops_target": target}, UNBOUND):
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append(gate_loss(fixed_gates(), NAMED, weights=ONES, options=options, heat=heat).item())
    assert losses[0] - losses[1] == pytest.approx(strength * (0.625 - target) ** 2, abs=1e-6)


@pytest.mark.parametrize("heat", [1.0, 0.6])
def test_noise_is_torchs(heat: float) -> None:
    """With a temperature the classes' losses are those of PyTorch's own Gumbel softmax with the same draws."""
    model = fixed_gates()
    with torch.no_grad():
        logits = model.width_gates().all_logits(NAMED["states"])
        torch.manual_seed(5)
        loss = gate_loss(model, NAMED, weights=ONES, options=UNBOUND, heat=heat)
        torch.manual_seed(5)
        soft = F.gumbel_softmax(logits, tau=heat)
    expected = [-float(soft[row, gate, label].log()) for row, label in enumerate((0, 1, 3)) for gate in (0, 1)]
    assert loss.item() == pytest.approx(sum(expected) / 6, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"class_weights": "none"},
        {"class_weights": "0.5,3,7,2"},
        {"class_weights": "none", "flops_lambda": 50.0, "flops_target": 0.25},
    ],
)
def test_the_first_step_of_gates_by_hand(tmp_path: Path, options: dict[str, Any]) -> None:
    """Without noise it is torch's cross-entropy, weighted, over gates and rows, and the width's distance squared."""
    run_ = given(tmp_path, GATES, options={**ONE_STEP, **options})
    torch.manual_seed(run_.seed)
    model = with_gates(run_.model, 0)
    labels = labels_of(model, run_.train)
    named = [{**row, "gate_label": label} for row, label in zip(run_.train, labels, strict=True)]
    with torch.no_grad():
        logits = model.width_gates().all_logits(states_of(model, named))
        weights = [1.0] * 4 if options["class_weights"] == "none" else [0.5, 3.0, 7.0, 2.0]
        every = F.cross_entropy(
            logits.flatten(0, 1), labels.repeat_interleave(4), weight=torch.tensor(weights), reduction="none"
        )
        width = (logits.softmax(-1) * torch.tensor(WIDTHS)).sum(-1).mean()
    assert len(labels.unique()) > 2
    off_target = float(width) - options.get("flops_target", 0.0)
    expected = float(every.mean()) + options.get("flops_lambda", 0.0) * off_target**2
    assert first_loss(GATES, run_) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["gumbel", "plain"])
def test_noise_cools_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    """Over nine steps from 1 as 0.3 to the power of what is done, not below 0.5; none where none is wanted."""
    heats: dict[bool, list[float | None]] = {True: [], False: []}

    def watched(*given: Any, heat: float | None = None, **named: Any) -> Tensor:
        heats[torch.is_grad_enabled()].append(heat)
        return gate_loss(*given, heat=heat, **named)

    monkeypatch.setattr(gating, "gate_loss", watched)
    # a quarter of 32 rows is held back: 24 in batches of 8, three times
    GATES.train(given(tmp_path, GATES, heldout=rows(32, 1), options={"loss": loss}))
    cooling = [1.0, 0.874788, 0.765255, 0.669436, 0.585615, 0.512289, 0.5, 0.5, 0.5]
    assert heats[True] == (pytest.approx(cooling, abs=1e-5) if loss == "gumbel" else [None] * 9)
    assert heats[False] == [None] * 3  # epochs are compared without


def test_the_gates_of_the_least_unseen_loss_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those whose answers score best, which are the last here; rows that train them do not count."""
    run_ = given(tmp_path, GATES)
    losses, scores = iter([2.0, 1.0, 3.0]), itertools.count()
    kept: list[dict[str, Tensor]] = []
    unseen, _ = batch_and_classes(folds(run_)[1])

    def scripted(model: EfficientBertForSequenceClassification, inputs: dict[str, Tensor], **named: Any) -> Tensor:
        if torch.is_grad_enabled():
            return gate_loss(model, inputs, **named)
        assert torch.equal(inputs["input_ids"], unseen.input_ids)
        kept.append(states(model))
        return torch.tensor(next(losses))

    monkeypatch.setattr(gating, "gate_loss", scripted)
    trained = GATES.train(replace(run_, score=lambda labels, logits: float(next(scores))))
    assert list(trained.scores) == sorted(trained.scores)
    assert len(kept) == 3
    assert not torch.equal(kept[1]["gates.0.choose.weight"], kept[2]["gates.0.choose.weight"])
    assert all(torch.equal(value, kept[1][name]) for name, value in trained.model.state_dict().items())


@pytest.mark.parametrize("threshold", [0.7, 1.5])
def test_a_score_is_right_within_the_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    """A row's label is the smallest width whose score is less than the option's threshold off."""
    model = supernet(num_labels=1)
    scores = [{**row, "label": 0.25 * place} for place, row in enumerate(rows(12, 0))]
    seen: dict[float, int] = {}

    def watched(model: EfficientBertForSequenceClassification, inputs: dict[str, Tensor], **named: Any) -> Tensor:
        seen.update(zip(inputs["labels"].tolist(), inputs["gate_labels"].tolist(), strict=True))
        return gate_loss(model, inputs, **named)

    monkeypatch.setattr(gating, "gate_loss", watched)
    GATES.train(
        given(
            tmp_path, GATES, model=model, train=scores, heldout=scores, score=lambda labels, logits: 0.5,
            options={**ONE_STEP, "regression_threshold": threshold},
        )
    )  # fmt: skip
    batch, _ = batch_and_classes(scores)
    with torch.no_grad():
        answers = [
            run(model, batch, subnet_policy(uniform_subnet(model.config, width=width))).logits for width in WIDTHS[:3]
        ]
    expected: dict[float, list[int]] = {}
    for bound in (threshold, 0.5):
        near = [[abs(float(answer[row, 0]) - 0.25 * row) < bound for answer in answers] for row in range(12)]
        expected[bound] = [right.index(True) if True in right else 3 for right in near]
    assert [seen[0.25 * row] for row in range(12)] == expected[threshold]
    assert expected[threshold] != expected[0.5]
