"""The table, the choice on held-out data, the comparison of two runs and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.figures.style import series_looks
from analysis.pages.page import section
from analysis.pages.report import require_replaceable, write_report
from analysis.tables import table as arm_table
from analysis.tables.compare import compare, comparison
from analysis.tables.frames import Arm, Runs
from analysis.tables.selection import choices, choose_arms
from analysis.tables.summary import markdown, summary
from analysis.tables.table import table
from bench.cli import bench
from bench.errors import InputError
from bench.registry import METRICS, PLOTS
from bench.store.runs import RunStore
from tests.support.stored_runs import DEVICE, StoredRun, read_runs, sweep, write_runs

HOSTILE = "<script>alert('x')</script> & $y$"


class Links(HTMLParser):
    """Collects whatever a page would load or link to, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag and its attributes."""
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in {"href", "src", "srcset", "data", "action"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep with two seeds on one task and a single run with hostile texts on another."""
    root = tmp_path_factory.mktemp("report")
    hostile = StoredRun(
        "hostile",
        task=f"../{HOSTILE}",
        method="entropy_exit",
        knobs={"exit_threshold": HOSTILE},
        environment={"torch": HOSTILE},
        device=HOSTILE,
        depths=(2, 3),
        synthetic=False,
    )
    store, ids = write_runs(root / "runs", *sweep(), *sweep(seed=2), hostile)
    write_report(Runs.read(store, ids), root / "out", source=store.root)
    return root / "out"


def test_the_table_holds_hand_counts(tmp_path: Path) -> None:
    """Half of the examples leave at depth 6 and half at 3, so the work is 4.5 / 6 and the time 4.5 + 0.5 + 0.01 ms."""
    frame = table(read_runs(tmp_path, *sweep())).set_index("arm")
    row = frame.loc["entropy_exit exit_threshold=0.3"]
    assert row["accuracy"] == pytest.approx(36 / 40)
    assert row["flops_speedup"] == pytest.approx(6 / 4.5)
    assert row["mean_exit_depth"] == 4.5
    assert row["tokens_kept"] == pytest.approx(0.75)
    assert row["wall_speedup"] == pytest.approx(6.01 / 5.01)
    assert row["device"] == DEVICE
    assert (row["examples"], row["timed_examples"]) == (40, 20)
    for name in ("accuracy", "flops_speedup", "wall_speedup", "latency_p50_seconds"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert list(frame.index[:2]) == ["full", "adapler drop_threshold=0.01"]


def test_an_untimed_run_has_no_speed(tmp_path: Path) -> None:
    """Speed metrics of an untimed run are NaN, and no column of the summary shows them."""
    runs = read_runs(tmp_path, StoredRun("only", timed=0))
    assert table(runs)["wall_speedup"].isna().all()
    assert not any("latency" in column for column in summary(runs).columns)
    assert "hardware: nothing was timed" in summary(runs).notes


def test_the_choice_is_made_on_held_out_values(tmp_path: Path) -> None:
    """The fastest held-out point at most 0.01 below the full model's 0.9; 0.89 itself qualifies, 0.84 does not."""
    chosen = choose_arms(read_runs(tmp_path, *sweep()))
    assert {name: arm.label for name, arm in chosen.items()} == {
        "entropy_exit": "entropy_exit exit_threshold=0.5",
        "adapler": "adapler drop_threshold=0.02",
    }


def test_controls_and_gates_that_saw_the_held_out_rows_are_not_chosen(tmp_path: Path) -> None:
    """A run that would be chosen is not where it is a control, or where its gates learnt on the held-out rows."""
    good = {"accuracy": 0.9, "flops_speedup": 3.0}
    run = StoredRun("good", method="m", depths=(2,), heldout=good)
    gates: dict[str, dict[str, Any]] = {"finetune": {"epochs": 1}, "gates": {"label_split": "heldout"}}
    order: dict[str, dict[str, Any]] = {"finetune": {"epochs": 1}, "rewire": {"importance_split": "heldout"}}
    cases = {
        "plain": run,
        "control": replace(run, control_of="adapler"),
        "seen": replace(run, options=gates),
        "ordered": replace(run, options=order),
    }
    chosen = {name: choose_arms(read_runs(tmp_path / name, StoredRun("full"), case)) for name, case in cases.items()}
    assert {name: list(found) for name, found in chosen.items()} == {
        "plain": ["m"],
        "control": [],
        "seen": [],
        "ordered": [],
    }


def test_where_nothing_is_chosen_the_reason_is_told(tmp_path: Path) -> None:
    """Each reason is its own: too weak, no faster, gates that saw the held-out rows, no full model."""
    gates: dict[str, dict[str, Any]] = {"finetune": {"epochs": 1}, "gates": {"label_split": "heldout"}}
    cases = {
        "loses more than 1 point": StoredRun("x", method="m", heldout={"accuracy": 0.8, "flops_speedup": 3.0}),
        "costs as much": StoredRun("x", method="m", heldout={"accuracy": 0.9, "flops_speedup": 1.0}),
        "bench search": StoredRun("x", method="m", options=gates),
        "lacks a full model": StoredRun("x", method="m", seed=7),
    }
    for number, (reason, case) in enumerate(cases.items()):
        (line,) = choices(read_runs(tmp_path / str(number), StoredRun("full"), case))
        assert reason in line
    points = [
        StoredRun("weak", method="m", knobs={"k": 1}, heldout={"accuracy": 0.8, "flops_speedup": 3.0}),
        StoredRun("slow", method="m", knobs={"k": 2}, heldout={"accuracy": 0.9, "flops_speedup": 1.0}),
    ]
    (line,) = choices(read_runs(tmp_path / "both", StoredRun("full"), *points))
    assert "each loses more than 1 point on held-out rows or costs as much as the full model" in line


def test_nothing_is_chosen_without_a_reference(tmp_path: Path) -> None:
    """Without the full model of the same seed there is nothing to be near to."""
    assert choose_arms(read_runs(tmp_path, *sweep()[1:])) == {}
    assert choose_arms(read_runs(tmp_path / "seeds", *sweep()[1:], replace(sweep()[0], seed=7))) == {}


def test_the_summary_and_the_readme_table_say_what_numbers_belong_to(tmp_path: Path) -> None:
    """Hardware, backbone, data, seeds and interval are named, and time columns name the device."""
    runs = read_runs(tmp_path, *sweep(), *sweep(seed=2))
    text = summary(runs)
    assert all(len(row) == len(text.columns) for row in text.rows)
    assert all(DEVICE in column for column in text.columns if "latency" in column or "wall" in column)
    shown = markdown(text)
    for word in (DEVICE, "tiny-bert", "synthetic data made by this project", "seeds: 1, 2", "bootstrap", "validation"):
        assert word in shown
    lines = shown.splitlines()
    cells = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(row) for row in cells} == {len(text.columns) + 2}


