"""ERASER's files (DeYoung et al., 2020, section 4): documents, and annotations with groups of evidence spans.

    FOLDER/docs.jsonl                one {"docid", "document"} per line; or FOLDER/docs/, one file per document
    FOLDER/{train,val,test}.jsonl    one annotation per line

A document's tokens are separated by whitespace, its sentences by line ends; token offsets are half-open and count
from the start of the document.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eraser_eval.errors import InputError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Evidence:
    """A run of tokens that supports a label: tokens [start_token, end_token) of document `docid`.

    A few published spans are empty (movie reviews, test split), so start_token may equal end_token.

    Sentence offsets are half-open as well, -1 where they are not known.
    """

    docid: str
    start_token: int
    end_token: int
    start_sentence: int = -1
    end_sentence: int = -1
    text: str = ""


@dataclass(frozen=True)
class Annotation:
    """A labelled example.

    Attributes:
        annotation_id: its name, unique in its split.
        query: the question or hypothesis, empty where the task has none.
        classification: the gold label.
        evidences: groups of evidence; the spans of a group belong together, each group is sufficient.
        docids: the documents it is about.
    """

    annotation_id: str
    query: str
    classification: str
    evidences: tuple[tuple[Evidence, ...], ...]
    docids: tuple[str, ...]


@dataclass(frozen=True)
class EraserDataset:
    """Documents (docid -> text, one sentence per line) and the annotations of each split that is present."""

    documents: Mapping[str, str]
    splits: Mapping[str, tuple[Annotation, ...]]


def read_dataset(folder: Path) -> EraserDataset:
    """Read a data set in ERASER's layout; splits without a file are left out.

    An annotation that names no documents is about those of its evidence, or, without evidence, about the document
    that has its own name, as in the movie reviews.

    Raises:
        InputError: files are missing or malformed, or an annotation points outside its documents.
    """
    documents = _read_documents(folder)
    lengths = {docid: len(text.split()) for docid, text in documents.items()}
    paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
    splits = {
        split: tuple(_annotation(row, lengths=lengths, place=place) for place, row in _rows(path))
        for split, path in paths.items()
        if path.is_file()
    }
    if not splits:
        raise InputError(f"{folder} has none of train.jsonl, val.jsonl, test.jsonl; pass a folder in ERASER's layout")
    return EraserDataset(documents, splits)


def write_dataset(folder: Path, documents: Mapping[str, str], splits: Mapping[str, Sequence[Annotation]]) -> None:
    """Write a data set in ERASER's layout, the documents first; files there are replaced one by one.

    Raises:
        InputError: a split has another name than ERASER's, or `folder` is a file.
    """
    odd = [split for split in splits if split not in SPLITS]
    if odd:
        raise InputError(f"a split is called {odd[0]!r}, but ERASER's splits are {', '.join(SPLITS)}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, but a data set is a folder; give another name")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "docs.jsonl", ({"docid": docid, "document": text} for docid, text in documents.items()))
    for split, rows in splits.items():
        # ERASER's own readers expect the field query_type to be there.
        _write(folder / f"{split}.jsonl", ({**dataclasses.asdict(row), "query_type": None} for row in rows))


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    aside.replace(path)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it") from error


def _read_documents(folder: Path) -> dict[str, str]:
    if (folder / "docs.jsonl").is_file():
        rows = list(_rows(folder / "docs.jsonl"))
        for place, row in rows:
            if not isinstance(row.get("docid"), str) or not isinstance(row.get("document"), str):
                raise InputError(f"{place}: a document needs the strings 'docid' and 'document', it has {sorted(row)}")
        return {row["docid"]: row["document"] for _, row in rows}
    if (folder / "docs").is_dir():
        return {path.name: _read_text(path) for path in sorted((folder / "docs").iterdir()) if path.is_file()}
    raise InputError(f"{folder} has neither docs.jsonl nor docs/; pass a folder in ERASER's layout")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every line of a JSON-lines file."""
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place} is no JSON text ({error.msg}); each line must be one object") from error
        if not isinstance(row, dict):
            raise InputError(f"{place} is a {type(row).__name__}, but each line must be a JSON object")
        yield place, row


def _annotation(row: Mapping[str, Any], *, lengths: Mapping[str, int], place: str) -> Annotation:
    try:
        name = str(row["annotation_id"])
        groups = tuple(tuple(_evidence(span) for span in group) for group in row["evidences"])
        classification = str(row["classification"])
    except KeyError as error:
        raise InputError(f"{place} has no field {error}; is it an ERASER annotation?") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: evidences must be lists of spans with whole-number offsets ({error})") from error
    docids = row.get("docids") or dict.fromkeys(span.docid for group in groups for span in group) or [name]
    for docid in docids:
        if docid not in lengths:
            raise InputError(f"{place}: annotation {name!r} is about document {docid!r}, which is not in the folder")
    for span in (span for group in groups for span in group):
        if not 0 <= span.start_token <= span.end_token <= lengths.get(span.docid, 0):
            raise InputError(
                f"{place}: evidence tokens [{span.start_token}, {span.end_token}) lie outside document "
                f"{span.docid!r} of {lengths.get(span.docid, 0)} tokens; offsets count whitespace tokens from 0"
            )
    return Annotation(name, str(row.get("query") or ""), classification, groups, tuple(docids))


def _evidence(span: Mapping[str, Any]) -> Evidence:
    return Evidence(
        docid=str(span["docid"]),
        start_token=int(span["start_token"]),
        end_token=int(span["end_token"]),
        start_sentence=int(span.get("start_sentence", -1)),
        end_sentence=int(span.get("end_sentence", -1)),
        text=str(span.get("text", "")),
    )
