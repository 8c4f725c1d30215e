"""Runners: the trained model of an arm with its policy, on a device, ready to answer examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from bench.plan import Arm, Plan
    from bench.progress import Watcher
    from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification
    from efficient_bert.decisions import Policy
    from efficient_bert.engine import Output


@dataclass(frozen=True)
class Runner:
    """A model with a policy, on a device, and the configuration of the full model it is compared with.

    `released_flops` is the authors' own count, where a method has one.
    """

    model: EfficientBertForSequenceClassification
    policy: Policy
    full_config: EfficientBertConfig
    device: str
    released_flops: (
        Callable[[EfficientBertForSequenceClassification, Output], tuple[torch.Tensor, torch.Tensor]] | None
    ) = None


def load_models(plan: Plan, arms: Sequence[Arm]) -> dict[str, EfficientBertForSequenceClassification]:
    """Load each distinct model of the arms once, onto the device: id of the job -> model."""
    jobs = {arm.job.id: arm.job for arm in arms}
    return {name: move(plan.artifacts.load(job.id), plan.settings.device) for name, job in jobs.items()}


def move(model: EfficientBertForSequenceClassification, device: str) -> EfficientBertForSequenceClassification:
    """Move a model to a device, and return it."""
    module: torch.nn.Module = model  # whose `to` is typed; transformers' is not
    module.to(device)
    return model


def make_runner(plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification]) -> Runner:
    """Return the arm's model with its policy."""
    model = models[arm.job.id]
    policy = arm.method.policy(model, arm.knobs)
    counted = arm.method.published_flops
    released = (lambda model, output: counted(model, output, arm.knobs)) if counted else None
    return Runner(model, policy, plan.config, plan.settings.device, released)


def make_measured_runner(
    plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification], watcher: Watcher
) -> Runner:
    """Do as `make_runner`, after counting how often the method of a control makes each choice, which it follows.

    They are counted on the reported rows, whose labels are not read.
    """
    from efficient_bert.controls import OWN

    if arm.method.measure is not None and OWN in arm.knobs.values():
        rows = plan.data.evaluation.to_list()
        with watcher.counting_bar(f"count the choices that {arm.label} follows", len(rows)) as advance:
            arm.method.measure(models[arm.job.id], rows, arm.knobs)
            advance(len(rows))
    return make_runner(plan, arm, models)
