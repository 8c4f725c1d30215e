"""The false-positive report: the numbers of a comparison of rationales, as one page that needs nothing else.

    OUT/index.html                inline CSS, SVG and the script that sorts documents; no request
    OUT/figures/<metric>.svg|png  the curves over layers

It reads what `bench rationales` wrote to the same folder: summary.json, table.parquet, documents.parquet,
words.parquet, shown.jsonl.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import escape

from analysis.figures.rationale_curves import LAYERS, Curve, curves
from analysis.figures.render import inline, render
from analysis.pages.page import FigureView
from analysis.pages.templating import TEMPLATES
from analysis.rationales.texts import DocumentView, document_views
from analysis.tables.summary import code
from bench.rationales.files import AVERAGE, PEOPLE, read_frame, read_lines, summary_in
from bench.store.runs import write_aside

REFERENCE = "adapler"

WORDS = 25
"""Words in the list of those that are falsely kept most."""

SEEN = 5
"""Occurrences below which a word's share says nothing."""

GROUPS = 4
"""Groups of documents by length."""


@dataclass(frozen=True)
class Agreement:
    """The numbers of one operating point.

    Attributes:
        summary: what the numbers belong to.
        table: a row per method, layer and metric.
    """

    summary: Mapping[str, Any]
    table: pd.DataFrame

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods in the order in which the user named them."""
        return tuple(self.summary["methods"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the metrics that the table has."""
        return tuple(self.summary["metrics"])

    @cached_property
    def cells(self) -> Mapping[tuple[str, str, int], Mapping[str, Any]]:
        """Map (method, metric, layer) to its row of the table."""
        keys = zip(self.table["method"], self.table["metric"], self.table["layer"], strict=True)
        return dict(zip(keys, records(self.table), strict=True))

    def cell(self, method: str, metric: str) -> Mapping[str, Any]:
        """Return the row of the mean over layers."""
        return self.cells[method, metric, AVERAGE]


@dataclass(frozen=True)
class Comparison(Agreement):
    """The stored results of one comparison.

    Attributes:
        documents: a row per method, layer and document.
        words: a row per method, layer, part of speech and word.
        texts: the documents whose texts may be shown.
    """

    documents: pd.DataFrame
    words: pd.DataFrame
    texts: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Comparison:
        """Read a folder that `bench rationales` wrote.

        Raises:
            InputError: there is no finished comparison in it.
        """
        summary = summary_in(folder)
        return cls(
            summary=summary,
            table=read_frame(folder / "table.parquet"),
            documents=read_frame(folder / "documents.parquet"),
            words=read_frame(folder / "words.parquet"),
            texts=tuple(read_lines(folder / "shown.jsonl")),
        )

    @cached_property
    def layer(self) -> int:
        """Return the layer whose documents and words are shown: where what AdapLeR keeps agrees best with people."""
        rows = self.table[(self.table["metric"] == "token_f1") & (self.table["layer"] != AVERAGE)]
        chosen = rows[rows["method"] == (REFERENCE if REFERENCE in self.methods else self.methods[0])]
        return int(chosen.sort_values(["value", "layer"], ascending=[False, True])["layer"].iloc[0])


def write_page(folder: Path) -> Path:
    """Write the page and figures of the comparison in `folder` beside its tables; the page.

    Raises:
        InputError: there is no finished comparison in it.
    """
    comparison = Comparison.read(folder)
    source = (resources.files("analysis") / "templates" / "rationales.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    page = TEMPLATES.get_template("rationales.html").render(
        comparison=comparison,
        claims=claims(comparison),
        rows=list(table_rows(comparison)),
        figures=layer_figures(comparison, folder / "figures"),
        parts=list(part_rows(comparison)),
        words=list(word_rows(comparison)),
        groups=group_tables(comparison),
        documents=list(views(comparison)),
        script=source,
        digest=digest,
        facts=facts(comparison),
    )
    write_aside(folder / "index.html", page)
    return folder / "index.html"


def notes(agreement: Agreement) -> tuple[str, ...]:
    """Return facts and claims, a line each."""
    return (*(f"{subject}: {statement}" for subject, statement in facts(agreement)), *claims(agreement))


