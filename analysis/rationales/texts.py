"""Documents side by side: what people marked, and what each method selected, as runs of words of one kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.rationales.files import PEOPLE

HUMAN = "people"
LISTED = 40
"""Documents in the list where no texts say which."""

Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""(annotation, method) -> the stored values in the layer that is shown."""

KINDS = {
    (False, False): "plain",
    (True, True): "hit",
    (True, False): "false",
    (False, True): "missed",
}
"""(selected, marked) -> what a word is."""


@dataclass(frozen=True)
class Panel:
    """One reading of a document: who, a number to judge it by, and runs (kind, text)."""

    who: str
    note: str
    runs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DocumentView:
    """One document of the list.

    Attributes:
        name, label, predicted: as stored.
        tokens, marked: counts.
        kept: tokens that AdapLeR keeps in the layer.
        error: AdapLeR's false-positive rate at the layer, -1 where everything is marked.
        precision: its average precision, -1 where nothing is marked.
        rates: (method, false-positive rate as text).
        panels: the texts, none where they are not to be shown.
    """

    name: str
    label: str
    predicted: str
    tokens: int
    marked: int
    kept: int
    error: float
    precision: float
    rates: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]


def document_views(
    documents: Sequence[Mapping[str, Any]],
    texts: Sequence[Mapping[str, Any]],
    *,
    methods: Sequence[str],
    layer: int,
    first: str,
) -> Iterator[DocumentView]:
    """Yield the documents that have texts, or some evenly spread ones, most errors of `first` first."""
    rows: Rows = {(row["annotation_id"], row["method"]): row for row in documents}
    names = list(dict.fromkeys(row["annotation_id"] for row in documents))
    shown = {text["annotation_id"]: text for text in texts}
    count = min(LISTED, len(names))
    listed = list(shown) or [names[number * len(names) // count] for number in range(count)]
    leader = first if first in methods else methods[0]
    views = [_view(name, rows, shown.get(name), methods=methods, layer=layer, leader=leader) for name in listed]
    yield from sorted(views, key=lambda view: (-view.error, view.name))


def _view(
    name: str,
    rows: Rows,
    text: Mapping[str, Any] | None,
    *,
    methods: Sequence[str],
    layer: int,
    leader: str,
) -> DocumentView:
    row = rows[name, leader]
    rates = {method: _rate(rows[name, method]) for method in methods}
    precision = math.nan if row["average_precision"] is None else float(row["average_precision"])
    nobody = not int(row["n_rationale"])
    return DocumentView(
        name=name,
        label=str(row["label"]),
        predicted=str(row["predicted"]),
        tokens=int(row["n_tokens"]),
        marked=int(row["n_rationale"]),
        kept=int(row["token_predicted"]),
        error=-1.0 if math.isnan(rates[leader]) else rates[leader],
        precision=-1.0 if math.isnan(precision) else precision,
        rates=tuple((method, _percent(rate, nobody=nobody)) for method, rate in rates.items()),
        panels=tuple(_panels(text, rates, layer=layer)) if text is not None else (),
    )


def _rate(row: Mapping[str, Any]) -> float:
    other = float(row["n_tokens"] - row["n_rationale"])
    nothing_said = row["method"] == PEOPLE and not row["n_rationale"]
    return float(row["token_predicted"] - row["token_both"]) / other if other and not nothing_said else math.nan


def _percent(rate: float, *, nobody: bool) -> str:
    """Return the rate, or why there is none."""
    if math.isnan(rate):
        return "undefined, nothing is marked" if nobody else "undefined, everything is marked"
    return f"{rate:.1%}"


def _panels(text: Mapping[str, Any], rates: Mapping[str, float], *, layer: int) -> Iterator[Panel]:
    tokens, marked = text["tokens"], _mark_spans(text["marked"], len(text["tokens"]))
    yield Panel(HUMAN, f"words marked: {sum(marked)}", _runs(tokens, marked, marked))
    for method, layers in text["selected"].items():
        selected = _mark_spans(layers[str(layer)], len(tokens))
        rate = _percent(rates[method], nobody=not any(marked))
        note = f"words selected: {sum(selected)}, false-positive rate: {rate}"
        yield Panel(method, note, _runs(tokens, selected, marked))


def _mark_spans(spans: Sequence[Sequence[int]], length: int) -> list[bool]:
    """Mark which of `length` tokens lie in a span."""
    inside = [False] * length
    for start, end in spans:
        inside[start:end] = [True] * (end - start)
    return inside


def _runs(tokens: Sequence[str], selected: Sequence[bool], marked: Sequence[bool]) -> tuple[tuple[str, str], ...]:
    """Join neighbouring words of one kind."""
    kinds = [KINDS[pair] for pair in zip(selected, marked, strict=True)]
    runs = groupby(zip(kinds, tokens, strict=True), key=lambda pair: pair[0])
    return tuple((kind, " ".join(token for _, token in run)) for kind, run in runs)
