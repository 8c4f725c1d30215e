"""Write the results of a comparison of rationales: scores of each prediction file, tables, texts, a summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.rationales import metrics as rationale_metrics
from bench.rationales.documents import Document, Mask
from bench.rationales.faithfulness import runs_of
from bench.rationales.files import SUMMARY, write_frame
from bench.rationales.parts_of_speech import parts_of_speech
from bench.store.digests import digests_of, marker_text
from bench.store.folders import disk_errors_at
from bench.store.runs import write_aside
from eraser_eval.formats.predictions import Prediction, write_predictions
from eraser_eval.metrics.faithfulness import line_values
from eraser_eval.scorer import Settings as Scoring
from eraser_eval.scoring import score

if TYPE_CHECKING:
    import pandas as pd

FILES = ("documents.parquet", "table.parquet", "words.parquet", "shown.jsonl")
"""The files that pages are made of, beside the summary."""

WORDS = ["method", "layer", "part", "word", "unmarked", "selected"]
"""Columns of the table of words, which has no row where everything is marked."""

SHOWN = 24
"""Documents whose texts are kept for the page, evenly spread."""


@dataclass
class RationaleResults:
    """Collects the rationales of methods, layer by layer, and writes what they come to.

    Attributes:
        out: the folder.
        gold: the folder with the split in ERASER's layout.
        split: one of ERASER's.
        documents: the documents that are compared on.
        with_text: whether words and texts may be kept.
    """

    out: Path
    gold: Path
    split: str
    documents: Sequence[Document]
    with_text: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    selections: dict[int, dict[str, dict[int, Any]]] = field(default_factory=dict)

    def add(self, method: str, layer: int, *, predictions: Sequence[Prediction], chosen: Sequence[Mask]) -> None:
        """Write the prediction file of a method and layer and its scores, and keep every document's values."""
        name = f"{method}-layer{layer}"
        path, each = self.out / "predictions" / f"{name}.jsonl", self.out / "scores" / f".{name}.jsonl"
        with disk_errors_at(path):
            write_predictions(path, predictions)
            report = score(self.gold, split=self.split, predictions=path, settings=Scoring(), per_document=each)
        write_aside(self.out / "scores" / f"{name}.json", json.dumps(report, indent=1))
        lines = [json.loads(line) for line in each.read_text(encoding="utf8").splitlines()]
        each.unlink()
        values = {row["annotation_id"]: row for row in lines}
        for document, prediction in zip(self.documents, predictions, strict=True):
            known = {"method": method, "layer": layer, "label": document.label, **values[document.annotation_id]}
            row = known | faithful_values(prediction)
            self.rows.append({name: math.nan if value is None else value for name, value in row.items()})
        self.words += [{"method": method, "layer": layer, **row} for row in self._word_counts(chosen)]
        for number in shown_numbers(len(self.documents)) if self.with_text else ():
            self.selections.setdefault(number, {}).setdefault(method, {})[layer] = runs_of(chosen[number])

    @cached_property
    def _tokens(self) -> pd.DataFrame:
        """Every token of every document: part of speech, the word where it may be kept, and whether it is unmarked."""
        import pandas as pd

        return pd.DataFrame(
            {
                "part": [part for document in self.documents for part in parts_of_speech(document.tokens)],
                "word": [
                    word.lower() if self.with_text else "" for document in self.documents for word in document.tokens
                ],
                "unmarked": ~np.concatenate([document.marked for document in self.documents]),
            }
        )

    def _word_counts(self, chosen: Sequence[Mask]) -> list[dict[str, Any]]:
        """Count how often each part of speech and each word is unmarked, and selected all the same."""
        frame = self._tokens.assign(selected=np.concatenate(chosen) & self._tokens["unmarked"])
        counts = frame.groupby(["part", "word"], as_index=False)[["unmarked", "selected"]].sum()
        rows = counts[counts["unmarked"] > 0].to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in rows]

    def write(self, summary: Mapping[str, Any]) -> None:
        """Write the tables, the texts, and at last the summary."""
        import pandas as pd

        documents = pd.DataFrame(self.rows)
        table = rationale_metrics.metrics_table([documents], against="adapler")
        words = pd.DataFrame(self.words, columns=WORDS)
        for name, frame in (("documents", documents), ("table", table), ("words", words)):
            write_frame(self.out / f"{name}.parquet", frame)
        write_aside(self.out / "table.csv", table.to_csv(index=False))
        write_aside(self.out / "shown.jsonl", "".join(f"{line}\n" for line in self._texts()))
        metrics = {each.name: [each.summary, each.higher_is_better] for each in rationale_metrics.METRICS}
        content = {
            **summary,
            "split": self.split,
            "documents": len(self.documents),
            "resamples": rationale_metrics.RESAMPLES,
            "metrics": {name: metrics[name] for name in dict.fromkeys(table["metric"])},
            **sizes(self.documents),
        }
        write_aside(self.out / SUMMARY, marker_text(content, digests_of(self.out, FILES), SUMMARY))

    def _texts(self) -> list[str]:
        """Return a line per shown document: its tokens, the marks, and the rationales of each method and layer."""
        lines = []
        for number, selected in self.selections.items():
            document = self.documents[number]
            line = {"annotation_id": document.annotation_id, "label": document.label, "tokens": document.tokens}
            lines.append(json.dumps({**line, "marked": runs_of(document.marked), "selected": selected}))
        return lines


def shown_numbers(count: int) -> list[int]:
    """Return the numbers of the documents, of so many, whose texts are kept."""
    return [number * count // min(SHOWN, count) for number in range(min(SHOWN, count))]


def sizes(documents: Sequence[Document]) -> dict[str, int]:
    """Count tokens, those that people marked, and documents in which they marked none."""
    return {
        "unmarked_documents": sum(not document.marked.any() for document in documents),
        "tokens": sum(len(document.tokens) for document in documents),
        "marked": int(sum(document.marked.sum() for document in documents)),
    }


def faithful_values(prediction: Prediction) -> dict[str, Any]:
    """Return the predicted class and what it loses when tokens are erased, by the names of the table."""
    values = line_values(prediction, 0)
    row: dict[str, Any] = {"predicted": prediction.classification}
    for kind in ("comprehensiveness", "sufficiency"):
        shares = [value for name, value in values.items() if name.startswith(f"{kind}@")]
        if kind in values:
            row |= {kind: values[kind], f"{kind}_aopc": float(np.mean(shares))}
    return row
