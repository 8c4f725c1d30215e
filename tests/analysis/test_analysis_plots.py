"""Plots: what every one of them must do, and what their frames hold."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation

from analysis.figures.render import inline, render
from analysis.figures.rows import write_rows
from analysis.figures.style import INK, SERIES, WIDTH, method_look, series_looks
from analysis.tables.frames import Runs
from bench.registry import PLOTS
from tests.support.stored_runs import DEVICE, LAYERS, StoredRun, gates, read_runs, subnets, sweep

INT8 = "onnxruntime-int8"
STRANGE = StoredRun("strange", method="entropy_exit", knobs={"exit_threshold": "$\\frac$ <b>&"}, depths=(1, 3))
DROPPING = StoredRun(
    "dropping",
    method="adapler",
    kept=(1, 0.8, 0.8, 0.5, 0.3, 0.1),
    eta=[(0.25,) * LAYERS, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)],
    shown=[{"pieces": ["[CLS]", "$\\frac$", "<b>", "[SEP]"], "layers": [6, 6, 2, 1]}],
)
WITH_CONTROL = [
    StoredRun(f"{method}-{depth}", method, {"phi": depth / 8}, depths=(depth,), wrong=range(wrong), control_of=control)
    for method, control, lost in (("adapler", "", 0), ("random_tokens", "adapler", 6))
    for depth, wrong in ((5, 2 + lost), (3, 4 + lost), (2, 8 + lost))
]
CASES = {
    "a control": [StoredRun("only"), *WITH_CONTROL],
    "tokens dropped": [StoredRun("only"), DROPPING],
    "subnets": subnets(),
    "a sweep": sweep(),
    "two seeds": [*sweep(), *sweep(seed=2)],
    "one run": [StoredRun("only")],
    "no exits": [StoredRun("only"), StoredRun("static", method="static", knobs={"layers": 6})],
    "nothing timed": [replace(run, timed=0) for run in sweep()],
    "two devices": [*sweep(), replace(sweep()[2], run_id="gpu", device="Test GPU")],
    "wide latencies": [StoredRun("slow", overhead=2.0), StoredRun("fast", method="fast", depths=(1,))],
    "two engines": [
        *sweep(),
        *(replace(run, run_id=f"{run.run_id}-int8", backend=INT8) for run in sweep()),
    ],
    "strange knobs": [StoredRun("only"), STRANGE],
}


LENGTH_PLOTS = {"tokens_per_layer", "thresholds", "fate"}
"""Empty where no run drops tokens."""
SUBNET_PLOTS = {"subnet_grid", "widths_per_layer", "grafting", "dynamic_front"}
"""Empty where no model was trained jointly."""
ENGINE_PLOTS = {"agreement"}
"""Empty where all runs are of one engine."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_draws_every_case(name: str, case: str, tmp_path: Path) -> None:
    """Each plot has a frame that survives CSV, and draws it twice to the same bytes; or its frame is empty."""
    plot = PLOTS[name]
    frame = plot.data(read_runs(tmp_path, *CASES[case]))
    assert plot.caption
    if frame.empty:
        assert case == "nothing timed" or name in LENGTH_PLOTS | SUBNET_PLOTS | ENGINE_PLOTS
        assert case != "tokens dropped" or name not in LENGTH_PLOTS
        assert case != "subnets" or name not in SUBNET_PLOTS
        assert case != "two engines" or name not in ENGINE_PLOTS
        return
    assert "run_ids" in frame, "a report says which runs a figure is drawn from"
    back = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    svg, png = render(plot, frame)
    assert svg.count("<text") > 3
    assert "mathdefault" not in svg, "a tick label shows raw mathtext"
    assert png.startswith(b"\x89PNG")
    assert render(plot, back)[0] == svg


