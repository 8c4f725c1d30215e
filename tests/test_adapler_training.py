"""AdapLeR's stage: saliency once, thresholds that learn apart, a sharper removal every epoch, resume, selection."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from efficient_bert import Batch, run
from efficient_bert.contribution import contribution_policy
from efficient_bert.cost import full_flops, trace_flops
from efficient_bert.decisions import Policy
from efficient_bert.explain import gradient_times_input
from efficient_bert.training import Context, Trained
from efficient_bert.training import adapler as stage
from efficient_bert.training.adapler import ADAPLER, judged, saliency_of, sharpness, with_contribution, with_saliency
from efficient_bert.training.batches import collate
from efficient_bert.training.recipe import Recipe, parameter_groups
from tests.test_training_loop import KilledError, context, killing
from tests.tiny import tiny_model

OPTIONS = {"epochs": 3, "learning_rate": 1e-2, "threshold_rate": 0.3, "phi": 0.5, "gamma": 2.0, "contribution_size": 6}


def trained(folder: Path, **changes: object) -> Trained:
    """A small run of the stage."""
    return ADAPLER.train(context(folder, stage=ADAPLER, options=OPTIONS, **changes))


def test_the_stage_learns_to_drop(tmp_path: Path) -> None:
    """Thresholds leave their start, stay in bounds, and tokens are dropped; the fine-tuned model stays as it was."""
    given = context(tmp_path, stage=ADAPLER, options=OPTIONS, score=lambda labels, logits: 0.9)
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    model = ADAPLER.train(given).model
    assert not model.training
    contribution = model.contributions()
    assert model.config.contribution_size == 6
    assert (contribution.eta > 0.26).all()
    assert (contribution.eta <= 1).all()
    assert (contribution.theta != 1).any()
    for name, value in given.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    rows = [{**row, "label": 0} for row in given.heldout]
    batch = Batch.of(collate(rows, pad_token_id=0))
    with torch.inference_mode():
        trace = run(model, batch, contribution_policy(contribution)).trace
    assert (trace.tokens[:, -1] < trace.length).any()


def test_saliency_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage killed in training finds its saliency again."""
    with pytest.raises(KilledError):
        trained(tmp_path, watch=killing(3))

    def never(model: object, rows: object) -> Tensor:
        raise AssertionError("saliency was computed again")

    monkeypatch.setattr(stage, "saliency_of", never)
    assert len(trained(tmp_path).scores) == 3


def test_saliency_is_each_rows_own(tmp_path: Path) -> None:
    """Computed 64 rows at a time, a row's map is what it is alone, and zero behind its end."""
    given = context(tmp_path, stage=ADAPLER)
    rows = [*given.train, *given.train]
    found = saliency_of(given.model, rows)
    assert found.shape == (80, max(len(row["input_ids"]) for row in rows))
    for row, values in list(zip(rows, found, strict=True))[60:70]:
        alone = collate([row], pad_token_id=0)
        expected = gradient_times_input(given.model, Batch.of(alone), alone["labels"])[0]
        torch.testing.assert_close(values[: len(expected)], expected, atol=1e-5, rtol=1e-4)
        assert not values[len(expected) :].any()
    batch = with_saliency(
        [{**row, "saliency": values} for row, values in zip(rows[:3], found, strict=False)], pad_token_id=0
    )
    assert batch["saliency"].shape == batch["input_ids"].shape
    assert "saliency" not in with_saliency(rows[:3], pad_token_id=0)


@pytest.mark.parametrize(
    ("epochs", "by_hand"),
    [
        (5, [10, 100, 1000, 10_000, 100_000]),
        (3, [50, 2500, 125_000]),
        (10, [10, 30, 90, 270, 810, 2430, 7290, 21_870, 65_610, 196_830]),
        (1, [10]),
    ],
)
def test_removal_grows_sharper(epochs: int, by_hand: list[float]) -> None:
    """The released schedules for 3, 5 and 10 epochs."""
    assert [sharpness(epoch, epochs) for epoch in range(epochs)] == pytest.approx(by_hand)


def test_thresholds_have_their_own_rate(tmp_path: Path) -> None:
    """eta and theta are in groups of their own, without decay, and every parameter is in one group."""
    model = with_contribution(context(tmp_path, stage=ADAPLER).model, 6)
    rates = {"contribution.eta": 0.5, "contribution.theta": 0.25}
    groups = parameter_groups(model, 0.01, rates)
    assert [group.get("lr") for group in groups] == [None, None, 0.5, 0.25]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.0, 0.0]
    places = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(places) == sorted(id(parameter) for parameter in model.parameters())
    assert groups[2]["params"][0] is model.contributions().eta


def test_epochs_are_ranked_by_speed_within_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losing less than a point ranks by speed-up; below that every epoch ranks behind, by its score; NaN last."""
    given = context(tmp_path, stage=ADAPLER, options=OPTIONS)
    recipes: list[Recipe] = []

    def judged_by_hand(model: object, context: Context, policy: Policy) -> tuple[float, float]:
        return (0.9, 1.0) if policy == Policy() else (0.9, 1.5)

    def note(context: Context, recipe: Recipe) -> Trained:
        recipes.append(recipe)
        return Trained(context.model, ())

    monkeypatch.setattr(stage, "judged", judged_by_hand)
    monkeypatch.setattr(stage, "train", note)
    model = ADAPLER.train(given).model
    assert [recipes[0].rank(model, score) for score in (0.95, 0.891, 0.889, 0.5)] == [1.5, 1.5, 0.889 - 10, 0.5 - 10]
    assert math.isnan(recipes[0].rank(model, math.nan))


def test_judging_is_a_ratio_of_sums(tmp_path: Path) -> None:
    """Without a policy the speed-up is 1; with one it is the ratio of the summed FLOPs, and the score is the task's."""
    given = context(tmp_path, stage=ADAPLER)
    model = tiny_model("four_heads", classes=2)
    assert judged(model, given, Policy())[1] == 1.0
    score, speedup = judged(model, given, contribution_policy(model.contributions()))
    batch = Batch.of(collate(given.heldout, pad_token_id=0))
    with torch.inference_mode():
        output = run(model, batch, contribution_policy(model.contributions()))
    spent = trace_flops(output.trace, model.config).sum() / full_flops(output.trace.length, model.config).sum()
    assert speedup == pytest.approx(1 / float(spent))
    labels = torch.tensor([row["label"] for row in given.heldout])
    assert score == given.score(labels, output.logits)
