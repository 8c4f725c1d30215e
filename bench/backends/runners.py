"""Runners: what answers examples on a device, at first the trained model of an arm with its policy in PyTorch."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from bench.data.loading import DATA_SEED

if TYPE_CHECKING:
    import torch

    from bench.planning.plan import Arm, Plan
    from bench.progress import Watcher
    from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification
    from efficient_bert.engine.decisions import Policy
    from efficient_bert.engine.recorder import Output
    from efficient_bert.engine.states import RunBlock
    from efficient_bert.methods import Method
    from efficient_bert.rows import Rows

    Counts = tuple[torch.Tensor, torch.Tensor]
    """FLOPs of what ran and of the full model, (B,) int64 each."""


CALIBRATION = 128
"""Training rows from which an engine learns which values occur."""


class Runner(Protocol):
    """Whatever answers examples: what evaluation, predictions, latency and estimates need of it."""

    @property
    def full_config(self) -> EfficientBertConfig:
        """The configuration of the full model that it is compared with."""
        ...

    @property
    def environment(self) -> Mapping[str, Any]:
        """How it computes, for the record of a run: JSON."""
        ...

    def prepare(self, rows: Rows) -> Any:
        """Turn encoded rows into what one call takes, on the device."""
        ...

    def __call__(self, inputs: Any) -> Any:
        """Answer prepared rows. This call is what is timed: it computes the logits, but no trace."""
        ...

    def output(self, inputs: Any, result: Any) -> Output:
        """Read logits and trace off the result of a call."""
        ...

    def on_one_thread(self) -> Runner | None:
        """Return the same on one thread, callable from several at once; None where it answers batches faster."""
        ...

    def flops(self, output: Output) -> Counts:
        """Count the FLOPs of a pass and of the full model on its examples."""
        ...

    def published_flops(self, output: Output) -> Counts:
        """Count as the authors do, or as `flops` where there is no count of theirs for this pass."""
        ...


def answer(runner: Runner, rows: Rows) -> Output:
    """Answer encoded rows in one pass."""
    inputs = runner.prepare(rows)
    return runner.output(inputs, runner(inputs))


@dataclass(frozen=True)
class Subject:
    """A trained model, and how a method runs it: what a backend makes a runner of.

    Attributes:
        knobs: values of the method's knobs, a control's shares as they were measured.
        full_config: of the full model that it is compared with.
        device: where the model is.
        calibration: returns training rows, for engines that learn from examples which values occur.
    """

    model: EfficientBertForSequenceClassification
    method: Method
    knobs: Mapping[str, Any]
    full_config: EfficientBertConfig
    device: str
    calibration: Callable[[], Rows] = tuple

    def runner(self) -> EagerRunner:
        """Make a runner of the model as it is, in PyTorch."""
        counted = self.method.published_flops
        published = (lambda output: counted(self.model, output, self.knobs)) if counted else None
        policy = self.method.policy(self.model, self.knobs)
        return EagerRunner(self.model, policy, self.full_config, self.device, published)


@dataclass(frozen=True)
class EagerRunner:
    """A model with a policy, run layer by layer in PyTorch: gathered passes.

    Attributes:
        model, policy: what answers.
        full_config: of the full model that it is compared with.
        device: where the model is.
        count_published: the authors' own count of a pass, where a method has one.
        run_block: runs each text through a layer, where the layers are not called themselves.
    """

    model: EfficientBertForSequenceClassification
    policy: Policy
    full_config: EfficientBertConfig
    device: str
    count_published: Callable[[Output], Counts] | None = None
    run_block: RunBlock | None = None

    @property
    def environment(self) -> Mapping[str, Any]:
        """The attention's implementation and the type of the weights."""
        return {"attention": self.model.config._attn_implementation, "dtype": str(self.model.dtype)}

    def prepare(self, rows: Rows) -> Batch:
        """Make a batch of encoded rows on the device."""
        from efficient_bert.engine.batch import Batch

        return Batch.of_rows(rows, pad_token_id=self.model.config.padding, device=self.device)

    def __call__(self, inputs: Batch) -> Output:
        """Answer a batch in one gathered pass, without gradients."""
        import torch

        from efficient_bert.engine.loop import run

        with torch.inference_mode():
            return run(self.model, inputs, self.policy, run_block=self.run_block)

    def output(self, inputs: Batch, result: Output) -> Output:
        """Return the result itself, whose trace is built when it is read."""
        return result

    def on_one_thread(self) -> None:
        """Say that it answers batches faster."""
        return

    def flops(self, output: Output) -> Counts:
        """Count the FLOPs of a pass and of the full model on its examples."""
        return count_flops(output, self.model.config, self.full_config)

    def published_flops(self, output: Output) -> Counts:
        """Count as the method's authors do, or as `flops` where there is no count of theirs."""
        return self.count_published(output) if self.count_published else self.flops(output)


def count_flops(output: Output, config: EfficientBertConfig, full_config: EfficientBertConfig) -> Counts:
    """Count the FLOPs of a pass of a model, and of the full model on the same examples."""
    from efficient_bert.cost.flops import full_flops, trace_flops

    trace = output.trace
    return trace_flops(trace, config), full_flops(trace.length, full_config)


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
) -> EagerRunner:
    """Return the arm's model with its policy, in PyTorch."""
    return make_subject(plan, arm, models, rows=rows).runner()


def make_subject(
    plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification], *, rows: Rows | None
) -> Subject:
    """Return the arm's model, and how its method runs it.

    Shares that a control follows are counted on `rows`; without rows they are those that training has stored.
    """
    model = models[arm.job.id]
    knobs = arm.method.calibrate(model, rows, arm.knobs)
    calibration = partial(calibration_rows, plan)
    return Subject(model, arm.method, knobs, plan.config, plan.settings.device, calibration)


def calibration_rows(plan: Plan) -> Rows:
    """Draw training rows, the same for every arm."""
    train = plan.data.train
    draw = random.Random(DATA_SEED)  # noqa: S311 - a draw, no secret
    rows: Rows = train.select(draw.sample(range(len(train)), min(CALIBRATION, len(train)))).to_list()
    return rows


def make_measured_runner(
    plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification], watcher: Watcher
) -> Runner:
    """Return what answers for an arm on its backend.

    A control follows choices that are counted on the reported rows, without their labels.
    """
    from efficient_bert.policies.controls import OWN

    if OWN not in arm.knobs.values():
        return arm.backend.make(make_subject(plan, arm, models, rows=None))
    rows = plan.data.evaluation.to_list()
    with watcher.counting_bar(f"take the shares that {arm.label} follows", len(rows)) as advance:
        subject = make_subject(plan, arm, models, rows=rows)
        advance(len(rows))
    return arm.backend.make(subject)