def test_markdown_shows_hostile_text_as_text(tmp_path: Path) -> None:
    """A knob with a tag and a pipe opens no tag and splits no cell."""
    text = markdown(summary(read_runs(tmp_path, StoredRun("only", knobs={"k": "<b>|*x*"}))))
    assert r"k=&lt;b>\|\*x\*" in text


def test_windows_of_a_text_are_no_independent_examples(tmp_path: Path) -> None:
    """Where texts are read in several windows, intervals say so, and there is no test that counts windows."""
    runs = (StoredRun("a", windows=4, wrong=range(4)), StoredRun("b", method="m", windows=4, wrong=range(20)))
    store, _ = write_runs(tmp_path / "windows", *runs)
    frame = compare(store, "a", "b").set_index("metric")
    assert frame["mcnemar_p"].isna().all()
    assert frame.loc["accuracy", "better"] == "a"
    notes = [
        " ".join(summary(read_runs(tmp_path / name, *own)).notes)
        for name, own in (("more", runs), ("one", [StoredRun("a")]))
    ]
    assert ["windows of a text" in own for own in notes] == [True, False]


def test_compare_gives_paired_differences(tmp_path: Path) -> None:
    """B minus A with an interval for every metric, and McNemar's p for accuracy: 4 against 9 wrong, nested."""
    store, _ = write_runs(tmp_path, *sweep())
    frame = compare(store, "demo-full-1", "demo-exit-0.8-1").set_index("metric")
    assert set(frame.index) == {name for name in METRICS if name == "accuracy" or not METRICS[name].quality}
    assert frame.loc["accuracy", "difference"] == pytest.approx(-5 / 40)
    assert frame.loc["accuracy", "mcnemar_p"] == pytest.approx(2 / 2**5)
    assert frame.loc["flops_speedup", "difference"] == pytest.approx(3)
    assert (frame["difference_low"] <= frame["difference"] + 1e-12).all()
    assert (frame["difference"] <= frame["difference_high"] + 1e-12).all()
    better = {"accuracy": "", "flops_speedup": "b", "gflops": "b", "latency_p50_seconds": "b"}
    assert {name: frame.loc[name, "better"] for name in better} == better
    text = comparison(store, "demo-full-1", "demo-exit-0.8-1")
    assert all(len(row) == len(text.columns) for row in text.rows)
    assert any(DEVICE in row[0] for row in text.rows)


