"""Gold rationales of a synthetic task, in ERASER's layout (`bench gold`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.layouts import ERASER_SPLITS
from bench.errors import InputError
from bench.store.folders import require_new
from eraser_eval.formats.schema import Annotation, EraserDataset, Evidence, write_dataset

if TYPE_CHECKING:
    from bench.tasks import Task


def write_gold(task: Task, *, seed: int, folder: Path, force: bool = False) -> None:
    """Write a synthetic task's texts, labels and rationales to `folder` in ERASER's layout (validation as val.jsonl).

    Raises:
        InputError: the task is not synthetic, or one of the files is there and `force` is not given.
    """
    data = synthetic_rationales(task, seed=seed)
    require_new((folder / f"{name}.jsonl" for name in ("docs", *data.splits)), force=force)
    write_dataset(folder, data.documents, data.splits)


def synthetic_rationales(task: Task, *, seed: int) -> EraserDataset:
    """Return a synthetic task's texts, labels and rationales.

    The spans of an example form one group of evidence: together they decide the label.

    Raises:
        InputError: the task is not synthetic.
    """
    if task.generate is None:
        raise InputError(f"the texts of {task.name!r} are not made by this project; give --task demo")
    splits = task.generate(seed)
    documents = {row["example_id"]: _document(row["text"]) for rows in splits.values() for row in rows}
    annotations = {ERASER_SPLITS[name]: tuple(_annotation(task, row) for row in rows) for name, rows in splits.items()}
    return EraserDataset(documents, annotations)


def _document(text: str) -> str:
    """Return the text with one sentence per line; its whitespace tokens are the same."""
    return text.replace(" . ", " .\n")


def _annotation(task: Task, row: Mapping[str, Any]) -> Annotation:
    tokens = row["text"].split()
    name = row["example_id"]
    group = tuple(
        Evidence(
            docid=name,
            start_token=start,
            end_token=end,
            start_sentence=tokens[:start].count("."),
            end_sentence=tokens[: end - 1].count(".") + 1,
            text=" ".join(tokens[start:end]),
        )
        for start, end in row["rationale"]
    )
    return Annotation(name, query="", classification=task.labels[row["label"]], evidences=(group,), docids=(name,))
