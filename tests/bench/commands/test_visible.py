"""Texts of any script, and characters that nobody can see, on pages, in figures, tables, CSV files and the terminal."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.axes import Axes

from analysis.figures.render import render
from analysis.figures.style import columns, shorten
from analysis.pages.report import write_report
from analysis.pages.spreadsheet import spreadsheet
from analysis.pages.templating import TEMPLATES
from analysis.plots import Plot
from analysis.tables.frames import Runs
from analysis.tables.summary import Summary
from bench.console import print_summary
from bench.registry import PLOTS
from bench.visible import visible, visible_line
from tests.support.command_line import call
from tests.support.stored_runs import StoredRun, read_runs, write_runs

OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
UNSEEN: Mapping[str, str] = {
    "directions": OVERRIDES,
    "no width": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e",
    "tags and selectors": "\U000e0001\U000e0041\ufe0f\U000e0100",
    "fillers": "\u115f\u1160\u3164\uffa0\u2800",
    "line ends": "\u2028\u2029\u0085\r\x0b\x0c",
    "controls": "\x00\x07\x08\x1b\x7f\x9b",
    "no characters": "\ud800\udfff\uffff",
}
"""What is never shown as it is."""

SCRIPTS = {
    "chinese": "天气很好",
    "emoji": "\U0001f600\U0001f680",
    "combining": "e\u0301\u0302a\u0489",
    "hebrew": "שלום",
    "arabic": "مرحبا",
    "devanagari": "नमस्ते",
    "thai": "สวัสดี",
    "egyptian": "\U00013000",
    "money": "$x_1^2$ \\frac{a}{b} _y_",
}
"""Texts that are shown as they are."""


@pytest.mark.parametrize("kind", UNSEEN)
def test_what_cannot_be_seen_becomes_a_mark(kind: str) -> None:
    """Each such character stands there by its number, and nothing of it is left; what is seen stays."""
    for letter in UNSEEN[kind]:
        assert visible(f"a{letter}é") == f"a[U+{ord(letter):04X}]é"
    assert visible_line(f"a\t{UNSEEN[kind][0]}\nb") == f"a [U+{ord(UNSEEN[kind][0]):04X}] b"


@pytest.mark.parametrize("kind", SCRIPTS)
def test_what_can_be_seen_stays(kind: str) -> None:
    """Letters of every script, combining marks, symbols and signs of mathematics are left alone."""
    assert visible(SCRIPTS[kind]) == visible_line(SCRIPTS[kind]) == SCRIPTS[kind]


def shown_run(text: str, **more: Any) -> StoredRun:
    """A run that drops words and shows a text of one word piece that is this one."""
    pieces = [{"pieces": ["[CLS]", text, "[SEP]"], "layers": [6, 2, 6]}]
    run = StoredRun("demo-m-1", "m", {"k": text}, examples=8, timed=0, shown=pieces, backbone=text)
    return replace(run, kept=(1.0, *[0.5] * 5), **more)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_figure_takes_every_script_without_a_word(kind: str, tmp_path: Path) -> None:
    """No warning of a missing letter or of mathematics; SVG has the very text, in the tokens and in the labels."""
    runs = read_runs(tmp_path, shown_run(SCRIPTS[kind]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figures = [render(PLOTS[name], PLOTS[name].data(runs)) for name in ("fate", "tokens_per_layer")]
    assert [str(each.message) for each in caught] == []
    text = SCRIPTS[kind].replace("&", "&amp;")
    assert all(text[:11] in svg for svg, _ in figures)
    assert figures[0][0].count(text[:11]) >= 2
    assert all(png.startswith(b"\x89PNG") for _, png in figures)


def test_titles_ticks_and_legends_take_every_script() -> None:
    """Wherever a figure writes, it warns of nothing, and what cannot be seen is a mark there too."""
    names = [*SCRIPTS.values(), "\u202ename", "\x00\x1bname", "\u200bname"]

    def draw(ax: Axes, frame: pd.DataFrame) -> None:
        for name in frame["name"]:
            ax.plot([0, 1], [0, 1], label=shorten(name, 24))
        ax.set_yticks(range(len(frame)), [shorten(name, 16) for name in frame["name"]])
        ax.set_title(frame["name"].iloc[0])
        ax.legend()

    plot = Plot("probe", "", "", data=lambda runs: pd.DataFrame(), draw=draw, height=lambda _: 8.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svg, _ = render(plot, pd.DataFrame({"name": names}))
    assert [str(each.message) for each in caught] == []
    assert not set("".join(names[-3:])) - set("name") & set(svg)
    assert "[U+202E]" in svg
    assert mpl.rcParams["text.parse_math"]  # the caller's settings are as they were


def test_wide_letters_are_cut_as_wide_as_others() -> None:
    """A text of letters that are two wide is cut at half as many; others as before."""
    assert (shorten("天" * 20, 11), columns("天好a")) == ("天" * 5 + "…", 5)
    assert (shorten("a" * 20, 11), shorten("a" * 11, 11)) == ("a" * 10 + "…", "a" * 11)
    assert shorten("天a天a", 6) == "天a天a"


def test_warnings_of_other_kinds_are_heard() -> None:
    """Only warnings of letters are taken back; a mistake in a figure is still told."""

    def draw(ax: Axes, frame: pd.DataFrame) -> None:
        warnings.warn("something else is wrong", UserWarning, stacklevel=1)

    plot = Plot("probe", "", "", data=lambda runs: pd.DataFrame(), draw=draw)
    with pytest.warns(UserWarning, match="something else is wrong"):
        render(plot, pd.DataFrame({"name": ["a"]}))


@pytest.mark.parametrize("kind", UNSEEN)
def test_a_page_shows_no_unseen_character(kind: str, tmp_path: Path) -> None:
    """In texts, labels, titles, attributes, environment, inline figures and files beside it there are marks alone."""
    text = f"a{UNSEEN[kind]}b".encode("utf8", "replace").decode()  # a surrogate cannot be stored
    run = shown_run(text, device=text, environment={"torch": text, "name": text})
    store, ids = write_runs(tmp_path / "runs", run)
    page = write_report(Runs.read(store, ids), tmp_path / "out", source=store.root)
    shown = [path for path in page.parent.rglob("*") if path.suffix in {".html", ".svg", ".csv"}]
    assert len(shown) > 4
    for path in shown:
        assert not set(text) - {"a", "b", "?"} & set(path.read_bytes().decode().replace("\r\n", "\n"))
    assert page.read_text(encoding="utf8").count(visible(text)) > 3


def test_what_a_template_is_given_is_escaped_and_marked() -> None:
    """Values are marked in elements, attributes and titles; markup of ours is not touched."""
    template = TEMPLATES.from_string("<p title='{{ text }}'>{{ text }}</p>{{ own | safe }}{{ 3 }}")
    page = template.render(text="</script>\u202e&", own="<b>\u202e</b>")
    assert page == "<p title='&lt;/script&gt;[U+202E]&amp;'>&lt;/script&gt;[U+202E]&amp;</p><b>\u202e</b>3"


def test_ids_of_runs_are_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside long cells each id stands on a line of its own, and nothing is cut."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ids = [f"demo-adapler-onnxruntime-{number}" for number in (1, 2)]
    print_summary(Summary(("arm", "accuracy", "runs"), (("adapler " * 9, "0.912 [0.9, 0.92]", " ".join(ids)),), ()))
    printed = capsys.readouterr().out
    assert len(printed.splitlines()[0]) <= 60
    assert [line.split()[-2] for line in printed.splitlines() if "demo-" in line] == ids
    print_summary(Summary(("arm", "runs"), (("a" * 50, "b" * 90),), ()))
    printed = capsys.readouterr().out
    assert (printed.count("a"), printed.count("b")) == (51, 90)


def test_a_terminal_is_never_driven_by_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in ids, labels, names and messages arrive as marks, in tables, notes, Markdown and refusals."""
    evil = "\x1b[2J\x1b]0;mine\x07\u202edlrow\nx"
    print_summary(Summary((f"arm{evil}",), ((evil,),), (evil,)))
    printed = capsys.readouterr().out
    assert not set("\x1b\x07\u202e") & set(printed)
    assert printed.count("[U+001B]") == 6
    write_runs(tmp_path / "runs", shown_run(evil, device=evil))
    report = call("report", tmp_path, "--out", tmp_path / "out", "--markdown")
    refusal = call("report", tmp_path / f"absent{evil}", "--out", tmp_path / "out")
    assert (report.code, refusal.code) == (0, 2)
    assert not set("\x1b\x07\u202e") & set(report.out + refusal.err)
    assert "[U+001B]" in report.out
    assert "[U+001B]" in refusal.err


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1", '=HYPERLINK("x")'])
def test_no_cell_of_a_file_is_a_formula(cell: str) -> None:
    """A text that a spreadsheet would calculate is written behind an apostrophe, and comes back as a text."""
    frame = pd.DataFrame({"piece": [cell, "word"], "value": [-1.5, 2.0]})
    rows = list(csv.reader(io.StringIO(spreadsheet(frame))))
    assert rows[1:] == [[f"'{cell}", "-1.5"], ["word", "2.0"]]


@pytest.mark.parametrize("cell", ["-1.5", "+3", "-", "=", "@", "1e-5", "-1e+5", "a=b", "0.5,1", ""])
def test_numbers_and_single_signs_stay(cell: str) -> None:
    """A number is a number also where it is written as a text, and a sign alone calculates nothing."""
    frame = pd.DataFrame({"piece": [cell], "n": [1]})
    assert spreadsheet(frame) == frame.to_csv(index=False)


def test_a_text_of_another_direction_stays_in_its_element(tmp_path: Path) -> None:
    """Labels and names stand in elements of their own, so that a text from right to left turns nothing beside it."""
    store, ids = write_runs(tmp_path / "runs", shown_run(SCRIPTS["hebrew"]))
    page = write_report(Runs.read(store, ids), tmp_path / "out", source=store.root).read_text(encoding="utf8")
    body = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    places = [found.start() for found in re.finditer(SCRIPTS["hebrew"], body)]
    assert len(places) >= 2
    for place in places:
        assert body.rfind("<bdi>", 0, place) > body.rfind("</bdi>", 0, place), body[place - 60 : place + 20]