def test_compare_refuses_what_cannot_be_paired(tmp_path: Path) -> None:
    """Another task, another set of examples, or the run itself."""
    store, _ = write_runs(tmp_path, StoredRun("a"), StoredRun("b", task="other"), StoredRun("c", examples=39))
    with pytest.raises(InputError, match="compare runs of one task"):
        compare(store, "a", "b")
    with pytest.raises(InputError, match="different examples"):
        compare(store, "a", "c")
    with pytest.raises(InputError, match="with itself"):
        compare(store, "a", "a")


def test_the_report_has_every_file(report: Path, tmp_path: Path) -> None:
    """Page, data and every figure that has something to show lie in the folder, and nothing lies outside of it."""
    runs = read_runs(tmp_path, *sweep(), *sweep(seed=2))
    names = {f"demo-{name}" for name, plot in PLOTS.items() if not plot.data(runs).empty}
    assert {"demo-tradeoff", "demo-exit_depths", "demo-latency"} <= names
    assert names <= {path.stem for path in (report / "figures").glob("*.svg")}
    assert names <= {path.stem for path in (report / "figures").glob("*.png")}
    assert names | {"demo-table"} <= {path.stem for path in (report / "data").glob("*.csv")}
    assert [path.name for path in report.parent.iterdir() if path.name != "runs"] == ["out"]
    assert len(pd.read_csv(report / "data" / "demo-table.csv")) == 8


def test_a_series_looks_the_same_in_every_figure(report: Path) -> None:
    """Figures leave arms out, but no series has another's look for that, and no two series share one."""
    frames = [pd.read_csv(path) for path in (report / "data").glob("demo-*.csv")]
    drawn = [series_looks(frame) for frame in frames if "mechanism" in frame]
    assert len(drawn) > 3
    looks = {name: {figure[name] for figure in drawn if name in figure} for name in drawn[0]}
    assert {"adapler", "entropy_exit"} < set(looks)
    assert all(len(each) == 1 for each in looks.values())
    assert len(set().union(*looks.values())) == len(looks)


def test_the_page_loads_nothing(report: Path) -> None:
    """No address with a scheme is loaded or linked, every relative link is a file, and there is no script."""
    page = (report / "index.html").read_text(encoding="utf8")
    links = Links()
    links.feed(page)
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']?\s*(?:[a-z]+:)?//""", page)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert "script" not in links.tags
    files = [link for link in links.found if not link.startswith(("#", "data:"))]
    assert len(files) > 20
    assert all((report / link).is_file() for link in files)
    assert len(links.ids) == len(set(links.ids))


