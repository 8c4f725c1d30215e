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
    from efficient_bert.rows import Rows


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


def make_runner(
    plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification], *, rows: Rows | None = None
) -> Runner:
    """Return the arm's model with its policy.

    Shares that a control follows are counted on `rows`; without rows they are those that training has stored.
    """
    model = models[arm.job.id]
    policy = arm.method.policy(model, arm.method.calibrate(model, rows, arm.knobs))
    counted = arm.method.published_flops
    released = (lambda model, output: counted(model, output, arm.knobs)) if counted else None
    return Runner(model, policy, plan.config, plan.settings.device, released)


def make_measured_runner(
    plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification], watcher: Watcher
) -> Runner:
    """Do as `make_runner`; a control follows choices that are counted on the reported rows, without their labels."""
    from efficient_bert.controls import OWN

    if OWN not in arm.knobs.values():
        return make_runner(plan, arm, models)
    rows = plan.data.evaluation.to_list()
    with watcher.counting_bar(f"take the shares that {arm.label} follows", len(rows)) as advance:
        runner = make_runner(plan, arm, models, rows=rows)
        advance(len(rows))
    return runner
