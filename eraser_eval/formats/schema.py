"""ERASER's files (DeYoung et al., 2020, section 4): documents, and annotations with groups of evidence spans.

    FOLDER/docs.jsonl                one {"docid", "document"} per line; or FOLDER/docs/, one file per document
    FOLDER/{train,val,test}.jsonl    one annotation per line

A document's tokens are separated by whitespace, its sentences by line ends; token offsets are half-open and count
from the start of the document.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.documents import Size, read_documents, size
from eraser_eval.formats.fields import Row, integer, items, name, require, text
from eraser_eval.formats.lines import Location, read_objects, write_objects

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

    @property
    def spans(self) -> Iterator[Evidence]:
        """The spans of all groups."""
        return (span for group in self.evidences for span in group)


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
    documents = dict(read_documents(folder))
    sizes = {docid: size(document) for docid, document in documents.items()}
    return EraserDataset(
        documents,
        {split: tuple(row for row, _ in read_annotations(folder, split, sizes)) for split in present_splits(folder)},
    )


def present_splits(folder: Path) -> tuple[str, ...]:
    """Return the splits that a data set has.

    Raises:
        InputError: it has none.
    """
    splits = tuple(split for split in SPLITS if (folder / f"{split}.jsonl").is_file())
    if not splits:
        raise InputError(f"{folder} has none of train.jsonl, val.jsonl, test.jsonl; pass a folder in ERASER's layout")
    return splits


def read_annotations(folder: Path, split: str, sizes: Mapping[str, Size]) -> Iterator[tuple[Annotation, bool]]:
    """Yield every annotation of a split, and whether its line lists its documents.

    Raises:
        InputError: the split has no file, a line is malformed or points outside its documents, or a name is twice.
    """
    path = folder / f"{split}.jsonl"
    if split not in SPLITS or not path.is_file():
        there = [split for split in SPLITS if (folder / f"{split}.jsonl").is_file()]
        raise InputError(f"{folder} has no split {shorten(split)}; it has {', '.join(there) or 'none'}")
    seen: set[str] = set()
    for where, row in read_objects(path):
        annotation = _annotation(row, where)
        if annotation.annotation_id in seen:
            raise InputError(f"{where}: annotation {shorten(annotation.annotation_id)} is there twice; keep one")
        seen.add(annotation.annotation_id)
        _check(annotation, sizes=sizes, where=where)
        yield annotation, bool(row.get("docids"))


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
    write_objects(folder / "docs.jsonl", ({"docid": docid, "document": each} for docid, each in documents.items()))
    for split, rows in splits.items():
        # ERASER's own readers expect the field query_type to be there.
        write_objects(folder / f"{split}.jsonl", ({**dataclasses.asdict(row), "query_type": None} for row in rows))


def _annotation(row: Row, where: Location) -> Annotation:
    annotation_id = name(require(row, "annotation_id", where), "annotation_id", where)
    groups = require(row, "evidences", where)
    if not isinstance(groups, list) or not all(map(_is_group, groups)):
        raise InputError(f"{where}: evidences holds {shorten(groups)}, but must be a list of lists of spans")
    evidences = tuple(tuple(_evidence(span, where) for span in group) for group in groups)
    classification = text(row, "classification", where)
    listed = [] if row.get("docids") is None else items(row, "docids", where)
    named = [name(docid, "docids", where) for docid in listed]
    docids = named or dict.fromkeys(span.docid for group in evidences for span in group) or [annotation_id]
    query = "" if row.get("query") is None else text(row, "query", where)
    return Annotation(annotation_id, query, classification, evidences, tuple(docids))


def _is_group(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(span, dict) for span in value)


def _check(annotation: Annotation, *, sizes: Mapping[str, Size], where: Location) -> None:
    about = f"{where}: annotation {shorten(annotation.annotation_id)}"
    if len(set(annotation.docids)) != len(annotation.docids):
        raise InputError(f"{about} names a document twice in docids, {shorten(list(annotation.docids))}; keep one")
    for docid in annotation.docids:
        if docid not in sizes:
            raise InputError(f"{about} is about document {shorten(docid)}, which is not in the folder; add it")
    for span in annotation.spans:
        if span.docid not in annotation.docids:
            raise InputError(f"{about} has evidence in {shorten(span.docid)}, which is not among its docids; add it")
        length, sentences = sizes[span.docid]
        if not 0 <= span.start_token <= span.end_token <= length:
            raise InputError(
                f"{where}: evidence tokens [{span.start_token}, {span.end_token}) lie outside document "
                f"{shorten(span.docid)} of {length} tokens; offsets count whitespace tokens from 0"
            )
        known = (span.start_sentence, span.end_sentence) != (-1, -1)
        if known and not 0 <= span.start_sentence <= span.end_sentence <= sentences:
            raise InputError(
                f"{where}: evidence sentences [{span.start_sentence}, {span.end_sentence}) lie outside document "
                f"{shorten(span.docid)} of {sentences} sentences; give -1 for both where they are not known"
            )
    if any(annotation.evidences) and not any(span.start_token < span.end_token for span in annotation.spans):
        raise InputError(f"{about} has evidence without a token; give its tokens, or no evidence")


def _evidence(span: Row, where: Location) -> Evidence:
    return Evidence(
        docid=name(require(span, "docid", where), "docid", where),
        start_token=integer(span, "start_token", where),
        end_token=integer(span, "end_token", where),
        start_sentence=integer(span, "start_sentence", where) if "start_sentence" in span else -1,
        end_sentence=integer(span, "end_sentence", where) if "end_sentence" in span else -1,
        text=text(span, "text", where) if "text" in span else "",
    )
