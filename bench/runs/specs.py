"""Specs: a stage to train or a run to measure as JSON, which a fresh process carries out.

A spec says everything that a plan has resolved, and the id that it must give. Where this machine, its data or its
backbone would give another id, nothing is trained or measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from bench import __version__
from bench.backbones.resolving import PACKAGED
from bench.errors import InputError
from bench.planning.fitting import parse_values
from bench.planning.plan import make_plan
from bench.planning.settings import Settings
from bench.registry import STAGES
from bench.runs.run import carry_out
from bench.runs.train import train_all
from bench.store.folders import disk_errors_at, require_own
from bench.store.json_files import misfit, read_object, shorten

if TYPE_CHECKING:
    from bench.planning.plan import Arm, Plan
    from bench.progress import Watcher
    from bench.store.artifacts import Job

REMEDY = "write the specs again with bench run --specs"
RUN = "run"
"""Key of what decides a run, beside those of the stages."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What stages and runs have in common; the fields that `Settings` has too mean the same, with nothing left open.

    Attributes:
        version: of the program that wrote the spec.
        id: of the stage or run that it must make.
        backbone: the packaged one, a folder, or a hub name with its commit.
        knobs: knob -> value.
        options: stage -> its options in force, of every stage that is needed.
        decided_by: stage -> what decides it; what decides a run is under "run".
    """

    kind: ClassVar[str]
    version: str
    id: str
    task: str
    split: str
    backbone: str
    data_dir: str | None
    train_rows: int | None
    eval_rows: int | None
    max_length: int
    seed: int
    finetune_seed: int
    device: str
    preset: str
    latency_examples: int
    rounds: int
    throughput: bool
    knobs: Mapping[str, object]
    options: Mapping[str, Mapping[str, object]]
    decided_by: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> str:
        """Return the spec as one JSON object, its kind first."""
        return json.dumps({"kind": self.kind, **asdict(self)}, indent=2, allow_nan=False) + "\n"

    def settings(self, store: Path) -> Settings:
        """Return the settings of a plan that this spec is a part of, in a store."""
        same = {field.name for field in fields(Settings)} & {field.name for field in fields(self)}
        given = {name: getattr(self, name) for name in same} | {
            "methods": self.methods,
            "backends": self.backends,
            "data_dir": None if self.data_dir is None else Path(self.data_dir),
            "knobs": {name: (value,) for name, value in self.knobs.items()},
            "options": {f"{stage}.{name}": each[name] for stage, each in self.options.items() for name in each},
        }
        return Settings(**given, store=store)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of that plan, beside the full model."""
        return ("full",)  # a stage is planned by its name

    @property
    def backends(self) -> tuple[str, ...]:
        """Backends of that plan, beside PyTorch."""
        return ()


@dataclass(frozen=True, kw_only=True)
class JobSpec(Spec):
    """A stage to train.

    Attributes:
        after: id of the stage whose model it starts from.
    """

    kind = "job"
    stage: str
    after: str | None


@dataclass(frozen=True, kw_only=True)
class RunSpec(Spec):
    """A method to measure at one point, beside the full model.

    Attributes:
        jobs: ids of the stages that train its model and the full one, in order.
    """

    kind = "run"
    method: str
    backend: str
    jobs: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of that plan, beside the full model."""
        return (self.method,)

    @property
    def backends(self) -> tuple[str, ...]:
        """Backends of that plan, beside PyTorch."""
        return (self.backend,)


def specs_of(plan: Plan) -> tuple[list[JobSpec], list[RunSpec]]:
    """Return the specs of a plan's stages, in the order of training, and of its runs."""
    return [job_spec(plan, job) for job in plan.jobs], [run_spec(plan, arm) for arm in plan.arms]


def job_spec(plan: Plan, job: Job) -> JobSpec:
    """Return the spec of a stage."""
    knobs = {knob.name: each.options[knob.name] for each in job.chain for knob in each.stage.knobs}
    return JobSpec(
        **shared_fields(plan, job.chain),
        id=job.id,
        knobs=knobs,
        decided_by=decisions_of(job.chain),
        stage=job.stage.name,
        after=job.after.id if job.after else None,
    )


