"""From what was asked to what must be done: arms, the training jobs they need, the runs they make."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.artifacts import ArtifactStore, Job, content_hash
from bench.backbones import Backbone, inspect, resolve
from bench.environment import read_environment
from bench.errors import InputError
from bench.examples import Data, load_data
from bench.fitting import Misfit, Points, check_values, configured, grid, refusals, refuse, unfit_stages
from bench.folders import Folders, digest
from bench.presets import Preset, preset_named
from bench.registry import METHODS, TASKS
from bench.store import RunStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bench.tasks import Task
    from efficient_bert import EfficientBertConfig
    from efficient_bert.knobs import Value
    from efficient_bert.methods import Method
    from efficient_bert.training import Stage

TRAINS_AS = "0.2.0"
"""The version since which the same options, seed and rows train the same model: later ones find its artifacts, as
long as a stage keeps its options."""


@dataclass(frozen=True)
class Settings:
    """What was asked; None or nothing leaves it to the preset, the task or the method.

    Attributes:
        task: registry name.
        methods: registry names; those of the suite where none is given. The full model always runs, as the reference.
        knobs: knob name -> values to measure.
        options: "<stage>.<option>" -> value.
        preset, backbone, data_dir, seed, device: as on the command line; device is "cpu" or "cuda".
        finetune_seed: of the held-out rows and of fine-tuning, `seed` unless given.
        split: reported on instead of the task's own.
        max_length: word pieces.
        train_rows, eval_rows: limits.
        latency_examples, rounds: size of the timing session; 0 examples times nothing.
        store: folder that holds runs/, artifacts/ and explained/.
        fresh: do again what is finished.
        time_again: time stored runs again, with the models that they were evaluated with.
        until: the stage that is trained, with those before it; by default every method's own.
    """

    task: str
    methods: tuple[str, ...] = ()
    knobs: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    options: Mapping[str, Value] = field(default_factory=dict)
    preset: str = "quick"
    backbone: str | None = None
    data_dir: Path | None = None
    seed: int = 0
    finetune_seed: int | None = None
    device: str = "cpu"
    split: str | None = None
    max_length: int | None = None
    train_rows: int | None = None
    eval_rows: int | None = None
    latency_examples: int | None = None
    rounds: int | None = None
    store: Path = Path()
    fresh: bool = False
    time_again: bool = False
    until: str | None = None

    @property
    def first_seed(self) -> int:
        """Of the held-out rows and of fine-tuning."""
        return self.seed if self.finetune_seed is None else self.finetune_seed


@dataclass(frozen=True)
class Arm:
    """A method with its knobs set, the job whose model it runs, and the id of the run it makes."""

    method: Method
    knobs: Mapping[str, Value]
    job: Job
    run_id: str

    @property
    def label(self) -> str:
        """For plans and progress bars: `entropy_exit exit_threshold=0.3`."""
        return " ".join([self.method.name, *(f"{name}={value}" for name, value in self.knobs.items())])


@dataclass(frozen=True)
class Plan:
    """Everything resolved and checked; nothing trained or run yet.

    Attributes:
        other_head: the backbone's own classifier in words where it is not of this task: it is left behind, and
            training starts from a new one; else empty.
        unknown_fields: of the backbone's configuration, which are not used.
        made: ids of stages and runs that another plan of the same command does before this one.
    """

    settings: Settings
    task: Task
    preset: Preset
    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    config: EfficientBertConfig
    other_head: str
    unknown_fields: tuple[str, ...]
    data: Data
    max_length: int
    latency_examples: int
    rounds: int
    environment: Mapping[str, Any]
    made: frozenset[str] = frozenset()

    @property
    def runs(self) -> RunStore:
        return RunStore(self.settings.store / "runs")

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.settings.store / "artifacts")

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The word pieces of the backbone's tokenizer, and their ids."""
        return self.tokenizer.get_vocab()

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The reference first, then every method at every point that fits.

        Raises:
            InputError: a name or a value that was given does not fit, or none of the points of a method that was named.
        """
        refuse(reason for points in self.points for reason in points.refused(self.settings))
        found = [arm for points in self.points for arm in points.arms]
        return tuple({arm.run_id: arm for arm in found}.values())

    @cached_property
    def points(self) -> tuple[Points, ...]:
        """Of the reference and of each method: what fits and what does not."""
        suite = [name for name, method in METHODS.items() if method.suite]
        names = dict.fromkeys(["full", *(self.settings.methods or suite)])
        methods = [METHODS[name] for name in names]
        check_names(self.settings, methods)
        check_values(self.settings, {**self.preset.options, **self.settings.options}, methods)
        check_controls(self.settings, methods)
        return tuple(map(self.points_of, methods))

    @property
    def missing_jobs(self) -> tuple[Job, ...]:
        """Stages to train: those that are not finished, or all with `fresh`."""
        return tuple(job for job in self.jobs if self.is_missing(job.id, self.artifacts))

    @property
    def missing_arms(self) -> tuple[Arm, ...]:
        """Arms to run: those that are not stored, or all with `fresh`."""
        return tuple(arm for arm in self.arms if self.is_missing(arm.run_id, self.runs))

    @property
    def arms_timed_again(self) -> tuple[Arm, ...]:
        """Arms that are stored and only timed, where that is asked for."""
        if not self.settings.time_again:
            return ()
        missing = {arm.run_id for arm in self.missing_arms} | self.made
        return tuple(arm for arm in self.arms if arm.run_id not in missing)

    def is_missing(self, name: str, store: Folders) -> bool:
        """Whether this plan has to make what has this id in the store."""
        return name not in self.made and (self.settings.fresh or name not in store)

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of all stages and runs."""
        return (*(job.id for job in self.jobs), *(arm.run_id for arm in self.arms))

    @property
    def forgotten(self) -> tuple[list[str], list[str]]:
        """Ids of stored runs and stages, complete or under way, that come of a stage which `fresh` trains again."""
        if not self.settings.fresh:
            return [], []
        renewed = {job.id for job in self.missing_jobs}
        return self.runs.made_with(renewed), self.artifacts.made_with(renewed)

    def partial_run(self, arm: Arm) -> Path:
        """Where an unfinished run keeps what it has."""
        return self.runs.partial(arm.run_id, made_with=[job.id for job in arm.job.chain])

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every training stage the arms need, each once, in order; none after the one that is asked for.

        Raises:
            InputError: none of the arms needs the stage that is asked for.
        """
        jobs = {job.id: job for arm in self.arms for job in arm.job.chain}
        until = self.settings.until
        if until is None:
            return tuple(jobs.values())
        names = dict.fromkeys(job.stage.name for job in jobs.values())
        if until not in names:
            raise InputError(f"stage is {until!r}, but these methods are trained by: {', '.join(names)}")
        last = [job for job in jobs.values() if job.stage.name == until]
        return tuple({job.id: job for each in last for job in each.chain}.values())

    def points_of(self, method: Method) -> Points:
        """A method at the knob values given, else the preset's, else its own points, each held against the model."""
        chosen = {**{name: (value,) for name, value in self.preset.knobs.items()}, **self.settings.knobs}
        arms, misfits = [], []
        known: dict[str, list[str]] = {}  # points share most of their training
        for knobs in grid(method.all_knobs, chosen):
            options = {stage.name: self.options_of(stage, knobs) for stage in method.stage.chain}
            if (key := repr(options)) not in known:
                known[key] = unfit_stages(method.stage, self.config, options, self.vocabulary)
            if known[key]:
                misfits.append(Misfit(tuple(known[key]), untrained=True))
                continue
            arm = self.arm(method, knobs)
            if unfit := refusals(partial(method.check, self.config_after(arm.job), knobs)):
                misfits.append(Misfit(tuple(unfit), untrained=False))
            else:
                arms.append(arm)
        return Points(method, tuple(arms), tuple(misfits))

    def arm(self, method: Method, knobs: Mapping[str, Value]) -> Arm:
        """One arm with its job and its run id."""
        job = self.job(method.stage, knobs)
        decided_by = {
            "version": __version__,
            "task": self.task.name,
            "method": method.name,
            "knobs": dict(knobs),
            "job": job.id,
            "evaluation": self.data.fingerprints["evaluation"],
            "max_length": self.max_length,
            "timing": [self.latency_examples, self.rounds],
            "hardware": [self.environment["device_name"], self.environment["torch_threads"]],
            **self.data.reading("evaluation"),
        }
        return Arm(method, knobs, job, f"{self.task.name}-{method.name}-{content_hash(decided_by)}")

    def job(self, stage: Stage, knobs: Mapping[str, Value]) -> Job:
        """The job of a stage and of those before it; what was left to the machine is decided here."""
        own = self.options_of(stage, knobs)
        after = self.job(stage.after, knobs) if stage.after else None
        decided_by = {
            "version": TRAINS_AS,
            "backbone": self.backbone.identity,
            "train": self.data.fingerprints["train"],
            "heldout": self.data.fingerprints["heldout"],
            "max_length": self.max_length,
            "metric": self.task.metrics[0],
            "seed": self.seed_of(stage),
            **self.data.reading("train", "heldout"),
        }
        named = {knob.name: Path(str(own[knob.name])) for knob in stage.options if knob.path and own[knob.name]}
        contents = {name: digest(path) for name, path in named.items() if path.exists()}
        decided_by |= {"contents": contents} if contents else {}
        return Job(stage, own, decided_by, after)

    def options_of(self, stage: Stage, knobs: Mapping[str, Value]) -> dict[str, Value]:
        """What a stage trains with: these knobs, and options as given, else the preset's, else its own."""
        from efficient_bert.training.loop import native_precision

        own = {knob.name: knobs[knob.name] for knob in stage.knobs}
        chosen = {**self.preset.options, **self.settings.options}
        for knob in stage.options:
            own[knob.name] = knob.parse(chosen.get(f"{stage.name}.{knob.name}", knob.default))
        if own.get("precision") == "auto":
            own["precision"] = native_precision(self.settings.device)
        return own

    def seed_of(self, stage: Stage) -> int:
        """The seed of a stage; one that draws nothing follows from the stage before, whatever the seed."""
        if stage.after is None:
            return self.settings.first_seed
        return self.settings.seed if stage.uses_seed else self.seed_of(stage.after)

    @cached_property
    def _configs(self) -> dict[str, EfficientBertConfig]:
        """What `config_after` has found, by the jobs' ids: arms share most of their jobs."""
        return {}

    def config_after(self, job: Job | None) -> EfficientBertConfig:
        """The configuration of the model that a job will make; without a job, the backbone's."""
        if job is None:
            return self.config
        if job.id not in self._configs:
            self._configs[job.id] = configured(job.stage, self.config_after(job.after), job.options)
        return self._configs[job.id]