@pytest.mark.parametrize("name", PLOTS)
def test_an_axis_of_time_names_the_device(name: str, tmp_path: Path) -> None:
    """Wherever a figure shows time, one of its axes names the device that was read back."""
    plot = PLOTS[name]
    frame = plot.data(
        read_runs(tmp_path, *sweep(), DROPPING, replace(DROPPING, run_id=INT8, backend=INT8), *subnets()[1:])
    )
    figure = Figure()
    axes = figure.subplots()
    plot.draw(axes, frame)
    labels = f"{axes.get_xlabel()} {axes.get_ylabel()}".replace("\n", " ")
    assert (DEVICE in labels) == any(word in labels for word in ("Latency", "Wall-clock"))


def test_the_tradeoff_knows_its_numbers(tmp_path: Path) -> None:
    """Speed-up and accuracy are the runs' own; the front and the chosen points are those worked out by hand."""
    frame = PLOTS["tradeoff"].data(read_runs(tmp_path, *sweep())).set_index("arm")
    assert frame.loc["full", "flops_speedup"] == 1.0
    assert frame.loc["entropy_exit exit_threshold=0.3", "flops_speedup"] == pytest.approx(6 / 4.5)
    assert frame.loc["entropy_exit exit_threshold=0.3", "quality"] == pytest.approx(0.9)
    assert set(frame.index[frame["selected"]]) == {
        "entropy_exit exit_threshold=0.5",
        "adapler drop_threshold=0.02",
    }
    assert set(frame.index[~frame["pareto"]]) == {
        "full",  # beaten by adapler 0.01: faster, and one answer better
        "entropy_exit exit_threshold=0.1",
        "adapler drop_threshold=0.02",
    }


def test_a_sweep_of_two_knobs_has_a_curve_per_value_of_one(tmp_path: Path) -> None:
    """Points are joined along the knob with the most values, and not across the other."""
    runs = [
        StoredRun(f"r{depth}{width}", method="m", knobs={"depth": depth, "width": width}, depths=(depth,))
        for depth in (1, 2, 3)
        for width in (0.5, 1.0)
    ]
    frame = PLOTS["tradeoff"].data(read_runs(tmp_path, *runs))
    assert frame.groupby("curve").size().to_dict() == {"m width=0.5": 3, "m width=1.0": 3}


def test_a_curve_is_of_one_model_where_a_knob_moves_it(tmp_path: Path) -> None:
    """Two models at two points each are two curves, though as many values were trained as are run."""
    runs = [
        StoredRun(
            f"r{way}{point}", method="m", knobs={"way": way, "point": point}, stages={"final": way}, depths=(point,)
        )
        for way in ("a", "b")
        for point in (1, 2)
    ]
    frame = PLOTS["tradeoff"].data(read_runs(tmp_path, *runs))
    assert frame.groupby("curve").size().to_dict() == {"m way=a": 2, "m way=b": 2}


def test_long_names_of_rows_keep_their_values() -> None:
    """A name that is too long loses its knobs' names, so that rows that differ in the last value can be told apart."""
    ax = Figure().subplots()
    name = "flexible width_mult_list=0.25,0.5,0.75,1 exit_threshold=0.3"
    write_rows(ax, [name, "full"], ["", ""])
    assert [text.get_text() for text in ax.texts[::2]] == ["flexible 0.25,0.5,0.75,1 0.3", "full"]


def test_points_are_labelled_by_what_differs(tmp_path: Path) -> None:
    """Values that all points of a curve share are not repeated beside each of them; an only knob is always named."""
    swept = [
        StoredRun(f"r{depth}", method="m", knobs={"gamma": 0.02, "phi": depth / 8}, depths=(depth,))
        for depth in (1, 3, 5)
    ]
    alone = StoredRun("alone", method="other", knobs={"patience": 77, "width": 0.7}, depths=(5, 3), wrong=[1])
    plot = PLOTS["tradeoff"]
    svg, _ = render(plot, plot.data(read_runs(tmp_path, *swept, alone)))
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert {"0.125", "0.375", "0.625", "77, 0.7", "m (phi)", "other (patience, width)"} <= set(texts)
    assert not [text for text in texts if "0.02" in text]


