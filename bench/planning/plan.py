"""Turn settings into a plan: arms, the training jobs they need, the runs they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.backbones.resolving import Backbone, inspect, resolve
from bench.data.examples import Data, load_data
from bench.errors import InputError
from bench.machine.environment import read_environment
from bench.planning.checks import (
    check_backends,
    check_controls,
    check_device,
    check_limits,
    check_names,
    check_throughput,
    check_time_again,
)
from bench.planning.fitting import (
    Misfit,
    Points,
    config_after_stage,
    grid,
    parse_values,
    refusals,
    refuse,
    unfit_reasons,
)
from bench.planning.presets import Preset, find_preset
from bench.planning.settings import Settings, Timing
from bench.registry import BACKENDS, METHODS, STAGES, TASKS, all_knobs, stages_of
from bench.store.artifacts import ArtifactStore, Job, content_hash
from bench.store.folders import Folders, digest
from bench.store.records import TORCH, arm_label
from bench.store.runs import RunStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bench.backends import Backend
    from bench.tasks import Task
    from efficient_bert import EfficientBertConfig
    from efficient_bert.knobs import Value
    from efficient_bert.methods import Method
    from efficient_bert.training import Stage

TRAINS_AS = "0.2.0"
"""The version since which the same options, seed and rows train the same model: later ones find its artifacts, as
long as a stage keeps its options."""


@dataclass(frozen=True)
class Arm:
    """A method with its knobs set, the job whose model it runs, what computes it, and the id of the run it makes."""

    method: Method
    knobs: Mapping[str, Value]
    job: Job
    backend: Backend
    run_id: str

    @property
    def label(self) -> str:
        """For plans and progress bars: `entropy_exit exit_threshold=0.3`."""
        return arm_label(self.method.name, self.knobs, self.backend.name)


@dataclass(frozen=True)
class Plan:
    """Everything resolved and checked; nothing trained or run yet.

    Attributes:
        settings: with every value parsed.
        other_head: the backbone's own classifier in words where it is not of this task: it is left behind, and
            training starts from a new one; else empty.
        unknown_fields: fields of the backbone's configuration that are not used.
        made: ids of stages and runs that another plan of the same command makes before this one.
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
    timing: Timing
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
        """The full model in PyTorch first, then every method at every point that fits, on every backend that can."""
        arms = [self.arm(self.methods[0], {}, BACKENDS[TORCH])]
        for backend in self.backends:
            points = (points for points in self.points if points.method.dense or not backend.dense)
            arms += [self.arm(arm.method, arm.knobs, backend) for each in points for arm in each.arms]
        return tuple({arm.run_id: arm for arm in arms}.values())

    @cached_property
    def backends(self) -> tuple[Backend, ...]:
        """What computes the arms, each once."""
        return tuple(BACKENDS[name] for name in dict.fromkeys(self.settings.backends or (TORCH,)))

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """The full model and the methods of the settings, each once."""
        return methods_of(self.settings)

    @cached_property
    def points(self) -> tuple[Points, ...]:
        """The points of each method: those that fit the model, and those that do not."""
        return tuple(map(self.points_of, self.methods))

    def check(self) -> None:
        """Check every point of every method, and whether stored runs can be timed again where that is wanted.

        Raises:
            InputError: a value that was given does not fit the model, or no point of a method that was named does.
        """
        check_controls(self.settings, self.methods)
        check_backends(self.backends, self.settings.device)
        refuse(reason for points in self.points for reason in points.refusal_reasons(self.settings))
        check_throughput(self)
        check_time_again(self)

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
        """Arms that are stored and only timed: all where that is wanted, or those that lack a throughput that is."""
        if not self.settings.time_again and not (self.timing and self.timing.throughput):
            return ()
        missing = {arm.run_id for arm in self.missing_arms} | self.made
        stored = (arm for arm in self.arms if arm.run_id not in missing)
        return tuple(
            arm for arm in stored if self.settings.time_again or "throughput" not in self.runs.record(arm.run_id).timing
        )

    def is_missing(self, name: str, store: Folders) -> bool:
        """Say whether this plan has to make the folder of this name in the store."""
        return name not in self.made and (self.settings.fresh or name not in store)

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of all stages and runs."""
        return (*(job.id for job in self.jobs), *(arm.run_id for arm in self.arms))

    @property
    def outdated(self) -> tuple[list[str], list[str]]:
        """Ids of stored runs and stages, finished or not, that were made from a stage which `fresh` trains again."""
        if not self.settings.fresh:
            return [], []
        renewed = {job.id for job in self.missing_jobs}
        return self.runs.ids_made_with(renewed), self.artifacts.ids_made_with(renewed)

    def partial_run(self, arm: Arm) -> Path:
        """Return the folder in which an unfinished run keeps its chunks."""
        return self.runs.partial(arm.run_id, made_with=[job.id for job in arm.job.chain])

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every training stage that the arms need, each once, in order; none after `settings.until`.

        Raises:
            InputError: none of the arms needs that stage.
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
        """Return a method at the given knob values, else the preset's, else its defaults, checked on the model."""
        chosen = {**{name: (value,) for name, value in self.preset.knobs.items()}, **self.settings.knobs}
        arms, misfits = [], []
        known: dict[str, list[str]] = {}  # points share most of their training
        for knobs in grid(all_knobs(method), chosen):
            options = {stage.name: self.options_of(stage, knobs) for stage in stages_of(method)}
            if (key := repr(options)) not in known:
                known[key] = unfit_reasons(STAGES[method.stage], self.config, options, self.vocabulary)
            if known[key]:
                misfits.append(Misfit(tuple(known[key]), untrained=True))
                continue
            arm = self.arm(method, knobs, BACKENDS[TORCH])
            if unfit := refusals(partial(method.check, self.config_after(arm.job), knobs)):
                misfits.append(Misfit(tuple(unfit), untrained=False))
            else:
                arms.append(arm)
        return Points(method, tuple(arms), tuple(misfits))

    def arm(self, method: Method, knobs: Mapping[str, Value], backend: Backend) -> Arm:
        """Return one arm with its job and its run id."""
        job = self.job(STAGES[method.stage], knobs)
        decided_by = self.run_decided_by(method, knobs, job, backend)
        names = [self.task.name, method.name, *([] if backend.name == TORCH else [backend.name])]
        return Arm(method, knobs, job, backend, "-".join([*names, content_hash(decided_by)]))

    def run_decided_by(self, method: Method, knobs: Mapping[str, Value], job: Job, backend: Backend) -> dict[str, Any]:
        """Return everything that decides a run, as JSON: its id ends with the hash of it."""
        elsewhere = {} if backend.name == TORCH else {"backend": backend.name}
        return {
            **elsewhere,
            "version": __version__,
            "task": self.task.name,
            "method": method.name,
            "knobs": dict(knobs),
            "job": job.id,
            "evaluation": self.data.fingerprints["evaluation"],
            "max_length": self.max_length,
            "timing": [self.timing.examples, self.timing.rounds],
            "hardware": [self.environment["device_name"], self.environment["torch_threads"]],
            **self.data.token_reading("evaluation"),
        }

    def job(self, stage: Stage, knobs: Mapping[str, Value]) -> Job:
        """Return the job of a stage, with those before it; options that depend on the machine are decided here."""
        options = self.options_of(stage, knobs)
        after = self.job(stage.after, knobs) if stage.after else None
        decided_by = {
            "version": TRAINS_AS,
            "backbone": self.backbone.identity,
            "train": self.data.fingerprints["train"],
            "heldout": self.data.fingerprints["heldout"],
            "max_length": self.max_length,
            "metric": self.task.metrics[0],
            "seed": self.seed_of(stage),
            **self.data.token_reading("train", "heldout"),
        }
        paths = {knob.name: Path(str(options[knob.name])) for knob in stage.options if knob.path and options[knob.name]}
        contents = {name: digest(path) for name, path in paths.items() if path.exists()}
        decided_by |= {"contents": contents} if contents else {}
        return Job(stage, options, decided_by, after)

    def options_of(self, stage: Stage, knobs: Mapping[str, Value]) -> dict[str, Value]:
        """Return what a stage trains with: these knobs, and options as given, else the preset's, else its defaults."""
        from efficient_bert.training.loop import native_precision

        options = {knob.name: knobs[knob.name] for knob in stage.knobs}
        chosen = {**self.preset.options, **self.settings.options}
        for knob in stage.options:
            options[knob.name] = chosen.get(f"{stage.name}.{knob.name}", knob.default)
        if options.get("precision") == "auto":
            options["precision"] = native_precision(self.settings.device)
        return options

    def seed_of(self, stage: Stage) -> int:
        """Return the seed of a stage; one that draws nothing at random has that of the stage before."""
        if stage.after is None:
            return self.settings.first_seed
        return self.settings.seed if stage.uses_seed else self.seed_of(stage.after)

    @cached_property
    def _configs(self) -> dict[str, EfficientBertConfig]:
        """Results of `config_after` by the jobs' ids: arms share most of their jobs."""
        return {}

    def config_after(self, job: Job | None) -> EfficientBertConfig:
        """Return the configuration of the model that a job will make; without a job, the backbone's."""
        if job is None:
            return self.config
        if job.id not in self._configs:
            self._configs[job.id] = config_after_stage(job.stage, self.config_after(job.after), job.options)
        return self._configs[job.id]