def check_names(settings: Settings, methods: Sequence[Method]) -> None:
    """Raise InputError for a knob or stage option that none of the methods has."""
    knobs = {knob.name for method in methods for knob in method.all_knobs}
    stages = {stage.name: stage for method in methods for stage in method.stage.chain}
    options = {f"{stage.name}.{knob.name}" for stage in stages.values() for knob in stage.options}
    wrong = []
    for given, known, kind in ((settings.knobs, knobs, "knob"), (settings.options, options, "training option")):
        for name in given:
            if name not in known:
                wrong.append(
                    f"none of the methods {', '.join(method.name for method in methods)} has the {kind} {name!r}; "
                    f"they have: {', '.join(sorted(known)) or 'none'}"
                )
    refuse(wrong)


def check_controls(settings: Settings, methods: Sequence[Method]) -> None:
    """Raise InputError for a knob value at which a method runs and its control beside it cannot."""
    from efficient_bert.controls import OWN

    for control in methods:
        own = {knob.name for knob in control.all_knobs}
        typed = any(knob.default == OWN and knob.name in settings.knobs for knob in control.all_knobs)
        followed = [method for method in methods if method.name == control.control_of and not typed]
        for knob in itertools.chain.from_iterable(method.all_knobs for method in followed):
            values = [knob.parse(value) for value in settings.knobs.get(knob.name, ())]
            if knob.name not in own and values not in ([], [knob.default]):
                raise InputError(
                    f"{control.name} has no points along {knob.name} to set beside, only {knob.default}; leave the "
                    f"flag out, name the methods without the control by --method, or give a sweep --no-controls"
                )


