"""The training loop: resume to the bit, selection, frozen trunks, dropout, and errors that teach."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.choosing import holds_up
from efficient_bert import (
    Batch,
    EfficientBertConfig,
    EfficientBertForSequenceClassification,
    Execution,
    InputError,
    run,
)
from efficient_bert.training import Context, Stage, Status, Trained
from efficient_bert.training import loop as training_loop
from efficient_bert.training.batches import batch_of, collate
from efficient_bert.training.cached_rows import with_cached
from efficient_bert.training.exits import EXITS, exit_states, with_exits
from efficient_bert.training.finetune import FINETUNE, TRUNCATE, classification_loss, classify
from efficient_bert.training.loop import native_precision, train
from efficient_bert.training.recipe import one_loss, parameter_groups, set_training_mode
from tests.support.tiny import VOCABULARY, tiny_model

EPOCHS = 3
STEPS = 5
"""Optimiser steps of an epoch: 40 rows in batches of 8."""

KILLS = [2, STEPS, STEPS + 3, 2 * STEPS + 1, EPOCHS * STEPS]
"""Steps to be killed at: within epochs, at their ends, at the very end."""


class KilledError(Exception):
    """Stands for the end of the process."""


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Random sequences of 2 to 9 tokens; the label is whether the second token's id is large."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for place in range(count):
        length = int(torch.randint(2, 10, (), generator=generator))
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        label = int(ids[1] > VOCABULARY // 2)
        found.append({"example_id": f"train-{place}", "input_ids": ids, "token_type_ids": [0] * length, "label": label})
    return found


def accuracy(labels: Tensor, logits: Tensor) -> float:
    """The fraction of right answers."""
    return float((logits.argmax(-1) == labels).float().mean())


def context(folder: Path, *, stage: Stage = FINETUNE, **changes: Any) -> Context:
    """A small training run with dropout, in float32 on the CPU."""
    options = {knob.name: knob.default for knob in (*stage.options, *stage.knobs)}
    options |= {"epochs": EPOCHS, "batch_size": 8, "learning_rate": 1e-3, "precision": "no"}
    options |= changes.pop("options", {})
    fields: dict[str, Any] = {
        "model": tiny_model("four_heads", classes=2, exit_depths=[]),
        "train": rows(40, 0),
        "heldout": rows(20, 1),
        "score": accuracy,
        "holds_up": holds_up,
        "options": options,
        "seed": 3,
        "device": "cpu",
        "folder": folder,
    }
    fields["fresh"] = lambda: tiny_model("four_heads", classes=2, exit_depths=[])
    return Context(**{**fields, **changes})


def killing(step: int) -> Callable[[Status], None]:
    """A watcher that ends the run after so many steps; the checkpoint before it is already written."""
    seen: list[int] = []

    def watch(status: Status) -> None:
        seen.append(status.step)
        if len(seen) > 1 and status.step >= step:
            raise KilledError

    return watch


def assert_same_parameters(one: nn.Module, other: nn.Module) -> None:
    """Bit for bit."""
    mine, others = one.state_dict(), other.state_dict()
    assert list(mine) == list(others)
    for name, value in mine.items():
        assert torch.equal(value, others[name]), name


@pytest.mark.parametrize("stage", [FINETUNE, EXITS, TRUNCATE], ids=lambda stage: stage.name)
@pytest.mark.parametrize("step", KILLS)
def test_a_killed_run_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage, step: int
) -> None:
    """Killed anywhere in an epoch and started again, a run has the same parameters and scores to the bit."""
    assert_resumes(stage, step, tmp_path, monkeypatch)


@pytest.mark.parametrize("step", KILLS)
def test_a_running_mean_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The mean is part of a checkpoint."""
    assert_resumes(FINETUNE, step, tmp_path, monkeypatch, options={"ema": 0.9})