def make_plan(settings: Settings) -> Plan:
    """Resolve names, load and encode data, and check every knob.

    Raises:
        InputError: anything the user gave is wrong or cannot be found.
    """
    task = TASKS[settings.task]
    preset = find_preset(settings.preset).on(task.name)
    if settings.split is not None:
        task = task_on_split(task, settings.split)
    check_device(settings.device)
    check_limits(settings)
    settings = parse_settings(settings)
    backbone = resolve(settings.backbone or preset.backbone)
    encoder = inspect(backbone, task)
    max_length = count_or_default(settings.max_length, task.max_length)
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
        timing=Timing(
            examples=count_or_default(settings.latency_examples, preset.latency_examples),
            rounds=count_or_default(settings.rounds, preset.rounds),
            throughput=settings.throughput,
        ),
        environment=read_environment(settings.device),
    )
    plan.check()
    return plan


def methods_of(settings: Settings) -> tuple[Method, ...]:
    """Return the full model and the methods of the settings, each once: those of the suite where none is given."""
    suite = (name for name, method in METHODS.items() if method.suite)
    return tuple(METHODS[name] for name in dict.fromkeys(["full", *(settings.methods or suite)]))


def parse_settings(settings: Settings) -> Settings:
    """Return the settings with every value of a knob and of an option parsed.

    Raises:
        InputError: none of the methods has it, or it is none of its knob's values.
    """
    methods = methods_of(settings)
    check_names(settings, methods)
    stages = [stage for method in methods for stage in stages_of(method)]
    return parse_values(settings, stages, [knob for method in methods for knob in all_knobs(method)])


def task_on_split(task: Task, split: str) -> Task:
    """Return the task with another split to report on.

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


def count_or_default(given: int | None, default: int) -> int:
    """Return `given`, or the default where it is None."""
    return default if given is None else given
