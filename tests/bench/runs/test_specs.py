"""Stages and runs as JSON: written by `bench run --specs`, carried out by `bench carry-out` in fresh processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import __version__
from bench.backbones.resolving import Backbone
from bench.errors import InputError
from bench.runs.specs import JobSpec, RunSpec, backbone_source, read_spec, read_specs, write_specs
from bench.store.runs import RunStore
from tests.support.command_line import Answer, call
from tests.support.tiny_files import write_backbone

ROOT = Path(__file__).parents[3]
TIMES = ("seconds", "reference_seconds", "event_seconds")
METHODS = ("--method", "entropy_exit", "--exit-threshold", "0.1,0.6", "--method", "random_tokens", "--gamma", 0.3)
SIZES = ("--preset", "smoke", "--max-length", 64, "--train-rows", 40, "--eval-rows", 8, "--latency-examples", 2)


@pytest.fixture(autouse=True, scope="module")
def nothing_from_outside() -> Iterator[None]:
    """No data folder from the environment, no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EFFICIENT_BERT_DATA", raising=False)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@dataclass(frozen=True)
class Written:
    """A command's specs, and the arguments that it was given beside its store."""

    folder: Path
    command: tuple[object, ...]
    specs: Path

    def paths(self, kind: type[JobSpec | RunSpec]) -> list[Path]:
        """The files of one kind, in the order of their names."""
        return sorted(path for path in self.specs.iterdir() if isinstance(read_spec(path), kind))

    def path(self, name: str) -> Path:
        """The first file whose name begins so."""
        return min(self.specs.glob(f"{name}*.json"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The specs of a small plan on the demo: three methods at four points, two of them with one model."""
    folder = tmp_path_factory.mktemp("specs")
    backbone = write_backbone(folder / "bert")
    command = ("run", "--task", "demo", "--device", "cpu", "--backbone", backbone, "--seed", 3, *SIZES, *METHODS)
    answer = call(*command, "--specs", folder / "specs", "--store", folder / "planned")
    assert answer.code == 0, answer.err
    assert not (folder / "planned").exists()
    assert answer.out.splitlines()[-1] == f"specs: 8 in {folder / 'specs'}"
    return Written(folder, command, folder / "specs")


def refused(*arguments: object) -> str:
    """The one line that carrying out ends with."""
    answer: Answer = call("carry-out", *arguments)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    return answer.err


def edited(path: Path, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a spec whose content was changed."""
    content = json.loads(path.read_text(encoding="utf8"))
    edit(content)
    copy = folder / path.name
    copy.write_text(json.dumps(content), encoding="utf8")
    return copy


def test_carried_out_in_fresh_processes_they_give_what_the_command_gives(written: Written, tmp_path: Path) -> None:
    """From the JSON and a store alone come the run ids and tables of the command, but for what a clock says."""
    command = call(*written.command, "--store", written.folder / "store", "--report", written.folder / "report")
    assert command.code == 0, command.err
    store = tmp_path / "store"
    for kind, folder in ((JobSpec, "artifacts"), (RunSpec, "runs")):
        paths = written.paths(kind)
        done = subprocess.run(
            [sys.executable, "-m", "bench", "carry-out", *map(str, paths), "--store", str(store)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.splitlines()) == {f"{kind.kind}: {store / folder / path.stem}" for path in paths}
    one, other = (RunStore(folder / "runs") for folder in (written.folder / "store", store))
    assert list(one.ids()) == list(other.ids()) == [path.stem for path in written.paths(RunSpec)]
    for run_id in one.ids():
        assert one.examples(run_id).drop_columns(TIMES).equals(other.examples(run_id).drop_columns(TIMES))
        assert one.record(run_id).artifacts == other.record(run_id).artifacts
        assert one.record(run_id).heldout == other.record(run_id).heldout
        assert one.record(run_id).options == other.record(run_id).options
        assert any(other.examples(run_id)["seconds"].to_pylist())


def test_a_spec_says_everything_that_was_left_open(written: Written) -> None:
    """Nothing is left to a preset, a task or a machine: rows, options in force, precision, seeds, folders."""
    run = read_spec(written.path("demo-entropy_exit"))
    job = read_spec(written.path("exits"))
    assert isinstance(run, RunSpec)
    assert isinstance(job, JobSpec)
    for spec in (run, job):
        assert (spec.seed, spec.finetune_seed, spec.rounds, spec.latency_examples) == (3, 3, 2, 2)
        assert (spec.train_rows, spec.eval_rows, spec.max_length, spec.preset) == (40, 8, 64, "smoke")
        assert (spec.backbone, spec.data_dir) == (str((written.folder / "bert").resolve()), None)
        assert spec.options["finetune"]["precision"] in ("no", "bf16")
        assert spec.options["finetune"]["epochs"] == 1
        assert spec.decided_by["finetune"]["backbone"].startswith("sha256:")
        assert set(spec.options) == {"finetune", "exits"}
    assert job.after in run.jobs
    assert run.jobs[-1] == job.id
    assert run.knobs == {"exit_threshold": 0.1} or run.knobs == {"exit_threshold": 0.6}


def test_what_is_written_is_read_back(written: Written, tmp_path: Path) -> None:
    """Specs of both kinds survive their JSON, stages come before what needs them, and no other file is written."""
    specs = read_specs(sorted(written.specs.iterdir(), reverse=True))
    write_specs(specs, tmp_path / "again")
    names = [path.name for path in sorted(written.specs.iterdir())]
    assert [path.name for path in sorted((tmp_path / "again").iterdir())] == names
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    assert read_specs((tmp_path / "again").iterdir()) == read_specs(written.specs.iterdir())
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (written.specs / name).read_bytes()
    made: set[str] = set()
    for spec in specs:
        needed = spec.jobs if isinstance(spec, RunSpec) else (spec.after,) if spec.after else ()
        assert made.issuperset(needed)
        made.add(spec.id)


def test_specs_are_written_whole_or_not_at_all(written: Written, tmp_path: Path) -> None:
    """A folder that holds something is refused before anything is planned; a failure leaves nothing."""
    (tmp_path / "mine.txt").write_text("mine", encoding="utf8")
    answer = call(*written.command, "--specs", tmp_path, "--store", tmp_path / "store")
    assert (answer.code, answer.out) == (2, "")
    assert "holds 'mine.txt'" in answer.err

    def some() -> Any:
        yield read_spec(written.path("finetune"))
        raise InputError("one of them cannot be written")

    with pytest.raises(InputError):
        write_specs(some(), tmp_path / "some")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("flag", ["--fresh", "--time-again"])
def test_specs_do_nothing_again(flag: str, written: Written, tmp_path: Path) -> None:
    """What a spec cannot say is refused."""
    answer = call(*written.command, "--specs", tmp_path / "specs", flag)
    assert (answer.code, answer.out) == (2, "")
    assert "leave --fresh and --time-again out" in answer.err


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda spec: spec.update(version="0.0.1", more=1), f'is of version "0.0.1", but this is {__version__}'),
    "no version": (lambda spec: spec.pop("version"), f"is of version null, but this is {__version__}"),
    "kind": (lambda spec: spec.update(kind="arm"), 'its kind is "arm", not job or run'),
    "listed kind": (lambda spec: spec.update(kind=["run"]), "its kind is a list of 1, not job or run"),
    "unknown": (lambda spec: spec.update(more=1), '"more" is none of its fields'),
    "missing": (lambda spec: spec.pop("seed"), "it has no seed"),
    "text": (lambda spec: spec.update(task=3), "task is 3, but it is a text"),
    "number": (lambda spec: spec.update(seed=-1), "seed is -1, but it is a whole number of 0 or more"),
    "huge": (lambda spec: spec.update(seed=1e99), "seed is 1e+99, but it is a whole number of 0 or more"),
    "text for a number": (lambda spec: spec.update(seed="x"), 'seed is "x", but it is a whole number of 0 or more'),
    "truth": (lambda spec: spec.update(finetune_seed=True), "finetune_seed is true, but it is a whole number"),
    "nothing": (lambda spec: spec.update(rounds=None), "rounds is null, but it is a whole number of 0 or more"),
    "neither": (lambda spec: spec.update(train_rows="all"), 'train_rows is "all", but it is a whole number'),
    "value": (lambda spec: spec["options"]["finetune"].update(epochs=None), "options.finetune.epochs is null"),
    "list": (lambda spec: spec.update(jobs="all"), 'jobs is "all", but it is a list'),
    "object": (lambda spec: spec.update(knobs=[]), "knobs is a list of 0, but it is an object"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_no_spec_is_refused_by_its_name(damage: str, written: Written, tmp_path: Path) -> None:
    """Another version, and a field that is unknown, missing or of another kind, is one line with the file."""
    edit, problem = DAMAGE[damage]
    path = edited(written.path("demo-entropy_exit"), tmp_path, edit)
    line = refused(path, "--store", tmp_path)
    assert line.startswith(f"bench: {path} is ")
    assert problem in line
    assert "write the specs again with bench run --specs" in line


def test_a_file_that_is_no_json_is_refused_by_its_name(tmp_path: Path) -> None:
    """No file, no JSON, and JSON of something else."""
    path = tmp_path / "spec.json"
    assert f"{path} is missing" in refused(path)
    path.write_text("{", encoding="utf8")
    assert f"{path} is damaged" in refused(path)
    path.write_text('{"kind": "run", "kind": "job"}', encoding="utf8")
    assert f'{path} is damaged: field "kind" stands there twice' in refused(path)
    path.write_text("[]", encoding="utf8")
    assert f"{path} is damaged: it holds a list of 0" in refused(path)


def set_option(**values: object) -> Callable[[dict[str, Any]], object]:
    """An edit of the options of fine-tuning."""
    return lambda spec: spec["options"]["finetune"].update(values)


WRONG: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "task": ("demo-entropy_exit", lambda spec: spec.update(task="demos"), "no task is called 'demos'. Did you mean"),
    "split": ("exits", lambda spec: spec.update(split="val"), "task 'demo' has no split 'val'; there are: train"),
    "method": ("demo-entropy_exit", lambda spec: spec.update(method="entropy"), "no method is called 'entropy'"),
    "backend": ("demo-entropy_exit", lambda spec: spec.update(backend="tpu"), "no backend is called 'tpu'"),
    "stage": ("exits", lambda spec: spec.update(stage="exit"), "no stage is called 'exit'. Did you mean 'exits'?"),
    "preset": ("exits", lambda spec: spec.update(preset="slow"), "no preset is called 'slow'; there are: quick"),
    "device": ("exits", lambda spec: spec.update(device="tpu"), "device is 'tpu', but it is cpu or cuda"),
    "length": ("exits", lambda spec: spec.update(max_length=0), "max_length is 0, but backbone 'bert' takes 3 to 64"),
    "seed": ("exits", lambda spec: spec.update(seed=2**32), "seed is 4294967296, but it is 0 to 4294967295"),
    "first seed": ("demo-full", lambda spec: spec.update(finetune_seed=10**9 * 5), "finetune_seed is 5000000000"),
    "rows": ("demo-full", lambda spec: spec.update(train_rows=0, eval_rows=0), "eval_rows is 0, but it is 1 or more"),
    "knob": ("demo-entropy_exit", lambda spec: spec["knobs"].update(phi=1), "has the knob 'phi'; they have: exit_"),
    "knob's value": (
        "demo-entropy_exit",
        lambda spec: spec["knobs"].update(exit_threshold="x"),
        "exit_threshold is 'x', but it takes a number in [0, inf)",
    ),
    "point": (
        "demo-entropy_exit",
        lambda spec: spec["knobs"].update(exit_threshold=1e99),
        "exit_threshold is 1e+99, but the entropy of 2 classes lies in [0, 0.693]",
    ),
    "knob of a stage": ("adapler", lambda spec: spec["knobs"].update(phi=-1), "phi is -1.0, but it lies in [0, 1e+06]"),
    "option": ("demo-full", set_option(x=1), "has the training option 'finetune.x'"),
    "option's value": ("finetune", set_option(epochs=0), "epochs is 0, but it lies in [1, 1000]"),
    "option's kind": ("exits", set_option(epochs=True), "epochs is True, but it takes a whole number"),
    "option's choice": ("exits", set_option(precision="half"), "precision is 'half', but it is one of auto, bf16, no"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_is_refused_by_the_name_of_its_spec(wrong: str, written: Written, tmp_path: Path) -> None:
    """A name that does not exist and a value out of bounds is one line with the spec, and nothing is made."""
    name, edit, problem = WRONG[wrong]
    path = edited(written.path(name), tmp_path, edit)
    line = refused(path, "--store", tmp_path / "store")
    assert line.startswith(f"bench: spec {path.stem}: ")
    assert problem in line
    assert not (tmp_path / "store").exists()


OTHERS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "rows": ("finetune", lambda spec: spec.update(train_rows=30), "finetune.train, finetune.heldout differ"),
    "seed": ("finetune", lambda spec: spec.update(finetune_seed=4), "finetune.seed"),
    "option": ("finetune", set_option(epochs=2), "id differ"),
    "strange option": ("finetune", set_option(x=2), "options.finetune.x differ"),
    "strange knob": ("finetune", lambda spec: spec["knobs"].update(x=2), "knobs.x differ"),
    "no knob": ("adapler", lambda spec: spec["knobs"].pop("phi"), "knobs.phi differ"),
    "evaluation": ("demo-full", lambda spec: spec.update(eval_rows=5), "run.evaluation differ"),
    "rounds": ("demo-full", lambda spec: spec.update(rounds=5), "run.timing differ"),
    "point": ("demo-entropy_exit", lambda spec: spec["knobs"].update(exit_threshold=0.3), "run.knobs differ"),
    "training": ("demo-full", lambda spec: spec.update(train_rows=30), "finetune.train, finetune.heldout differ"),
    "threads": (
        "demo-full",
        lambda spec: spec["decided_by"]["run"].update(hardware=["a CPU", 64]),
        'run.hardware differ; hardware is ["',
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_would_have_another_id_is_not_done(other: str, written: Written, tmp_path: Path) -> None:
    """The line names the parts that differ, and nothing is trained or measured."""
    name, edit, told = OTHERS[other]
    path = edited(written.path(name), tmp_path, edit)
    line = refused(path, "--store", tmp_path / "store")
    assert f"spec {path.stem} would make " in line
    assert told in line
    assert not (tmp_path / "store").exists()


def test_what_is_missing_is_named(written: Written, tmp_path: Path) -> None:
    """A stage or a run whose stage is not stored names the spec to carry out first, and trains nothing."""
    first = written.path("finetune").name
    for name in ("exits", "demo-full", "demo-entropy_exit"):
        line = refused(written.path(name), "--store", tmp_path / "store")
        assert line.endswith(f"carry out {first} first\n")
    assert not (tmp_path / "store").exists()


def test_folders_may_lie_elsewhere(written: Written, tmp_path: Path) -> None:
    """The same backbone in another folder makes the same stage; other weights do not, and that is named."""
    shutil.copytree(written.folder / "bert", tmp_path / "bert")
    moved = edited(written.path("exits"), tmp_path, lambda spec: spec.update(backbone=str(tmp_path / "bert")))
    assert "carry out finetune-" in refused(moved, "--store", tmp_path / "store")
    write_backbone(tmp_path / "other", dropout=0.2)
    other = edited(written.path("exits"), tmp_path, lambda spec: spec.update(backbone=str(tmp_path / "other")))
    assert "finetune.backbone, exits.backbone differ" in refused(other, "--store", tmp_path / "store")


@pytest.mark.parametrize(
    ("given", "identity", "source"),
    [
        (None, "sha256:0123", "minilm"),
        ("org/bert", "org/bert@4567", "org/bert@4567"),
        ("../bert", "sha256:0123", "/models/bert"),
    ],
)
def test_a_backbone_is_the_same_from_everywhere(given: str | None, identity: str, source: str) -> None:
    """A folder is written in full and a hub's model with its commit; the packaged one may lie anywhere."""
    plan: Any = SimpleNamespace(
        settings=SimpleNamespace(backbone=given),
        preset=SimpleNamespace(backbone="minilm"),
        backbone=Backbone(name="bert", folder=Path("/models/bert"), identity=identity),
    )
    assert backbone_source(plan) == source
