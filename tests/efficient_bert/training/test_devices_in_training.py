"""On a GPU that is not there: every stage trains on the one device, and its losses are the CPU's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.registry import STAGES
from efficient_bert import EfficientBertForSequenceClassification
from efficient_bert.training import Context, Stage, Status
from efficient_bert.training.finetune import classification_loss, classify
from efficient_bert.training.loop import Trainer, train
from efficient_bert.training.recipe import one_loss
from tests.efficient_bert.training.test_training_loop import context, rows
from tests.support.accelerator import CUDA, MixedDevicesError, accelerator
from tests.support.tiny import tiny_model

LAST = [name for name, stage in STAGES.items() if all(other.after is not stage for other in STAGES.values())]
"""Stages that no other one follows: with those before them, all."""

SMALL: dict[str, dict[str, Any]] = {"width": {"list": "0.5,1", "grafts": 1}, "depth": {"list": "0.5,1"}}
OTHERS: dict[str, dict[str, Any]] = {
    "finetune": {"rdrop": 0.1, "adversarial": 0.1, "ema": 0.9, "keep_epochs": 1},
    "truncate": {"rdrop": 0.1, "adversarial": 0.1, "ema": 0.9},
    "adapler": {"fidelity": "released", "distill": 0.5, "start": "backbone", "predictor_rate": 1e-3},
    "rewire": {"fidelity": "released", "importance_split": "heldout"},
    "width": {**SMALL["width"], "fidelity": "released", "distill": "no"},
    "depth": {**SMALL["depth"], "fidelity": "released", "teacher": "same"},
    "gates": {"label_split": "train", "loss": "plain", "class_weights": "none", "flops_lambda": 1.0},
}
"""Options whose arithmetic is another one than at the defaults."""


def backbone() -> EfficientBertForSequenceClassification:
    """A tiny model without dropout, which a CPU draws otherwise than a GPU, and without any adaptive part."""
    still: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny_model("four_heads", classes=2, exit_depths=[], contribution_size=0, num_gates=0, **still)


def given(stage: Stage, folder: Path, *, device: str, options: Mapping[str, Any]) -> Context:
    """What a first stage is given: two epochs of two steps."""
    return context(
        folder,
        stage=stage,
        options={"epochs": 2, "batch_size": 6, "learning_rate": 1e-4, **options},
        model=backbone(),
        fresh=backbone,
        train=rows(12, 0),
        heldout=rows(8, 1),
        device=device,
    )


def train_chain(
    stages: tuple[Stage, ...], folder: Path, *, device: str, options: Mapping[str, Mapping[str, Any]]
) -> tuple[list[float], EfficientBertForSequenceClassification]:
    """The losses of every step of the stages, one after the other, and the last one's model."""
    seen: list[Status] = []
    model, before = backbone(), None
    for stage in stages:
        some = given(stage, folder / stage.name, device=device, options=options.get(stage.name, {}))
        trained = stage.train(replace(some, model=model, before=before, watch=seen.append))
        model, before = trained.model, some.folder
        for name, path in trained.beside.items():
            (before / name).parent.mkdir(exist_ok=True)
            (before / name).write_bytes(path.read_bytes())
    return [status.loss for status in seen if not math.isnan(status.loss)], model


@pytest.mark.parametrize("options", [SMALL, OTHERS], ids=["defaults", "others"])
@pytest.mark.parametrize("name", LAST)
def test_every_stage_trains_on_the_gpu(
    name: str, options: Mapping[str, Mapping[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is taken there, with the CPU's loss, and the model comes back to the CPU with finite parameters."""
    devices: set[torch.device] = set()
    step = Trainer.step

    def watched(trainer: Trainer, batch: Mapping[str, Tensor], share: float) -> float:
        devices.update(parameter.device for parameter in trainer.model.parameters())
        return step(trainer, batch, share)

    here, _ = train_chain(STAGES[name].chain, tmp_path / "cpu", device="cpu", options=options)
    monkeypatch.setattr(Trainer, "step", watched)
    with accelerator():
        there, model = train_chain(STAGES[name].chain, tmp_path / "cuda", device="cuda", options=options)
    assert devices == {CUDA}
    assert len(there) >= 4
    # a student begins as its teacher: its first gradient is rounding, which AdamW makes steps of full size of
    assert there == pytest.approx(here, rel=5e-3)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_a_loss_that_mixes_devices_is_caught(tmp_path: Path) -> None:
    """Weights of the classes that were left on the CPU raise in the first step."""
    weights = torch.ones(6)

    def mixing(model: EfficientBertForSequenceClassification, inputs: Mapping[str, Tensor]) -> Tensor:
        return (classification_loss(model, inputs) * weights[: len(inputs["labels"])]).mean()

    train(given(STAGES["finetune"], tmp_path / "cpu", device="cpu", options={}), one_loss(mixing, classify))
    with accelerator(), pytest.raises(MixedDevicesError):
        train(given(STAGES["finetune"], tmp_path / "cuda", device="cuda", options={}), one_loss(mixing, classify))


def test_a_run_resumes_on_the_gpu(tmp_path: Path) -> None:
    """What a killed run on the GPU left is taken up there, and its steps are those of a run that was not killed."""
    losses: dict[str, list[float]] = {}
    with accelerator():
        for name in ("whole", "killed"):
            seen: list[Status] = []

            def watch(status: Status, *, name: str = name, seen: list[Status] = seen) -> None:
                seen.append(status)
                if name == "killed" and status.step == 2 and len(seen) == 3:
                    raise KeyboardInterrupt

            some = given(STAGES["finetune"], tmp_path / name, device="cuda", options={"keep_epochs": 1})
            if name == "killed":
                with pytest.raises(KeyboardInterrupt):
                    STAGES["finetune"].train(replace(some, watch=watch))
            STAGES["finetune"].train(replace(some, model=backbone(), watch=watch))
            losses[name] = [status.loss for status in seen if not math.isnan(status.loss)]
    assert losses["killed"] == pytest.approx(losses["whole"], rel=1e-5)