def test_exit_depths_are_shares_of_the_examples(tmp_path: Path) -> None:
    """Shares of an arm add up to 1 and are those of its examples; arms that always leave at one depth are left out."""
    shallow = StoredRun("shallow", method="static_depth", depths=(3, 3))
    frame = PLOTS["exit_depths"].data(read_runs(tmp_path, *sweep(), shallow))
    arm = frame[frame["arm"] == "entropy_exit exit_threshold=0.3"].set_index("depth")
    assert arm["share"].to_dict() == {1: 0, 2: 0, 3: 0.5, 4: 0, 5: 0, LAYERS: 0.5}
    assert frame.groupby("arm")["share"].sum().to_numpy() == pytest.approx(1)
    assert not {"full", "static_depth"} & set(frame["method"])


def test_tokens_per_layer_are_shares_of_the_text(tmp_path: Path) -> None:
    """Means and quantiles of tokens over length, layer by layer; arms that drop none are left out."""
    mixed = replace(DROPPING, run_id="mixed", depths=(LAYERS, 2))
    frame = PLOTS["tokens_per_layer"].data(read_runs(tmp_path, StoredRun("only"), mixed))
    assert set(frame["arm"]) == {"adapler"}
    assert frame["mean"].tolist() == pytest.approx([1, 0.8, 0.8, 0.5, 0.3, 0.1])
    assert frame["p5"].tolist() == frame["p95"].tolist() == pytest.approx(frame["mean"].tolist())
    assert frame["examples"].tolist() == [40, 40, 20, 20, 20, 20], "those that left before a layer do not count"