def run_spec(plan: Plan, arm: Arm) -> RunSpec:
    """Return the spec of a run."""
    jobs = list({job.id: job for each in (plan.arms[0], arm) for job in each.job.chain}.values())
    return RunSpec(
        **shared_fields(plan, jobs),
        id=arm.run_id,
        knobs=dict(arm.knobs),
        decided_by={**decisions_of(jobs), RUN: plan.run_decided_by(arm.method, arm.knobs, arm.job, arm.backend)},
        method=arm.method.name,
        backend=arm.backend.name,
        jobs=tuple(job.id for job in jobs),
    )


def shared_fields(plan: Plan, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the fields that follow from a plan and the stages that are needed."""
    settings, preset = plan.settings, plan.preset
    return {
        "version": __version__,
        "task": plan.task.name,
        "split": plan.task.evaluation,
        "backbone": backbone_source(plan),
        "data_dir": None if settings.data_dir is None else str(settings.data_dir.resolve()),
        "train_rows": settings.train_rows or preset.train_rows,
        "eval_rows": settings.eval_rows or preset.eval_rows,
        "max_length": plan.max_length,
        "seed": settings.seed,
        "finetune_seed": settings.first_seed,
        "device": settings.device,
        "preset": preset.name,
        "latency_examples": plan.timing.examples,
        "rounds": plan.timing.rounds,
        "throughput": plan.timing.throughput,
        "options": {job.stage.name: {knob.name: job.options[knob.name] for knob in job.stage.options} for job in jobs},
    }


def backbone_source(plan: Plan) -> str:
    """Return where the plan's backbone comes from, whatever the working directory: name, folder, or name and commit."""
    if (plan.settings.backbone or plan.preset.backbone) == PACKAGED:
        return PACKAGED
    identity = plan.backbone.identity
    return str(plan.backbone.folder) if identity.startswith("sha256:") else identity


def decisions_of(jobs: Iterable[Job]) -> dict[str, Mapping[str, Any]]:
    """Return what decides each stage, by its name."""
    return {job.stage.name: dict(job.decided_by) for job in jobs}


def require_new_folder(folder: Path) -> None:
    """Check that specs may be written to a folder.

    Raises:
        InputError: it is a file, or holds something already.
    """
    require_own(folder, (), kind="new specs")


def write_specs(specs: Iterable[Spec], folder: Path) -> None:
    """Write each spec to `<id>.json` in a new folder: all of them or none.

    Raises:
        InputError: as `require_new_folder`.
    """
    require_new_folder(folder)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors_at(folder), TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as part:
        ready = Path(part) / "specs"
        ready.mkdir()
        for spec in specs:
            (ready / f"{spec.id}.json").write_text(spec.to_json(), encoding="utf8")
        ready.replace(folder)


def read_specs(paths: Iterable[Path]) -> list[JobSpec | RunSpec]:
    """Read specs, stages before the stages and runs that need them.

    Raises:
        InputError: as `read_spec`.
    """
    return sorted(map(read_spec, paths), key=lambda spec: (isinstance(spec, RunSpec), len(spec.decided_by)))


def read_spec(path: Path) -> JobSpec | RunSpec:
    """Read a spec back.

    Raises:
        InputError: the file is missing or damaged, of another version, lacks a field or has another one, or a value
            is of another kind.
    """
    values = read_object(path, remedy=REMEDY)
    classes: dict[Any, type[JobSpec | RunSpec]] = {each.kind: each for each in (JobSpec, RunSpec)}
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in classes:
        raise InputError(f"{path} is no spec: its kind is {shorten(kind)}, not job or run; {REMEDY}")
    if values.get("version") != __version__:
        version = shorten(values.get("version"))
        raise InputError(f"{path} is of version {version}, but this is {__version__}; {REMEDY}")
    hints = get_type_hints(classes[kind])
    kinds = {field.name: hints[field.name] for field in fields(classes[kind])}
    if problem := next(field_problems(values, kinds), None):
        raise InputError(f"{path} is no spec: {problem}; {REMEDY}")
    content: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return classes[kind](**content)


def field_problems(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the fields of a spec's JSON."""
    for name in sorted({*values} ^ {*kinds}):
        yield f"it has no {name}" if name in kinds else f"{shorten(name)} is none of its fields"
    yield from filter(None, (misfit(values[name], kind, name) for name, kind in kinds.items()))


def carry_out_spec(spec: JobSpec | RunSpec, store: Path, watcher: Watcher) -> Path:
    """Train the stage or measure the run of a spec, unless it is stored already; return its folder.

    Raises:
        InputError: it would have another id here, or a stage that it needs is not in the store.
    """
    if isinstance(spec, JobSpec):
        return carry_out_job(spec, store, watcher)
    return carry_out_run(spec, store, watcher)


@contextmanager
def refusals_of(spec: Spec) -> Iterator[None]:
    """Name the spec in the refusal of a value of it: a command may have been given many."""
    try:
        yield
    except InputError as error:
        raise InputError(f"spec {spec.id}: {error}") from error


def carry_out_job(spec: JobSpec, store: Path, watcher: Watcher) -> Path:
    """Train one stage; return the folder of its model.

    Raises:
        InputError: as `carry_out_spec`.
    """
    with refusals_of(spec):
        stage = STAGES[spec.stage]
        stage_knobs = [knob for each in stage.chain for knob in each.knobs]
        settings = parse_values(spec.settings(store), stage.chain, stage_knobs)
        plan = replace(make_plan(replace(settings, knobs={}, options={})), settings=settings)
    knobs = {knob.name: settings.knobs.get(knob.name, (knob.default,))[0] for knob in stage_knobs}
    job = plan.job(stage, knobs)
    require_same(spec, job_spec(plan, job))
    require_stored(plan, spec.id, [job.after.id] if job.after else [])
    train_all(plan, [job], watcher)
    return plan.artifacts.folder(job.id)


def carry_out_run(spec: RunSpec, store: Path, watcher: Watcher) -> Path:
    """Measure one run beside the full model; return its folder.

    Raises:
        InputError: as `carry_out_spec`.
    """
    with refusals_of(spec):
        plan = make_plan(spec.settings(store))
        here = run_spec(plan, plan.arms[-1])
    require_same(spec, here)
    require_stored(plan, spec.id, here.jobs)
    carry_out(plan, watcher)
    return plan.runs.folder(spec.id)


def require_stored(plan: Plan, name: str, jobs: Iterable[str]) -> None:
    """Raise InputError where a stage that a spec needs is not in the store."""
    missing = next((job for job in jobs if job not in plan.artifacts), None)
    if missing:
        raise InputError(
            f"{name} needs stage {missing}, which {plan.artifacts.root} lacks; carry out {missing}.json first"
        )


def require_same(spec: Spec, here: Spec) -> None:
    """Check that a spec means here what it meant where it was written.

    Raises:
        InputError: it does not: the line names each part that differs.
    """
    before, now = (dict(parts_of(each)) for each in (spec, here))
    parts = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if spec.id == here.id and not parts:
        return
    hardware = [json.dumps(each.get("run.hardware")) for each in (before, now)]
    remedy = (
        f"hardware is {hardware[1]}, not {hardware[0]}: OMP_NUM_THREADS sets the threads"
        if "run.hardware" in parts
        else REMEDY
    )
    raise InputError(
        f"spec {spec.id} would make {here.id} here, so nothing is done: {', '.join(parts) or 'id'} differ; {remedy}"
    )


def parts_of(spec: Spec) -> Iterator[tuple[str, Any]]:
    """Yield each part of what decides a spec's id with its name, `finetune.train`; not what follows from others."""
    groups = {"knobs": spec.knobs, **{f"options.{stage}": each for stage, each in spec.options.items()}}
    for group, values in {**groups, **spec.decided_by}.items():
        for name, value in values.items():
            if (group, name) != (RUN, "job"):
                yield f"{group}.{name}", value
