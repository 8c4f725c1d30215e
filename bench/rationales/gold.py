"""Read people's rationales of a task's split: documents, and the tokens that people marked in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.layouts import ERASER_SPLITS, require_columns
from bench.data.loading import DATA_SEED
from bench.data.rows import class_name
from bench.data.sources import candidate_folders
from bench.errors import InputError
from bench.rationales.synthetic_gold import synthetic_rationales
from bench.store.artifacts import content_hash
from eraser_eval.errors import shorten
from eraser_eval.formats.documents import tokens
from eraser_eval.formats.fields import name as identifier
from eraser_eval.formats.lines import Location, read_objects
from eraser_eval.formats.schema import Annotation, EraserDataset, Evidence, read_dataset, write_dataset

if TYPE_CHECKING:
    from bench.tasks import Task


@dataclass(frozen=True)
class Gold:
    """The annotations of one split and their documents."""

    split: str
    annotations: tuple[Annotation, ...]
    documents: Mapping[str, str]

    @cached_property
    def identity(self) -> str:
        """A hash of the documents and the marks on them."""
        return content_hash([[repr(annotation) for annotation in self.annotations], dict(self.documents)])

    def write(self, folder: Path) -> None:
        """Write them in ERASER's layout, as the scorer reads them."""
        write_dataset(folder, self.documents, {self.split: self.annotations})


def read_gold(task: Task, split: str, *, data_dir: Path | None, limit: int | None = None) -> Gold:
    """Read the rationales of a split, or `limit` annotations spread evenly over it where that is less.

    A synthetic task makes its own; others have a folder in ERASER's layout below `data_dir`, or files with the spans
    (`rationale_spans`) beside the text.

    Raises:
        InputError: the task has no rationales, they are not there or malformed, or the split is none of theirs.
    """
    require_rationales(task)
    data = _dataset(task, split, data_dir)
    annotations = data.splits.get(split, ())
    if not annotations:
        raise InputError(f"task {task.name!r} has no rationales in its split {split!r}; name another split")
    if limit is not None and limit < len(annotations):
        annotations = tuple(annotations[number * len(annotations) // limit] for number in range(limit))
    for annotation in annotations:
        if len(annotation.docids) != 1:
            raise InputError(
                f"annotation {annotation.annotation_id!r} is about {len(annotation.docids)} documents, "
                f"but a rationale is compared in one; give one per annotation"
            )
    require_marks(task, split, annotations, limit=limit)
    wanted = dict.fromkeys(annotation.docids[0] for annotation in annotations)
    return Gold(split, annotations, {docid: data.documents[docid] for docid in wanted})


def require_rationales(task: Task) -> None:
    """Raise InputError where a task has no rationales."""
    if task.generate is None and not task.rationales:
        raise InputError(f"task {task.name!r} carries no rationales; --task movies, hatexplain and demo do")


def require_marks(task: Task, split: str, annotations: Sequence[Annotation], *, limit: int | None) -> None:
    """Check that people marked some token: nothing agrees or disagrees with people who marked none.

    Raises:
        InputError: no annotation has a span with a token in it.
    """
    if not any(span.start_token < span.end_token for annotation in annotations for span in annotation.spans):
        remedy = "name another --split" if limit is None else "raise --limit or name another --split"
        raise InputError(
            f"nobody marked a token in the {len(annotations)} annotations of split {split!r} of task {task.name!r}: "
            f"every evidence is empty, so there is nothing to hold explanations against; {remedy}"
        )


def marked_tokens(annotation: Annotation, length: int) -> NDArray[np.bool_]:
    """Return a mask [length] of the document's tokens that lie in some span of evidence."""
    mask = np.zeros(length, np.bool_)
    for span in annotation.spans:
        mask[span.start_token : span.end_token] = True
    return mask


def _dataset(task: Task, split: str, data_dir: Path | None) -> EraserDataset:
    if task.generate is not None:
        return synthetic_rationales(task, seed=DATA_SEED)
    if data_dir is None:
        raise InputError(f"the rationales of task {task.name!r} are on no hub; pass --data-dir with {task.rationales}/")
    for folder in candidate_folders(task.rationales, data_dir):
        if (folder / f"{split}.jsonl").is_file() and any((folder / name).exists() for name in ("docs", "docs.jsonl")):
            return read_dataset(folder)
    posts = _from_json_lines(task, split, data_dir)
    if posts is None:
        raise InputError(f"{data_dir} holds no {task.rationales}/{split}.jsonl; pass another --data-dir")
    return posts


def _from_json_lines(task: Task, split: str, data_dir: Path) -> EraserDataset | None:
    """Read a file with a text, its label and the marked spans in each line; lines without spans are left out."""
    layout = task.json_lines
    name = {theirs: ours for ours, theirs in ERASER_SPLITS.items()}[split]
    if layout is None or name not in layout.files:
        return None
    paths = (folder / layout.files[name] for folder in candidate_folders(task.folder, data_dir))
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        return None
    documents: dict[str, str] = {}
    annotations = []
    columns = [layout.example_id, layout.text, layout.label]
    for where, row in read_objects(path):
        if row.get("rationale_spans") in (None, []):
            continue
        require_columns(task, where=str(where), columns=columns, present=list(row))
        text, docid = row[layout.text], identifier(row[layout.example_id], layout.example_id, where)
        if not isinstance(text, str):
            raise InputError(f"{where}: {layout.text!r} is a {type(text).__name__}, but must be a string")
        if docid in documents:
            raise InputError(f"{where}: its id {shorten(docid)} is there twice; give each row its own")
        documents[docid] = text
        spans = _spans(row["rationale_spans"], size=len(tokens(text)), where=where)
        evidences = tuple((Evidence(docid, start, end),) for start, end in spans)
        annotations.append(Annotation(docid, "", class_name(task, row[layout.label], str(where)), evidences, (docid,)))
    return EraserDataset(documents, {split: tuple(annotations)})


def _spans(field: object, *, size: int, where: Location) -> list[tuple[int, int]]:
    """Return the [start, end) pairs of a text of `size` tokens; other content may be a text, and is not shown."""
    pairs: list[Any] = field if isinstance(field, list) else [field]
    for pair in pairs:
        if not isinstance(pair, list) or [type(offset) for offset in pair] != [int, int]:
            raise InputError(f"{where}: rationale_spans holds no list of [start, end]; give pairs of whole numbers")
        if not 0 <= pair[0] < pair[1] <= size:
            raise InputError(
                f"{where}: rationale span [{pair[0]}, {pair[1]}) is none of {size} tokens; give 0 <= start < end"
            )
    return [(start, end) for start, end in pairs]
