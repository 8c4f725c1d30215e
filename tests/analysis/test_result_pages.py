"""The pages of stored results: written from the stored runs, byte for byte, and nothing else stands in them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from analysis.result_pages import read_experiment, write_pages
from bench.errors import InputError

ROOT = Path(__file__).parents[2]
EXPERIMENTS, RESULTS, PAGES = ROOT / "experiments", ROOT / "results", ROOT / "docs" / "results"

EXPERIMENT = """
title = "A title"
order = 1
question = "Is it so?"
answer = "Yes."
finding = "It is so."
details = "Much was done."
commands = "bench run --task demo"
parts = []
"""


def test_pages_and_figures_are_those_of_the_stored_runs(tmp_path: Path) -> None:
    """Every page and figure is written again from the stored runs, byte for byte, at the same place."""
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.svg"))
    write_pages(EXPERIMENTS, tmp_path / "results", tmp_path / "docs" / "results")
    for kept, again, pattern in (
        (PAGES, tmp_path / "docs" / "results", "*.md"),
        (RESULTS, tmp_path / "results", "*.svg"),
    ):
        names = {path.relative_to(kept) for path in kept.rglob(pattern)}
        assert names == {path.relative_to(again) for path in again.rglob(pattern)}
        different = [str(name) for name in sorted(names) if (kept / name).read_bytes() != (again / name).read_bytes()]
        assert different == []


def test_results_are_few_files() -> None:
    """Stored results are two files for each part, figures are vectors, and no run's folder is left."""
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert len(files) <= 80
    assert {path.suffix for path in files} <= {".jsonl", ".parquet", ".json", ".svg"}
    assert not list(RESULTS.rglob("record.json"))


def test_every_stored_result_has_a_page() -> None:
    """Each folder of results belongs to one experiment, and each experiment's results are there."""
    named = [
        part.results
        for path in EXPERIMENTS.glob("*.toml")
        if path.name != "overview.toml"
        for part in read_experiment(path).parts
    ]
    stored = {path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.parquet")}
    assert sorted(named) == sorted(stored)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('question = "Is it so?"\n', ""),
        ("order = 1", "order = 1\ncolour = 3"),
        ("parts = []", 'parts = [{ title = "no results" }]'),
        ("order = 1", "order ="),
    ],
)
def test_a_wrong_experiment_is_one_line(tmp_path: Path, old: str, new: str) -> None:
    """A field that lacks, a field too many, a part without results and no TOML are refused with the file's name."""
    path = tmp_path / "odd.toml"
    path.write_text(EXPERIMENT, encoding="utf8")
    assert read_experiment(path).answer == "Yes."
    path.write_text(EXPERIMENT.replace(old, new), encoding="utf8")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_experiment(path)