def make_plan(settings: Settings) -> Plan:
    """Resolve names, load and encode data, check every knob.

    Raises:
        InputError: anything the user gave is wrong or cannot be found.
    """
    task = TASKS[settings.task]
    preset = preset_named(settings.preset).on(task.name)
    if settings.split is not None:
        task = reported_on(task, settings.split)
    check_device(settings.device)
    for name in settings.methods:
        METHODS[name]
    backbone = resolve(settings.backbone or preset.backbone)
    encoder = inspect(backbone, task)
    max_length = settings.max_length or task.max_length
    least = 5 if task.pair else 3  # a word piece of each text between [CLS] and [SEP]
    most = encoder.config.max_position_embeddings
    if not least <= max_length <= most:
        raise InputError(
            f"max_length is {max_length}, but backbone {backbone.name!r} takes {least} to {most}; "
            f"give --max-length {most}"
        )
    plan = Plan(
        settings=settings,
        task=task,
        preset=preset,
        backbone=backbone,
        tokenizer=encoder.tokenizer,
        config=encoder.config,
        other_head=encoder.other_head,
        unknown_fields=encoder.unknown_fields,
        data=load_data(task, settings, preset, tokenizer=encoder.tokenizer, max_length=max_length),
        max_length=max_length,
        latency_examples=first_given(settings.latency_examples, preset.latency_examples),
        rounds=first_given(settings.rounds, preset.rounds),
        environment=read_environment(settings.device),
    )
    plan.arms  # noqa: B018 - checks every knob now, before anything is trained
    check_time_again(plan)
    return plan