def test_thresholds_are_shown_once_per_trained_model(tmp_path: Path) -> None:
    """A control that runs another method's model does not repeat its thresholds."""
    runs = read_runs(tmp_path, StoredRun("only"), DROPPING)
    control = replace(runs.records[1], run_id="control", method="random_tokens")
    both = Runs((*runs.records, control), {**runs.frames, "control": runs.frames["dropping"]})
    frame = PLOTS["thresholds"].data(both)
    assert set(frame["arm"]) == {"adapler"}
    assert frame["eta"].tolist() == [0.25] * LAYERS + [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert frame["step"].tolist() == [0] * LAYERS + [1] * LAYERS


def test_fate_is_of_the_first_example(tmp_path: Path) -> None:
    """Each piece with the layers it was live in; nothing where every piece stayed."""
    frame = PLOTS["fate"].data(read_runs(tmp_path, StoredRun("only"), DROPPING))
    assert frame["piece"].tolist() == ["[CLS]", "$\\frac$", "<b>", "[SEP]"]
    assert frame["live_layers"].tolist() == [6, 6, 2, 1]
    whole = replace(DROPPING, run_id="whole", shown=[{"pieces": ["a", "b"], "layers": [6, 6]}])
    assert PLOTS["fate"].data(read_runs(tmp_path / "other", whole)).empty


def test_the_grid_holds_every_subnet(tmp_path: Path) -> None:
    """A cell for each width and depth of each way of training; lists of widths have no cell."""
    mixed = StoredRun("mixed", "static_subnet", {"width_mult": "1,0.5,1", "depth_mult": 0.5}, stages={"final": "f"})
    frame = PLOTS["subnet_grid"].data(read_runs(tmp_path, *subnets(), mixed))
    assert len(frame) == 8
    assert sorted(frame["group"].unique()) == ["static_subnet graft=no", "static_subnet graft=yes"]
    cell = frame.set_index("arm").loc["static_subnet graft=no width_mult=0.5 depth_mult=0.5"]
    assert cell["quality"] == pytest.approx(1 - 8 / 40)
    assert cell["flops_speedup"] == pytest.approx(2)


def test_widths_per_layer_are_shares_of_the_examples(tmp_path: Path) -> None:
    """Half of the examples run the third layer wide; in the fourth only they are left; one-width arms are left out."""
    frame = PLOTS["widths_per_layer"].data(read_runs(tmp_path, *subnets()))
    assert set(frame["method"]) == {"width_gates"}
    assert frame[["layer", "width", "share", "examples"]].to_numpy().tolist() == [
        [1, 0.5, 1, 40],
        [2, 0.5, 1, 40],
        [3, 0.5, 0.5, 40],
        [3, 1, 0.5, 40],
        [4, 1, 1, 20],
    ]


def test_grafting_pairs_what_is_otherwise_the_same(tmp_path: Path) -> None:
    """Each subnet once: one more of 40 answers right at half width, nothing changed at full width; then their mean."""
    frame = PLOTS["grafting"].data(read_runs(tmp_path, *subnets(), *subnets(seed=2)))
    assert frame["width"].isna().tolist() == [False] * 4 + [True]
    assert frame["difference"].iloc[-1] == pytest.approx(1 / 80)
    assert frame["by_seed"].iloc[-1] == "seed 1: +0.0125, seed 2: +0.0125"
    assert frame["without"].iloc[-1] == pytest.approx(frame["without"].iloc[:-1].mean())
    by_width = frame.groupby("width")["difference"].mean()
    assert by_width.to_dict() == pytest.approx({0.5: 1 / 40, 1.0: 0.0})
    assert (frame["with"] - frame["without"]).tolist() == pytest.approx(frame["difference"].tolist())
    uneven = [run for run in subnets(seed=2) if run.knobs.get("graft") != "no"]
    frame = PLOTS["grafting"].data(read_runs(tmp_path / "uneven", *subnets(), *uneven))
    assert (frame["with"] - frame["without"]).tolist() == pytest.approx(frame["difference"].tolist())
    assert set(frame["by_seed"].str.count("seed")) == {1}, "a seed that was trained one way is left out"
    only = [run for run in subnets() if run.knobs.get("graft") != "no"]
    assert PLOTS["grafting"].data(read_runs(tmp_path / "other", *only)).empty


def test_the_front_is_that_of_the_static_subnets(tmp_path: Path) -> None:
    """Gates at 6 / 3.5 of the full cost are held against the best subnet that costs no more: one more answer right.

    Subnets of a model without gates are left out.
    """
    frame = PLOTS["dynamic_front"].data(read_runs(tmp_path, *subnets())).set_index("method")
    gated = frame.loc["width_gates"]
    assert gated["flops_speedup"] == pytest.approx(6 / 3.5)
    assert gated["over"] == pytest.approx(1 / 40)
    assert "width_mult=1 depth_mult=0.5" in gated["rival"]
    assert not gated["pareto"]
    half = {"accuracy": 0.99, "flops_speedup": 1.0}
    other = [replace(run, heldout=half) if run.run_id == "static-yes-0.5-3-1" else run for run in subnets()]
    judged = PLOTS["dynamic_front"].data(read_runs(tmp_path / "judged", *other)).set_index("method")
    assert "width_mult=0.5 depth_mult=0.5" in judged.loc["width_gates"]["rival"], "held-out rows choose the rival"
    assert (frame["pareto"] & frame["static"]).sum() == 2, "full width at either depth"
    assert not frame["arm"].str.contains("graft=no").any()
    ungrafted = gates(graft="no", stages={"final": "ungrafted"})
    both = PLOTS["dynamic_front"].data(read_runs(tmp_path / "both", *subnets(), ungrafted)).set_index("arm")
    rival = both.loc["width_gates graft=no num_gates=0 width_mult_list=0.5,1", "rival"]
    assert "graft=no" in str(rival), "of the same model"
    assert PLOTS["dynamic_front"].data(read_runs(tmp_path / "other", *subnets()[:-1])).empty


def test_agreement_is_with_the_same_model_in_pytorch(tmp_path: Path) -> None:
    """Answers and decisions are compared example by example, with Wilson's interval."""
    torch = StoredRun("torch", "adapler", {"phi": 1.0}, wrong=[1], kept=(1, 1, 0.5, 0.5, 0.5, 0.5), depths=(6,))
    int8 = replace(torch, run_id="int8", backend=INT8, wrong=[0, 1, 2], depths=(6, 6, 6, 5))
    other = replace(torch, run_id="other", knobs={"phi": 2.0}, wrong=range(40))
    frame = PLOTS["agreement"].data(read_runs(tmp_path, other, torch, int8))
    assert set(frame["run_ids"]) == {"int8"}
    # two answers of 40 differ; every fourth example leaves a layer earlier
    assert dict(zip(frame["what"], frame["share"], strict=True)) == {"answer": 38 / 40, "decisions": 0.75}
    assert frame["accuracy_change"].tolist() == pytest.approx([-2 / 40] * 2)
    z, n = 1.959964, 40
    middle, half = 0.95 + z * z / (2 * n), z * (0.95 * 0.05 / n + z * z / (4 * n * n)) ** 0.5
    ends = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    assert [frame["low"].iloc[0], frame["high"].iloc[0]] == pytest.approx(ends)


def test_latency_percentiles_are_those_of_all_samples(tmp_path: Path) -> None:
    """The full model's three rounds of 6.00, 6.01 and 6.02 ms have a median of 6.01 ms."""
    frame = PLOTS["latency"].data(read_runs(tmp_path, StoredRun("only"))).set_index("percentile")
    assert frame.loc[50, "seconds"] == pytest.approx(0.00601)
    assert frame.loc[100, "seconds"] == pytest.approx(0.00602)
    assert frame.loc[50, "samples"] == 60


@pytest.mark.parametrize("name", ["tradeoff", "wall_tradeoff", "latency_vs_flops"])
def test_knob_values_never_overlap(name: str, tmp_path: Path) -> None:
    """Where points lie close together some values are left out, and no two that are written overlap."""
    close = [
        StoredRun(f"r{n}", method="m", knobs={"k": n / 100}, depths=(6,) * n + (5,), wrong=range(n % 3))
        for n in range(1, 30)
    ]
    axes = _drawn(name, read_runs(tmp_path, StoredRun("only"), *close))
    boxes = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
    assert 1 < len(boxes) < len(close)
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def _drawn(name: str, runs: Runs) -> Axes:
    """Draw a figure on axes of the usual size."""
    frame = PLOTS[name].data(runs)
    figure = Figure(figsize=(WIDTH, PLOTS[name].height(frame)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    PLOTS[name].draw(axes, frame)
    return axes


@pytest.mark.parametrize("name", ["tradeoff", "wall_tradeoff", "latency_vs_flops"])
def test_no_text_crosses_a_curve(name: str, tmp_path: Path) -> None:
    """Names and knob values lie inside the axes, beside every curve and every other line."""
    axes = _drawn(name, read_runs(tmp_path, *sweep(), *WITH_CONTROL))
    texts = [text for text in axes.texts if isinstance(text, Annotation)]
    assert len(texts) > 4
    for line in axes.lines:
        if line.get_linestyle() != "None":
            path = line.get_transform().transform_path(line.get_path())
            crossing = [text.get_text() for text in texts if path.intersects_bbox(text.get_window_extent(), False)]
            assert crossing == []


def test_names_stand_at_their_curves_or_in_a_legend(tmp_path: Path) -> None:
    """Short names are written beside the curves, and the legend has the rest; long ones all stand in the legend."""
    short = _drawn("tradeoff", read_runs(tmp_path / "short", StoredRun("only"), *WITH_CONTROL))
    assert {"adapler (phi)", "random_tokens (phi)", "full"} <= {text.get_text() for text in short.texts}
    assert _legend_texts(short) == ["Pareto front"]
    long = _drawn("tradeoff", read_runs(tmp_path / "long", *sweep()))
    assert _legend_texts(long)[:3] == ["adapler (drop_threshold)", "entropy_exit (exit_threshold)", "full"]
    figure = long.figure
    assert figure is not None
    room = figure.get_window_extent()
    for text in _legend(long).get_texts():
        box = text.get_window_extent()
        assert room.x0 <= box.x0 < box.x1 <= room.x1
        assert room.y0 <= box.y0 < box.y1 <= room.y1


def _legend(axes: Axes) -> Legend:
    figure = axes.get_figure(root=True)
    assert figure is not None
    (legend,) = figure.legends
    return legend


def _legend_texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in _legend(axes).get_texts()]


def test_a_method_looks_the_same_in_every_figure(tmp_path: Path) -> None:
    """Its look does not depend on what else is drawn; series of one method share the colour, not the marker."""
    few = series_looks(PLOTS["tradeoff"].data(read_runs(tmp_path / "few", *sweep()[-3:])))
    other = StoredRun("other", "adapler", {"drop_threshold": 0.01}, options={"finetune": {"epochs": 2}})
    many = series_looks(PLOTS["wall_tradeoff"].data(read_runs(tmp_path / "many", *sweep(), other, *WITH_CONTROL)))
    assert few["adapler"] in many.values()
    series = [look for name, look in many.items() if name.startswith("adapler")]
    assert len(series) > 1
    assert len({look.colour for look in series}) == 1
    assert len(set(many.values())) == len(many)


def test_a_control_has_the_colour_of_what_it_controls(tmp_path: Path) -> None:
    """Its markers are hollow and its line is dashed, also where neither method is known here."""
    unknown = [
        replace(run, method=f"my_{run.method}", control_of=run.control_of and "my_adapler") for run in WITH_CONTROL
    ]
    unknown = [replace(run, run_id=f"my-{run.run_id}") for run in unknown]
    looks = series_looks(PLOTS["tradeoff"].data(read_runs(tmp_path, StoredRun("only"), *WITH_CONTROL, *unknown)))
    for prefix in ("", "my_"):
        method, control = looks[f"{prefix}adapler"], looks[f"{prefix}random_tokens"]
        assert (method.colour, method.control, control.control) == (control.colour, False, True)
        assert method.line["linestyle"] != control.line["linestyle"]
        assert method.points["markerfacecolor"] != control.points["markerfacecolor"]
    assert looks["full"].colour == INK


def test_listed_looks_differ() -> None:
    """No two methods, and no two explainers, that are no controls share colour and marker."""
    methods = ("full", "adapler", "width_gates", "flexible", "prefix_exit", "entropy_exit", "patience_exit")
    explainers = ("adapler", "attention", "rollout", "saliency", "integrated_gradients", "kept")
    for names in ((*methods, "static_subnet", "static_depth"), explainers):
        looks = [method_look(name) for name in names]
        assert len({look.marker for look in looks}) == len(names)
    assert len({method_look(name).colour for name in methods}) == len(methods)
    assert method_look("nobody's") == method_look("nobody's")


def test_inline_svg_shares_no_id_and_loads_nothing(tmp_path: Path) -> None:
    """Ids and references carry the prefix, colours are variables, and there is no prologue, style or link."""
    plot = PLOTS["tradeoff"]
    svg, _ = render(plot, plot.data(read_runs(tmp_path, *sweep())))
    page = inline(svg, prefix="p", label="a figure")
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert all(one.startswith("p-") for one in ids)
    assert len(ids) == len(set(ids))
    references = [part.split('"')[0] for part in page.split('href="#')[1:]]
    references += [part.split(")")[0] for part in page.split("url(#")[1:]]
    assert references
    assert set(references) <= set(ids)
    assert "var(--series-1)" in page
    assert not any(word in page for word in ("http", "<style", "<?xml", "DOCTYPE", SERIES[0]))
