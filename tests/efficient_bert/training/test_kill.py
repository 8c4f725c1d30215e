"""A killed run leaves nothing half-written, and the same command goes on from where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from bench.registry import METHODS
from bench.store.runs import RunStore
from tests.support.tiny_files import write_backbone, write_sst2

ROOT = Path(__file__).parents[3]
DRIVER = """
import os, signal, sys
from pathlib import Path
import bench.runs.evaluation as evaluation, bench.store.runs as store, efficient_bert.training.loop as loop
import efficient_bert.training.adapler.saliency as saliency
from bench.cli import main

log, target, *arguments = sys.argv[1:]
loop.CHECKPOINT_SECONDS = 0.0
saliency.SHARD = 16
evaluation.CHUNK = 8
seen = {}

def watched(kind, owner, name, note, torn=lambda *args: None):
    original = getattr(owner, name)
    def wrapper(*args, **kwargs):
        work = note(*args)
        if work is not None:
            seen[kind] = seen.get(kind, 0) + 1
            if f"{kind} {seen[kind]}" == target:
                torn(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            with open(log, "a", encoding="utf8") as file:
                print(kind, work, file=file)
        return original(*args, **kwargs)
    setattr(owner, name, wrapper)

def shard(path, schema, tables):
    return "shard" if path.name.startswith("shard") else "whole"

def evaluated(arm, rows, readings):
    name = rows[0]["example_id"]
    return name if name.startswith("validation") else "heldout"

half = lambda content, path, *rest: Path(path).write_bytes(b"half")
watched("step", loop.Trainer, "step", lambda trainer, *batch: trainer.progress.step)
watched("checkpoint", loop, "save_file", lambda tensors, path: Path(path).name, half)
watched("saliency", saliency, "write_tables", shard)
watched("chunk", evaluation, "_read_passes", evaluated)
watched("table", evaluation.pq, "write_table", lambda table, path: Path(path).name, half)
watched("record", store, "write_aside", lambda path, text: path.name)
main(arguments)
"""
"""Runs the command line, notes its work in a file, and is killed just before the work that `target` names.

Checkpoints are written at every step and chunks hold 8 examples, so that there is much to be killed in.
"""

EPOCHS, BATCH, TRAIN, DEV, HELDOUT = 2, 8, 50, 20, 2
STEPS = EPOCHS * -(-(TRAIN - HELDOUT) // BATCH)


class Attempts:
    """Attempts at one command, all with the same store."""

    def __init__(self, folder: Path, inputs: Path, *, method: str = "entropy_exit") -> None:
        self.folder = folder
        self.store = RunStore(folder / "runs")
        places = ["--backbone", str(inputs / "bert"), "--data-dir", str(inputs / "sst2"), "--store", str(folder)]
        stage = METHODS[method].stage
        sizes = [f"--{name}-epochs={EPOCHS}" for name in ("finetune", stage)]
        sizes += [f"--{name}-batch-size={BATCH}" for name in ("finetune", stage)]
        self.command = ["run", "--task", "sst2", "--device", "cpu", *places, "--report", str(folder / "report"), *sizes]
        self.command += ["--method", method, "--latency-examples", "0"]
        self.command += ["--exit-threshold", "0.6"] if method == "entropy_exit" else []

    def attempt(self, target: str = "") -> dict[str, list[str]]:
        """Run until the `target` is about to be done, where the process is killed; what was done until then."""
        log = self.folder / "log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("", encoding="utf8")
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(log), target, *self.command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if target else 0), done.stderr
        work: dict[str, list[str]] = {}
        for line in log.read_text(encoding="utf8").splitlines():
            kind, _, note = line.partition(" ")
            work.setdefault(kind, []).append(note)
        return work

    def results(self) -> dict[str, object]:
        """Everything a finished store says about examples and metrics, run by run."""
        records = [self.store.record(run_id) for run_id in self.store.ids()]
        return {
            record.run_id: (self.store.examples(record.run_id).to_pylist(), record.metrics, record.heldout)
            for record in records
        }

    def progress(self) -> dict[str, int]:
        """The progress stored in the checkpoint of the stage under way."""
        (path,) = self.folder.glob("artifacts/.*.partial/checkpoint.safetensors")
        with safe_open(path, framework="pt") as stored:
            progress: dict[str, int] = json.loads(stored.metadata()["progress"])
        return progress


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone and a data set."""
    folder = tmp_path_factory.mktemp("inputs")
    write_backbone(folder / "bert")
    write_sst2(folder / "sst2", train=TRAIN, dev=DEV)
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    """A run that nobody kills."""
    attempts = Attempts(tmp_path_factory.mktemp("undisturbed"), inputs)
    work = attempts.attempt()
    assert [int(step) for step in work["step"]] == [*range(STEPS), *range(STEPS)]
    return attempts


def test_a_run_killed_again_and_again_ends_like_one_never_killed(
    undisturbed: Attempts, inputs: Path, tmp_path: Path
) -> None:
    """Kills in a step, in a checkpoint, in a chunk, in a table and before a record cost only what was under way."""
    attempts = Attempts(tmp_path / "store", inputs)

    work = attempts.attempt("step 4")
    assert work["step"] == ["0", "1", "2"]
    assert attempts.progress()["step"] == 3
    assert list(attempts.store.ids()) == []

    work = attempts.attempt("checkpoint 3")  # its step is lost, for the checkpoint is torn
    assert work["step"] == ["3", "4", "5"]
    assert attempts.progress()["step"] == 5
    assert list(attempts.store.ids()) == []

    work = attempts.attempt("chunk 4")  # three chunks of the full model are kept
    assert work["step"] == [str(step) for step in [*range(5, STEPS), *range(STEPS)]]
    assert work["chunk"] == ["heldout", "validation-0", "validation-8"]
    assert list(attempts.store.ids()) == []

    work = attempts.attempt("table 3")  # two more chunks are kept; the next arm's second one is torn
    assert "step" not in work
    assert work["chunk"] == ["validation-16", "heldout", "validation-0"]
    assert list(attempts.store.ids()) == []

    work = attempts.attempt("record 1")  # everything is evaluated, and nothing is stored
    assert work["chunk"] == ["validation-0", "validation-8", "validation-16"]
    assert list(attempts.store.ids()) == []

    work = attempts.attempt()
    assert not {"step", "chunk"} & set(work)
    assert attempts.results() == undisturbed.results()


def test_a_finished_run_is_not_done_again(undisturbed: Attempts) -> None:
    """Once a run is stored the same command computes nothing."""
    before = undisturbed.results()
    assert undisturbed.attempt() == {}
    assert undisturbed.results() == before
    assert len(before) == 2


def test_adapler_goes_on_from_any_stage(inputs: Path, tmp_path: Path) -> None:
    """Killed between shards of saliency, before the whole file, and while thresholds learn: nothing is done twice."""
    whole = Attempts(tmp_path / "whole", inputs, method="adapler")
    whole.attempt()
    attempts = Attempts(tmp_path / "store", inputs, method="adapler")

    work = attempts.attempt("saliency 3")
    assert work["step"] == [str(step) for step in range(STEPS)]
    assert work["saliency"] == ["shard", "shard"]

    work = attempts.attempt("saliency 2")
    assert "step" not in work
    assert work["saliency"] == ["shard"]

    work = attempts.attempt("step 5")
    assert work["saliency"] == ["whole"]
    assert work["step"] == ["0", "1", "2", "3"]
    assert attempts.progress()["step"] == 4
    assert list(attempts.store.ids()) == []

    work = attempts.attempt()
    assert "saliency" not in work
    assert work["step"] == [str(step) for step in range(4, STEPS)]
    assert attempts.results() == whole.results()