def facts(agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """Say what the numbers belong to."""
    summary = agreement.summary
    share = summary["marked"] / summary["tokens"] if summary["tokens"] else 0.0
    kept = ", ".join(f"{share:.0%}" for share in summary["kept"])
    accuracy = ", ".join(f"{name} {value:.3f}" for name, value in summary["accuracy"].items())
    model = [summary["backbone"], f"preset {summary['preset']}", name_values("seed", summary["seeds"])]
    if summary.get("finetune_seeds", summary["seeds"]) != summary["seeds"]:
        model.append(f"fine-tuned with {name_values('seed', summary['finetune_seeds'])}")
    unmarked = summary.get("unmarked_documents", 0)
    left_out = f"; none in {unmarked} documents, of which people's own row knows nothing" if unmarked else ""
    return (
        (
            "data",
            f"{summary['task']}, {summary['split']}: {summary['documents']} documents, {summary['tokens']:,} tokens",
        ),
        ("marked by people", f"{share:.1%} of the tokens{left_out}"),
        ("kept by AdapLeR", f"{kept} of the tokens, layer by layer"),
        ("FLOPs speed-up", f"{summary['speedup']:.2f} on these documents"),
        ("accuracy", accuracy),
        ("model", ", ".join(model)),
        ("knobs", ", ".join(f"{name}={value}" for name, value in summary["knobs"].items())),
        ("hardware", f"{summary['environment']['device_name']}; nothing is timed"),
        ("word pieces", f"a token's score is the {summary['pooling']} of its pieces'"),
        *([("erased", "the rationales of the last layer alone")] if summary.get("erased") == "last" else []),
        *([("arithmetic", "bfloat16 for gradients and erased texts")] if summary.get("precision") == "bf16" else []),
        (
            "intervals",
            f"95 % percentile bootstrap over documents, {summary['resamples']:,} resamples, paired differences",
        ),
        ("code", code(summary["environment"])),
    )


def name_values(noun: str, values: Sequence[object]) -> str:
    """Write `seed 0`, or `seeds 0, 1, 2`."""
    return f"{noun}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"


def claims(agreement: Agreement) -> tuple[str, ...]:
    """Say whether AdapLeR has fewer false positives than each other method, a sentence each; means over layers."""
    ways = {"fpr": "at the uniform level", "fpr_equal": "at equal numbers of tokens"}
    sentences = []
    for method in agreement.methods if REFERENCE in agreement.methods else ():
        if method == REFERENCE:
            continue
        parts = [f"{_verdict(agreement.cell(method, metric))} {way}" for metric, way in ways.items()]
        sentences.append(f"Against {method}, AdapLeR's false-positive rate is {' and '.join(parts)}.")
    return tuple(sentences)


def _verdict(cell: Mapping[str, float]) -> str:
    """Say the difference AdapLeR - the other, in words and numbers."""
    if not math.isfinite(cell["difference"]):
        return "undefined"
    value, low, high = -cell["difference"], -cell["difference_high"], -cell["difference_low"]
    word = "lower" if high < 0 else "higher" if low > 0 else "not told apart"
    word = word if math.isfinite(low) else "not told apart by so few documents"
    return f"{word} ({_difference_text(value, low, high)})"


def _difference_text(value: float, low: float, high: float) -> str:
    """Write a difference with its interval, if it has one; no negative zero."""
    value, low, high = (round(each, 3) + 0.0 for each in (value, low, high))
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else f"{value:+.3f}"


def table_rows(agreement: Agreement) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield (method, (value with interval, paired difference to AdapLeR) per metric), means over layers."""
    for method in agreement.methods:
        cells = []
        for metric in agreement.metrics:
            cell = agreement.cell(method, metric)
            difference = ""
            if math.isfinite(cell["difference"]):
                difference = _difference_text(cell["difference"], cell["difference_low"], cell["difference_high"])
            cells.append((_value_text(cell), difference))
        yield method, cells


def _value_text(cell: Mapping[str, float]) -> str:
    if not math.isfinite(cell["value"]):
        return "undefined"
    value, low, high = (round(cell[name], 3) + 0.0 for name in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if math.isfinite(low) else f"{value:.3f}"


def part_rows(comparison: Comparison) -> Iterator[tuple[str, int, list[str]]]:
    """Yield (part of speech, unmarked occurrences, share selected per method) in the layer that is shown."""
    words = comparison.words[comparison.words["layer"] == comparison.layer]
    for part, rows in words.groupby("part"):
        counts = rows.groupby("method")[["unmarked", "selected"]].sum()
        shares = dict(zip(counts.index, counts["selected"] / counts["unmarked"], strict=True))
        yield str(part), int(counts["unmarked"].iloc[0]), [f"{shares[method]:.1%}" for method in comparison.methods]


def word_rows(comparison: Comparison) -> Iterator[tuple[str, int, list[str]]]:
    """Yield (word, unmarked occurrences, times selected per method) of what AdapLeR falsely keeps most."""
    named = comparison.words[(comparison.words["layer"] == comparison.layer) & (comparison.words["word"] != "")]
    if named.empty:
        return
    totals = named.groupby(["method", "word"], as_index=False)[["unmarked", "selected"]].sum()  # over parts of speech
    counts = {
        key: int(count)
        for key, count in zip(zip(totals["word"], totals["method"], strict=True), totals["selected"], strict=True)
    }
    first = totals[totals["method"] == (REFERENCE if REFERENCE in comparison.methods else comparison.methods[0])]
    first = first[first["unmarked"] >= min(SEEN, int(first["unmarked"].max()))]
    most = first.sort_values(["selected", "word"], ascending=[False, True])[:WORDS]
    for word, unmarked in zip(most["word"], most["unmarked"], strict=True):
        yield str(word), int(unmarked), [str(counts[word, method]) for method in comparison.methods]


def group_tables(comparison: Comparison) -> list[tuple[str, str, list[tuple[str, int, list[str]]]]]:
    """Return (title, metric, rows of (group, documents, mean per method)) by length and class; means over layers."""
    documents = comparison.documents.copy()
    wrong = documents["token_predicted"] - documents["token_both"]
    unmarked = documents["n_tokens"] - documents["n_rationale"]
    documents["fpr_equal"] = (wrong / unmarked).where((documents["n_rationale"] > 0) | (documents["method"] != PEOPLE))
    documents["average_precision"] = documents["average_precision"].astype(float)
    lengths = documents.drop_duplicates("annotation_id")["n_tokens"]
    edges = sorted(set(lengths.quantile([number / GROUPS for number in range(GROUPS + 1)], interpolation="higher")))
    groups = list(itertools.pairwise([edges[0] - 1, *(edges[1:] or edges)]))
    documents["length"] = documents["n_tokens"].map(lambda size: sum(size > end for _, end in groups))
    names = {number: f"{low + 1:,} to {high:,} tokens" for number, (low, high) in enumerate(groups)}
    columns: dict[str, dict[Any, str]] = {"length": names, "label": {}}
    metrics = {"fpr_equal": "false-positive rate at equal numbers", "average_precision": "mean average precision"}
    return [
        (
            f"{title[0].upper()}{title[1:]} by {'class' if column == 'label' else column}",
            metric,
            list(_group_rows(documents, column, metric, methods=comparison.methods, names=shown)),
        )
        for metric, title in metrics.items()
        for column, shown in columns.items()
    ]


def _group_rows(
    documents: pd.DataFrame, column: str, metric: str, *, methods: tuple[str, ...], names: Mapping[Any, str]
) -> Iterator[tuple[str, int, list[str]]]:
    for group, frame in documents.groupby(column):
        means = frame.groupby("method")[metric].mean()
        values = [float(means[method]) for method in methods]
        shown = [f"{value:.3f}" if math.isfinite(value) else "undefined" for value in values]
        yield names.get(group, str(group)), frame["annotation_id"].nunique(), shown


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def views(comparison: Comparison) -> Iterator[DocumentView]:
    """Yield the documents that the page lists, most errors of AdapLeR first."""
    documents = comparison.documents[comparison.documents["layer"] == comparison.layer]
    yield from document_views(
        records(documents), comparison.texts, methods=comparison.methods, layer=comparison.layer, first=REFERENCE
    )


def layer_figures(agreement: Agreement, folder: Path, *, prefix: str = "") -> list[FigureView]:
    """Draw the curves over layers into the folder, under names that begin with `prefix`."""
    layers = agreement.table[agreement.table["layer"] != AVERAGE]
    wanted = (replace(curve, name=f"{prefix}{curve.name}") for curve in curves(agreement.summary["metrics"], LAYERS))
    return figures(wanted, agreement, layers.assign(x=layers["layer"]), folder)


def figures(wanted: Iterable[Curve], agreement: Agreement, rows: pd.DataFrame, folder: Path) -> list[FigureView]:
    """Draw curves of rows (method, metric, x, value, low, high) into the folder as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    views = []
    for curve in wanted:
        frame = rows[rows["metric"] == curve.metric].set_index("method").loc[list(agreement.methods)].reset_index()
        frame["control"] = frame["method"].isin(agreement.summary["controls"])
        svg, png = render(curve, frame)
        write_aside(folder / f"{curve.name}.svg", svg)
        write_aside(folder / f"{curve.name}.png", png)
        label = str(escape(curve.title))
        svg = inline(svg, prefix=curve.name, label=label)
        views.append(FigureView(curve.name, curve.title, curve.caption, curve.name, svg, ()))
    return views
