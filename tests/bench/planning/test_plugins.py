"""A method, its stage, a task, a metric and a plot, each one new file: everything else finds them by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_files import write_backbone

ROOT = Path(__file__).parents[3]
CONTRACTS = ("test_methods_contract.py", "test_tasks.py", "test_metrics.py", "test_analysis_plots.py")

METHOD = '''
"""Everyone leaves at the same exit."""

import torch

from efficient_bert.engine.decisions import Decision, Policy
from efficient_bert.knobs import Knob
from efficient_bert.methods import Method


def policy(model, knobs):
    """Leave at `plugged_depth`."""

    def decide(view):
        return Decision(leave=torch.ones(view.logits.shape[1], dtype=torch.bool)) if len(view.logits) else Decision()

    return Policy(decide, exits=(int(knobs["plugged_depth"]),))


PLUGGED = Method(
    name="plugged_method",
    summary="everyone leaves at the same exit",
    source="tests",
    stage="plugged_stage",
    policy=policy,
    knobs=(Knob("plugged_depth", "the exit, from 1", 1, low=1, high=1, points=(1,)),),
)
'''
STAGE = '''
"""The exits' model as it is."""

from efficient_bert.knobs import Knob
from efficient_bert.training import Stage, Trained
from efficient_bert.training.exits import EXITS

PLUGGED = Stage(
    name="plugged_stage",
    summary="the exits' model as it is",
    train=lambda context: Trained(context.model.cpu()),
    options=(Knob("nothing", "changes nothing", 0),),
    after=EXITS,
)
'''
TASK = '''
"""Is the film fine or dull?"""

from bench.tasks import Task


def generate(seed):
    """Alternating classes."""
    rows = [{"text": f"film {n} was {('dull', 'fine')[n % 2]}", "label": n % 2} for n in range(40)]
    return {
        split: [{"example_id": f"{split}-{n}", **row} for n, row in enumerate(rows)] for split in ("train", "test")
    }


PLUGGED = Task(
    name="plugged_task",
    summary="synthetic: is the film fine or dull?",
    source="tests",
    labels=("dull", "fine"),
    metrics=("accuracy", "plugged_metric"),
    max_length=16,
    evaluation="test",
    generate=generate,
)
'''
METRIC = '''
"""The share of wrong answers."""

from dataclasses import replace

from bench.metrics.ratio import columns, ratio_metric

PLUGGED = replace(
    ratio_metric(
        "plugged_metric",
        "share of wrong answers",
        terms=lambda examples: columns(~examples["correct"].to_numpy(), 1.0),
        higher_is_better=False,
    ),
    quality=True,
)
'''
PLOT = '''
"""How many examples each arm answered."""

import pandas as pd

from analysis.plots import Plot


def data(runs):
    """A row per arm."""
    rows = [(arm.label, sum(len(runs.frames[one]) for one in arm.run_ids), " ".join(arm.run_ids)) for arm in runs.arms]
    return pd.DataFrame(rows, columns=["arm", "examples", "run_ids"])


PLUGGED = Plot(
    name="plugged_plot",
    summary="answers per arm",
    caption="How many examples each arm answered.",
    data=data,
    draw=lambda ax, frame: ax.barh([str(n) for n in range(len(frame))], frame["examples"]),
)
'''
PLUGINS = {
    "efficient_bert/training/plugged.py": STAGE,
    "efficient_bert/methods/plugged.py": METHOD,
    "bench/tasks/plugged.py": TASK,
    "bench/metrics/plugged.py": METRIC,
    "analysis/plots/plugged.py": PLOT,
}


def copy_project(folder: Path) -> Path:
    """The four packages and the tests, as they are."""
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("efficient_bert", "bench", "analysis", "eraser_eval", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(project: Path, *command: str) -> str:
    """What a Python command prints that sees the copy instead of the checkout."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bench(project: Path, *command: str) -> str:
    """What the copy's command line prints."""
    return run(project, "-c", "from bench.cli import main; main()", *command)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with five new files, and nothing else changed."""
    folder = copy_project(tmp_path_factory.mktemp("plugins"))
    for path, source in PLUGINS.items():
        (folder / path).write_text(source, encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def output(project: Path) -> str:
    """What `bench run` prints for the new task with the new method."""
    backbone = write_backbone(project / "bert")
    places = ("--backbone", str(backbone), "--store", str(project), "--report", str(project / "report"))
    return bench(project, "run", "--task", "plugged_task", "--method", "plugged_method", "--preset", "smoke", *places)


def test_listings_name_them(project: Path) -> None:
    """`bench list` has a line for each of the four."""
    listed = bench(project, "list")
    for name in ("plugged_task", "plugged_method", "plugged_metric", "plugged_plot"):
        assert f"  {name} " in listed


def test_help_names_them(project: Path) -> None:
    """`bench run --help` names the knob of the method that is named, and the option of its stage."""
    text = bench(project, "run", "--method", "plugged_method", "--help")
    assert "--plugged-depth " in text
    assert "plugged_stage nothing" in text


def test_they_run_and_are_reported(project: Path, output: str) -> None:
    """A run of the new method on the new task shows the new metric in its table and the new plot on its page."""
    assert "plugged_method plugged_depth=1" in output
    assert "plugged metric" in output
    page = (project / "report" / "index.html").read_text(encoding="utf8")
    assert "How many examples each arm answered." in page
    assert (project / "report" / "figures" / "plugged_task-plugged_plot.svg").is_file()
    header = (project / "report" / "data" / "plugged_task-table.csv").read_text(encoding="utf8").splitlines()[0]
    assert "plugged_metric" in header


def test_they_are_compared(project: Path, output: str) -> None:
    """`bench compare` pairs the new method with the full model by the new metric."""
    runs = sorted(path.name for path in (project / "runs").iterdir())
    assert [name.rpartition("-")[0] for name in runs] == ["plugged_task-full", "plugged_task-plugged_method"]
    assert "plugged metric" in bench(project, "compare", *runs, "--store", str(project))


def test_they_are_under_the_contract_tests(project: Path) -> None:
    """The tests of every method, task, metric and plot run for the new ones, and pass."""
    present = [path.relative_to(project).as_posix() for name in CONTRACTS for path in (project / "tests").rglob(name)]
    assert len(present) == len(CONTRACTS)
    text = run(project, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "plugged", *present)
    passed = [line for line in text.splitlines() if " PASSED " in line and "plugged" in line]
    assert {name for name in present if any(line.startswith(name) for line in passed)} == set(present)


TWICE = {
    "method": "efficient_bert/methods/full.py",
    "stage": "efficient_bert/training/exits.py",
    "task": "bench/tasks/demo.py",
    "metric": "bench/metrics/accuracy.py",
    "plot": "analysis/plots/latency.py",
}


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    """Two entries of one name are an error that names both modules, in each of the folders."""
    project = copy_project(tmp_path)
    for path in TWICE.values():
        shutil.copy(project / path, (project / path).with_name("zz_copy.py"))
    code = """if True:
        from bench import registry
        from bench.errors import InputError
        for found in (registry.METHODS, registry.STAGES, registry.TASKS, registry.METRICS, registry.PLOTS):
            try:
                list(found)
            except InputError as error:
                print(error)"""
    for line, (kind, path) in zip(run(project, "-c", code).splitlines(), TWICE.items(), strict=True):
        package = ".".join(Path(path).parts[:-1])
        assert f"two {kind}s are called {Path(path).stem!r}" in line
        assert f"{package}.{Path(path).stem}" in line
        assert f"{package}.zz_copy" in line