def test_the_page_shows_hostile_text_as_text(report: Path) -> None:
    """A task, a knob, a device and an environment value with a script tag are escaped wherever they stand."""
    page = (report / "index.html").read_text(encoding="utf8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert all("<script" not in path.read_text(encoding="utf8") for path in (report / "figures").glob("*.svg"))


def test_the_page_says_what_numbers_belong_to(report: Path) -> None:
    """Badge, device, backbone, seeds, interval, run ids, and a caption and a name for every figure."""
    page = (report / "index.html").read_text(encoding="utf8")
    assert page.count('<span class="badge">synthetic data made by this project</span>') == 1
    for word in (DEVICE, "tiny-bert", "1, 2", "percentile bootstrap", "demo-exit-0.5-2", "unpadded"):
        assert word in page
    assert page.count("<figure") == page.count("<figcaption") == page.count('<svg role="img" aria-label="')


def test_the_same_runs_give_the_same_report(tmp_path: Path) -> None:
    """Written twice, over itself, every file has the same bytes."""
    store, ids = write_runs(tmp_path / "runs", *sweep()[:3])
    first, second = (
        {path: path.read_bytes() for path in _files(write_report(runs, tmp_path / "out", source=store.root).parent)}
        for runs in (Runs.read(store, ids), Runs.read(store, ids))
    )
    assert first == second
    assert len(first) > 10


def test_the_command_reads_and_measures_every_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench report --markdown` gives page and table from one reading of each run and one table of arms."""
    store, ids = write_runs(tmp_path / "runs", *sweep()[:3])
    readings: list[str] = []
    measured: list[str] = []
    read_examples, measure_arm = RunStore.examples, arm_table._row

    def examples(self: RunStore, run_id: str) -> Any:
        readings.append(run_id)
        return read_examples(self, run_id)

    def row(arm: Arm, runs: Runs, *, chosen: bool) -> dict[str, object]:
        measured.append(arm.label)
        return measure_arm(arm, runs, chosen=chosen)

    monkeypatch.setattr(RunStore, "examples", examples)
    monkeypatch.setattr(arm_table, "_row", row)
    done = CliRunner().invoke(bench, ["report", str(store.root), "--out", str(tmp_path / "out"), "--markdown"])
    assert done.exit_code == 0, done.output
    assert "| arm |" in done.output
    assert sorted(readings) == sorted(ids)
    assert len(measured) == len(set(measured)) == 3


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_folder_that_is_no_report_is_left_alone(tmp_path: Path) -> None:
    """A stranger's file is named, and stays; so does a file in the report's place."""
    store, ids = write_runs(tmp_path / "runs", StoredRun("only"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years", encoding="utf8")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        write_report(Runs.read(store, ids), tmp_path / "mine", source=store.root)
    with pytest.raises(InputError, match="is a file"):
        write_report(Runs.read(store, ids), tmp_path / "mine" / "thesis.tex", source=store.root)
    assert (tmp_path / "mine" / "thesis.tex").read_text(encoding="utf8") == "years"


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report in the place of the folder that one works in, or of one above it, is refused; below it is fine."""
    store, ids = write_runs(tmp_path / "runs", StoredRun("only"))
    (tmp_path / "data" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data" / "here")
    for out in (Path(), Path(".."), Path.cwd(), Path("/")):
        with pytest.raises(InputError, match="is the current folder or holds it"):
            write_report(Runs.read(store, ids), out, source=store.root)
    assert list(Path.cwd().iterdir()) == []
    assert write_report(Runs.read(store, ids), Path("new/../new"), source=store.root).is_file()


def test_a_report_behind_a_link_is_replaced(tmp_path: Path) -> None:
    """The link stays a link, and nothing is left beside it or beside what it leads to."""
    store, ids = write_runs(tmp_path / "runs", StoredRun("only"))
    (tmp_path / "disk" / "report").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "report")
    assert write_report(Runs.read(store, ids), link, source=store.root) == link / "index.html"
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "disk", "link"}
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["report"]


def test_a_report_below_a_file_is_refused(tmp_path: Path) -> None:
    """The place of a report is checked without writing anything: a new folder may be one, what lies in a file not."""
    require_replaceable(tmp_path / "new" / "report")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is a file"):
        require_replaceable(tmp_path / "notes.txt" / "report")


def test_cards_show_what_the_short_table_shows(tmp_path: Path) -> None:
    """The headline columns of the page are the metrics of the terminal's table, in the same words and order."""
    runs = read_runs(tmp_path, *sweep())
    part = section("demo", runs, ())
    cards = tuple(part.headings[index] for index in part.headline)
    assert cards == summary(runs).columns[1:-3]
    assert {"accuracy", "FLOPs speed-up", "mean exit depth"} <= {*cards}


def test_latencies_are_printed_in_milliseconds(tmp_path: Path) -> None:
    """Medians of 6.01 and 8.01 ms are 7.01 on average with a deviation of the root of 2; 2006.01 ms reads 2006."""
    runs = read_runs(
        tmp_path, StoredRun("a"), StoredRun("b", seed=2, overhead=0.002), StoredRun("slow", method="s", overhead=2)
    )
    part = section("demo", runs, ())
    (place,) = [number for number, text in enumerate(part.headings) if text == f"latency p50 (ms) on {DEVICE}"]
    assert [row.values[place].text for row in part.rows] == ["7.01", "2006"]
    assert part.rows[0].values[place].spread == "seeds' SD 1.4"


def test_figures_stand_in_the_plots_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page starts with the trade-off; a plot whose order is lower goes before it, without any other edit."""
    store, ids = write_runs(tmp_path / "runs", *sweep())
    place = re.compile(r'<figure id="demo-(\w+)"')
    page = write_report(Runs.read(store, ids), tmp_path / "out", source=store.root).read_text(encoding="utf8")
    story = ["tradeoff", "wall_tradeoff", "latency_vs_flops", "latency", "exit_depths"]
    assert place.findall(page) == story
    monkeypatch.setitem(PLOTS.entries, "latency", replace(PLOTS["latency"], order=0))
    page = write_report(Runs.read(store, ids), tmp_path / "out", source=store.root).read_text(encoding="utf8")
    assert place.findall(page) == ["latency", *(name for name in story if name != "latency")]


def test_a_failed_report_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder changes by one rename at the end: if writing fails, the earlier report is whole."""
    store, ids = write_runs(tmp_path / "runs", StoredRun("only"))
    page = write_report(Runs.read(store, ids), tmp_path / "out", source=store.root)
    before = page.read_bytes()
    monkeypatch.setattr("analysis.pages.report._page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(Runs.read(store, ids), tmp_path / "out", source=store.root)
    assert page.read_bytes() == before


def test_no_runs_is_an_error(tmp_path: Path) -> None:
    """A report of nothing is refused before anything is written."""
    with pytest.raises(InputError, match="no runs to read"):
        write_report(Runs.read(RunStore(tmp_path), []), tmp_path / "out", source=tmp_path)
    assert not (tmp_path / "out").exists()