def assert_resumes(stage: Stage, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """A stage killed at a step and started again ends as one that was not, and computes no more than it must."""
    whole = stage.train(context(tmp_path / "whole", stage=stage, **changes))
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(KilledError):
        stage.train(context(tmp_path / "killed", stage=stage, watch=killing(step), **changes))
    steps: list[int] = []
    again = context(tmp_path / "killed", stage=stage, watch=lambda status: steps.append(status.step), **changes)
    resumed = stage.train(again)
    assert_same_parameters(whole.model, resumed.model)
    assert whole.scores == resumed.scores
    assert whole.history == resumed.history
    assert len(resumed.scores) == EPOCHS
    assert min(steps) >= step - 1
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


def assert_says_what_it_changes(run_: Context, stage: Stage) -> None:
    """A stage leaves the configuration that it told of before, but for what it measures."""
    measured = ("length_profile", "gate_profile", "exit_profile", "staying_profile")
    before = run_.model.config
    told = EfficientBertConfig.from_bert(before, **stage.changes(before, run_.options))
    left = stage.train(run_).model.config
    one, other = (
        {name: value for name, value in config.to_dict().items() if name not in measured} for config in (left, told)
    )
    assert one == other


@pytest.mark.parametrize("stage", [FINETUNE, TRUNCATE, EXITS], ids=lambda stage: stage.name)
def test_a_stage_says_what_it_changes(tmp_path: Path, stage: Stage) -> None:
    """What is planned with is the configuration that training leaves."""
    assert_says_what_it_changes(context(tmp_path, stage=stage, options={"epochs": 1}), stage)


def test_the_same_seed_trains_the_same_model(tmp_path: Path) -> None:
    """Seed for seed the parameters are equal to the bit, and another seed gives others."""
    models = [FINETUNE.train(context(tmp_path / str(turn), seed=seed)).model for turn, seed in enumerate((3, 3, 4))]
    assert_same_parameters(models[0], models[1])
    assert not torch.equal(models[0].classifier.weight, models[2].classifier.weight)


def test_training_learns(tmp_path: Path) -> None:
    """A rule on one token is learnt from 400 rows: better than the larger class on rows never trained on."""
    trained = FINETUNE.train(
        context(tmp_path, train=rows(400, 5), heldout=rows(200, 6), options={"epochs": 8, "learning_rate": 3e-3})
    )
    labels = [row["label"] for row in rows(200, 6)]
    assert max(trained.scores) > max(labels.count(0), labels.count(1)) / 200 + 0.1
    assert not trained.model.training


def test_the_running_mean_is_scored_and_kept(tmp_path: Path) -> None:
    """m <- d m + (1 - d) w after every step, d = min(ema, (1 + t) / (10 + t)), from the first step's parameters."""
    steps: list[dict[str, Tensor]] = []
    script, scored = iter([0.5, 0.9, 0.7]), []

    def score(labels: Tensor, logits: Tensor) -> float:
        scored.append(logits)
        return next(script)

    given = context(tmp_path, score=score, options={"ema": 0.3})

    def watch(status: Status) -> None:
        if status.score is None:
            steps.append({name: value.clone() for name, value in given.model.state_dict().items()})

    trained = FINETUNE.train(replace(given, watch=watch))
    assert len(steps) % EPOCHS == 0
    for name, value in trained.model.state_dict().items():
        mean = steps[0][name]
        for taken, step in enumerate(steps[1 : len(steps) // EPOCHS * 2], start=1):
            decay = min(0.3, (1 + taken) / (10 + taken))
            mean = decay * mean + (1 - decay) * step[name]
        torch.testing.assert_close(value, mean)
    heldout = batch_of(trained.model, collate(given.heldout, pad_token_id=trained.model.config.padding))
    with torch.no_grad():
        torch.testing.assert_close(scored[1], run(trained.model, heldout).logits)


def scripted(scores: list[float]) -> Callable[[Tensor, Tensor], float]:
    """A score that follows a script."""
    remaining = iter(scores)
    return lambda labels, logits: next(remaining)


@pytest.mark.parametrize(("scores", "best"), [
    ([0.5, 0.9, 0.7], 2), ([0.9, 0.9, 0.1], 1), ([0.1, 0.2, 0.3], 3), ([math.nan, math.nan, math.nan], 1),
    ([math.nan, 0.2, 0.1], 2),
])  # fmt: skip
def test_the_best_epoch_is_kept(tmp_path: Path, scores: list[float], best: int) -> None:
    """The model returned is the one after the (first) best epoch; an undefined score is worse than any other."""
    states: list[dict[str, Tensor]] = []
    given = context(tmp_path, score=scripted(scores))

    def watch(status: Status) -> None:
        if status.score is not None:
            states.append({name: value.clone() for name, value in given.model.state_dict().items()})

    trained = FINETUNE.train(replace(given, watch=watch))
    assert all(torch.equal(value, states[best - 1][name]) for name, value in trained.model.state_dict().items())
    assert [f"{score}" for score in trained.scores] == [f"{score}" for score in scores]


def test_the_exits_stage_leaves_the_trunk_alone(tmp_path: Path) -> None:
    """Exit heads learn; every other parameter is as it was, to the bit."""
    model = tiny_model("twelve_heads", classes=2, exit_depths=[])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    started = with_exits(model).state_dict()
    trained = EXITS.train(context(tmp_path, stage=EXITS, model=model)).model
    assert trained.config.exit_depths == [1, 2, 3]
    for name, value in trained.state_dict().items():
        if name.startswith("exits."):
            assert not torch.equal(value, started[name]), name
        else:
            assert torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in trained.parameters())


def test_new_exits_answer_as_the_final_head() -> None:
    """Before training, each exit head is a copy of the final one."""
    model = tiny_model("twelve_heads", classes=2, exit_depths=[])
    grown = with_exits(model)
    states = torch.randn(3, 48)
    for depth in (1, 2, 3):
        torch.testing.assert_close(grown.eval().classify(states, depth=depth), model.classify(states))


def test_truncating_keeps_the_first_layers(tmp_path: Path) -> None:
    """Half the depth of four layers is a model of the first two: its states are the whole model's states there."""
    given = context(
        tmp_path,
        stage=TRUNCATE,
        model=tiny_model("twelve_heads", classes=2),
        options={"learning_rate": 1e-8, "epochs": 1},
    )
    trained = TRUNCATE.train(given).model
    assert trained.config.num_hidden_layers == 2
    assert trained.config.exit_depths == []
    ids = torch.tensor([[3, 4, 5]])
    mine, whole = (model.eval()(ids, output_hidden_states=True) for model in (trained, given.model))
    torch.testing.assert_close(mine.hidden_states[2], whole.hidden_states[2], atol=1e-4, rtol=0)


def test_a_depth_of_no_layers_is_refused(tmp_path: Path) -> None:
    """A fraction that keeps no layer is told the least that keeps one."""
    given = context(tmp_path, stage=TRUNCATE, options={"depth_mult": 0.1})
    with pytest.raises(InputError, match=r"leaves none of 2 layers; give 0\.50 or more"):
        TRUNCATE.train(given)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_in_one_line(tmp_path: Path, value: float) -> None:
    """The message says the loss, the step and what to change, and no checkpoint holds what came of it."""

    def broken(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
        return classification_loss(model, batch) * value

    with pytest.raises(InputError, match=rf"the loss is {value} at step 0; lower the learning rate") as caught:
        train(context(tmp_path), one_loss(broken, classify))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_dropout_is_on_where_something_learns() -> None:
    """Training mode drops out everywhere in a learning model and nowhere in a frozen trunk."""
    model = tiny_model(classes=2)
    set_training_mode(model)
    assert all(module.training for module in model.modules())
    ids = torch.arange(1, 9)[None]
    assert not torch.equal(model(ids).logits, model(ids).logits)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("exits.")
    set_training_mode(model)
    states = [model(ids, output_hidden_states=True).hidden_states[-1] for _ in range(2)]
    assert torch.equal(*states)
    assert not any(module.training for module in model.bert.modules())
    assert all(module.training for module in model.exits.modules())
    assert model.dropout.training


def test_hidden_dropout_acts_with_its_probability() -> None:
    """With attention dropout off, a hidden dropout of one half zeroes about half of the embedded values."""
    model = tiny_model(classes=2, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0)
    set_training_mode(model)
    embed = model.bert.embeddings
    ids = torch.randint(1, VOCABULARY, (20, 50), generator=torch.Generator().manual_seed(0))
    embedded = embed(ids, torch.arange(50).expand(20, -1), torch.zeros_like(ids))
    # 48,000 draws: one half within five standard errors
    assert abs(float((embedded == 0).float().mean()) - 0.5) < 5 * 0.5 / math.sqrt(embedded.numel())


def test_only_matrices_decay() -> None:
    """Weight decay is on matrices, not on biases and layer norms, and frozen parameters are in no group."""
    model = tiny_model(classes=2)
    model.bert.requires_grad_(False)
    groups = parameter_groups(model, 0.01)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [{parameter.ndim for parameter in group["params"]} for group in groups] == [{2}, {1}]
    count = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert count == sum(value.numel() for name, value in model.named_parameters() if not name.startswith("bert."))


def test_progress_is_told_step_by_step(tmp_path: Path) -> None:
    """The watcher sees every step, the total, and a score at the end of each epoch."""
    told: list[Status] = []
    trained: Trained = FINETUNE.train(context(tmp_path, watch=told.append))
    losses = [status for status in told if status.score is None]
    assert [status.step for status in losses] == list(range(1, EPOCHS * STEPS + 1))
    assert {status.steps for status in told} == {EPOCHS * STEPS}
    assert all(status.loss > 0 and status.examples_per_second > 0 for status in losses)
    assert tuple(status.score for status in told if status.score is not None) == trained.scores


def test_gradients_set_apart_are_clipped_apart(tmp_path: Path) -> None:
    """Both the parameters set apart and all others have the norm they may have, however large each was."""
    norms: list[tuple[float, float]] = []
    apart = ("classifier.weight", "classifier.bias")

    def note(model: EfficientBertForSequenceClassification) -> None:
        own: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                own[name in apart].append(parameter.grad.flatten())
        norms.append((float(torch.cat(own[True]).norm()), float(torch.cat(own[False]).norm())))

    recipe = one_loss(lambda model, batch: 1000 * classification_loss(model, batch), classify)
    given = context(tmp_path, options={"epochs": 1, "max_grad_norm": 0.5})
    train(given, replace(recipe, norm_group=apart, after_step=note))
    assert [norm for pair in norms for norm in pair] == pytest.approx([0.5] * 2 * STEPS, rel=1e-4)


def test_the_rate_rises_and_falls_linearly(tmp_path: Path) -> None:
    """With a warm-up of a fifth of 15 steps the rate is 0, 1/3, 2/3, 1, 11/12, ... of its peak."""
    given = context(tmp_path, options={"warmup": 0.2})
    trainer = training_loop.Trainer(given, one_loss(classification_loss, classify))
    rates = []

    def watch(status: Status) -> None:
        if status.score is None:
            rates.append(trainer.schedule.get_last_lr()[0] / 1e-3)

    trainer.context = replace(given, watch=watch)
    trainer.run()
    # after step n comes the rate of step n + 1
    expected = [1 / 3, 2 / 3, 1.0, *((12 - fallen) / 12 for fallen in range(1, 13))]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, "bf16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "no"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, "no"),
        ({"architecture": "aarch64"}, "no"),
    ],
)
def test_precision_follows_the_processor(
    able: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 where its products are the faster ones: with AMX, or with AVX-512's on other makes than Intel's."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert native_precision("cpu") == expected


def test_stages_of_one_process_may_differ_in_precision(tmp_path: Path) -> None:
    """float32 fine-tuning, then exits in bfloat16: both end with a finite held-out score per epoch."""
    first = FINETUNE.train(context(tmp_path / "finetune"))
    options = {"precision": "bf16"}
    second = EXITS.train(context(tmp_path / "exits", stage=EXITS, model=first.model, options=options))
    assert len(first.scores) == len(second.scores) == EPOCHS
    assert all(math.isfinite(score) for score in (*first.scores, *second.scores))


def test_kept_states_are_each_rows_own(tmp_path: Path) -> None:
    """The [CLS] states that exit heads train on are those of each row run alone, in the rows' order, also from disk."""
    model = with_exits(tiny_model("four_heads", classes=2, exit_depths=[])).eval()
    examples = rows(10, 5)
    for attempt in range(2):  # the second one finds the shards
        for row in with_cached(examples, tmp_path, name="states", compute=partial(exit_states, model)):
            alone = Batch.of({"input_ids": torch.tensor([row["input_ids"]])})
            with torch.no_grad():
                states = run(model, alone, execution=Execution.SOFT, record=True).hidden_states
            expected = torch.stack([states[depth][0, 0] for depth in model.config.exit_depths])
            torch.testing.assert_close(row["states"], expected, msg=f"attempt {attempt}")
