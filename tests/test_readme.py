"""What README.md shows: its commands are real and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from analysis import rationale_overview
from analysis.frames import Runs
from analysis.summary import markdown, summary
from bench.cli import bench
from bench.comparison_files import OVERVIEW
from bench.presets import PRESETS
from bench.registry import METHODS, TASKS
from bench.store import RunStore

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)|\b(?:src|href|srcset)=\"([^\"]+)\"")


def commands(text: str, program: str = "bench") -> list[list[str]]:
    """The arguments of every command of a program in the shell blocks and the tables of a page."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += [code for line in text.splitlines() if line.startswith("|") for code in CODE.findall(line)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == [program]]


def check(arguments: list[str]) -> None:
    """Parse a command as the program would, knob values and preset included, without running it."""
    group = click.Context(bench, info_name="bench")
    name, command, rest = bench.resolve_command(group, [*arguments])
    assert command is not None
    given = command.make_context(name, rest, parent=group).params
    knobs = {knob.name: knob for method in METHODS.values() for knob in method.all_knobs}
    options = {
        f"{stage.name}__{knob.name}": knob
        for method in METHODS.values()
        for stage in method.stage.chain
        for knob in stage.options
    }
    for parameter, value in given.items():
        if value is not None and parameter in options:
            options[parameter].parse(value)
        if value is not None and parameter in knobs:
            for one in value.split(knobs[parameter].separator):
                knobs[parameter].parse(one)
    assert given.get("preset", "quick") in PRESETS


def targets(text: str) -> list[str]:
    """The files that a page links to or shows."""
    found = [inline or attribute for inline, attribute in LINK.findall(text)]
    return [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_a_real_one(page: Path) -> None:
    """Each `bench` command parses: its flags, names, knobs and values exist."""
    for arguments in commands(page.read_text(encoding="utf8")):
        if arguments[-1] not in {"--help", "-h", "--version"}:
            check(arguments)


def test_the_defaults_shown_are_those_of_the_presets() -> None:
    """Each cell is a preset's value, and in brackets those of tasks that differ; what a preset sets has a row."""
    text = (ROOT / "README.md").read_text(encoding="utf8")
    (table,) = re.findall(r"<!-- defaults -->\n(.*?)<!-- /defaults -->", text, re.DOTALL)
    header, _, *rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    adapler = METHODS["adapler"]
    known = {f"{stage.name}.{knob.name}": knob for stage in adapler.stage.chain for knob in stage.options}
    known |= {knob.name: knob for knob in adapler.stage.knobs}
    flags = {f"--{name.replace('.', '-').replace('_', '-')}": name for name in known}
    shown = {flags[flag]: dict(zip(header[1:], cells, strict=True)) for flag, *cells in rows}
    assert header[1:] == ["quick", "paper"]
    for preset in map(PRESETS.__getitem__, header[1:]):
        for task in TASKS:
            found = {**preset.on(task).options, **preset.on(task).knobs}
            assert {name for name in found if name in known} <= set(shown)
            for name, cells in shown.items():
                usual, *others = re.split(r"[(),]", cells[preset.name])
                differing = dict(re.findall(r"`(\w+)`: (\S+)", " ".join(others)))
                value = known[name].parse(differing.get(task, usual.strip()))
                assert value == found.get(name, known[name].default), (name, preset.name, task)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_shown_is_a_real_one(page: Path) -> None:
    """Each `make` command names a target of the Makefile."""
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE)
    shown = [word for words in commands(page.read_text(encoding="utf8"), "make") for word in words if "=" not in word]
    assert set(shown) <= set(known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """Each relative link and figure exists in the repository."""
    missing = [link for link in targets(page.read_text(encoding="utf8")) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize(
    "line",
    [
        "bench run --task demo --no-such-flag 3",
        "bench run --task sst-2",
        "bench run --task demo --method no_such_method",
        "bench run --task demo --exit-threshold high",
        "bench run --task demo --preset fast",
        "bench train --task demo --finetune-epochs 0",
        "bench run",
        "bench show",
    ],
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    """A command with a wrong flag, name or value is extracted from a page and refused."""
    (arguments,) = commands(f"Text.\n\n```sh\n{line}  # comment\n```\n")
    with pytest.raises((click.ClickException, ValueError, AssertionError)):
        check(arguments)


def test_links_and_figures_are_found() -> None:
    """Markdown links, figures and HTML attributes are read; addresses and anchors are left out."""
    text = '[a](docs/a.md#top) ![b](b.svg "B") <img src="c.png"> [d](https://example.org) [e](#here)'
    assert targets(text) == ["docs/a.md", "b.svg", "c.png"]


RESULTS = re.compile(r"<!-- results (\S+) -->\n(.*?)\n<!-- /results -->", re.DOTALL)


def test_result_tables_are_those_of_the_stored_runs() -> None:
    """Each results table in README is what `bench report --markdown` makes of the folder that it names."""
    found = RESULTS.findall((ROOT / "README.md").read_text(encoding="utf8"))
    assert found
    for folder, table in found:
        if (ROOT / folder / OVERVIEW).is_file():
            text = rationale_overview.summary(ROOT / folder)
        else:
            store = RunStore(ROOT / folder)
            text = summary(Runs.read(store, store.ids()))
        assert table.strip() == markdown(text).strip()
