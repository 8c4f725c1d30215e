"""What the documentation shows: its commands are real, its links lead somewhere, and no page is too long."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bench.cli import bench
from bench.planning.presets import PRESETS
from bench.registry import METHODS, STAGES, TASKS, all_knobs, stages_of

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *DOCS]
MOST_BYTES = {"README.md": 12_288, "CONTRIBUTING.md": 6_144}
"""Of a page; others may have 40 KB."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
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
    knobs = {knob.name: knob for method in METHODS.values() for knob in all_knobs(method)}
    options = {
        f"{stage.name}__{knob.name}": knob
        for method in METHODS.values()
        for stage in stages_of(method)
        for knob in stage.options
    }
    for parameter, value in given.items():
        if value is not None and parameter in options:
            options[parameter].parse(value)
        if value is not None and parameter in knobs:
            for one in value.split(knobs[parameter].separator):
                knobs[parameter].parse(one)
    assert given.get("preset", "quick") in PRESETS


def targets(text: str) -> list[tuple[str, str]]:
    """The (file, anchor) pairs that a page links to or shows; the file is empty for the page itself."""
    links = [inline or attribute for inline, attribute in LINK.findall(FENCED.sub("", text))]
    return [link.partition("#")[::2] for link in links if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for line in FENCED.sub("", text).splitlines() if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_command_shown_is_a_real_one(page: Path) -> None:
    """Each `bench` command parses: its flags, names, knobs and values exist."""
    for arguments in commands(page.read_text(encoding="utf8")):
        if arguments[-1] not in {"--help", "-h", "--version"}:
            check(arguments)


def test_the_defaults_shown_are_those_of_the_presets() -> None:
    """Each cell is a preset's value, and in brackets those of tasks that differ; what a preset sets has a row."""
    text = (ROOT / "docs" / "methods" / "adapler.md").read_text(encoding="utf8")
    (table,) = re.findall(r"<!-- defaults -->\n(.*?)<!-- /defaults -->", text, re.DOTALL)
    header, _, *rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    adapler = METHODS["adapler"]
    known = {f"{stage.name}.{knob.name}": knob for stage in stages_of(adapler) for knob in stage.options}
    known |= {knob.name: knob for knob in STAGES[adapler.stage].knobs}
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


@each_page
def test_every_target_shown_is_a_real_one(page: Path) -> None:
    """Each `make` command names a target of the Makefile."""
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE)
    shown = [word for words in commands(page.read_text(encoding="utf8"), "make") for word in words if "=" not in word]
    assert set(shown) <= set(known)


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link and figure exists in the repository, and each anchor is a heading of its page."""
    missing = []
    for name, anchor in targets(page.read_text(encoding="utf8")):
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf8"))):
            missing.append(f"{name}#{anchor}")
    assert missing == []


@each_page
def test_no_page_is_too_long(page: Path) -> None:
    """The front page and the guide for contributors are short, and no page is longer than a reader can take."""
    assert page.stat().st_size <= MOST_BYTES.get(page.relative_to(ROOT).as_posix(), 40_960)


def test_every_page_is_within_two_clicks() -> None:
    """Each page of the documentation is linked from README, or from a page that README links to."""
    reached, seen = {ROOT / "README.md"}, set[Path]()
    for _ in range(2):
        for page in reached - seen:
            links = {(page.parent / name).resolve() for name, _ in targets(page.read_text(encoding="utf8")) if name}
            seen.add(page)
            reached = reached | {link for link in links if link.suffix == ".md"}
    assert set(DOCS) <= reached


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


def test_links_and_figures_are_read() -> None:
    """Markdown links, figures, anchors and HTML attributes are read; addresses and code are left out."""
    text = '[a](docs/a.md#top) ![b](b.svg "B") <img src="c.png"> [d](https://e.org) [e](#here)\n```\n[f](f)\n```\n'
    assert targets(text) == [("docs/a.md", "top"), ("b.svg", ""), ("c.png", ""), ("", "here")]


def test_anchors_are_those_of_headings() -> None:
    """A heading's anchor is in small letters, with hyphens and without punctuation; code has no headings."""
    assert anchors("# A `b`, c!\n```\n# no\n```\n## Add a method\n") == {"a-b-c", "add-a-method"}