def check_time_again(plan: Plan) -> None:
    """Check that stored runs can be timed again where that is asked for.

    Raises:
        InputError: all is done anew, nothing is timed at all, or the model of a stored run is gone.
    """
    if plan.settings.time_again and plan.settings.fresh:
        raise InputError("--time-again keeps the models and answers that --fresh makes anew; give one of the two")
    if plan.settings.time_again and not (plan.latency_examples and plan.rounds):
        raise InputError(
            "--time-again times stored runs again, but with 0 latency examples or rounds nothing is timed; leave it out"
        )
    for arm in plan.arms_timed_again:
        if arm.job.id not in plan.artifacts:
            raise InputError(
                f"run {arm.run_id} cannot be timed again, because its model {arm.job.id} is no longer in "
                f"{plan.artifacts.root}; leave --time-again out, or give --fresh to train and measure anew"
            )


def reported_on(task: Task, split: str) -> Task:
    """The task with another split to report on.

    Raises:
        InputError: that split has no labels, or models are trained on it.
    """
    if split in task.unlabelled:
        raise InputError(
            f"the {split!r} split of task {task.name!r} has no labels to score answers by; "
            f"bench predict --split {split} writes the answers"
        )
    if split == "train":
        raise InputError(f"models of task {task.name!r} are trained on 'train'; report on another split")
    return replace(task, evaluation=split)


def first_given(given: int | None, otherwise: int) -> int:
    """`given` unless it is None; a negative number is refused."""
    value = otherwise if given is None else given
    if value < 0:
        raise InputError(f"{value} is negative; give the number of latency examples and rounds as 0 or more")
    return value


def check_device(device: str) -> None:
    """Raise InputError where the device cannot be used here."""
    import torch

    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}, but it is cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no GPU here; use --device cpu")
