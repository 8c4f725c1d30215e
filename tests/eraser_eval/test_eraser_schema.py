"""ERASER's layout: what is written reads back, what others wrote loads, what is broken is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eraser_eval import Annotation, Evidence, InputError, read_dataset, write_dataset
from eraser_eval.formats.documents import size, tokens

DOCUMENTS = {"one": "a good film .\nit was long .", "two": "a «dull» film ."}
GROUPS = (
    (Evidence("one", 1, 2, start_sentence=0, end_sentence=1, text="good"), Evidence("one", 6, 7, text="long")),
    (Evidence("two", 1, 2, text="«dull»"),),
)
ANNOTATION = Annotation("pair", query="good ?", classification="POS", evidences=GROUPS, docids=("one", "two"))


def annotation(**changes: Any) -> dict[str, Any]:
    """A line of a split as published files have it."""
    span = {"docid": "one", "start_token": 1, "end_token": 2, "start_sentence": 0, "end_sentence": 1, "text": "good"}
    row = {"annotation_id": "one", "classification": "POS", "evidences": [[span]], "query": "q", "query_type": None}
    return {**row, **changes}


def write_split(folder: Path, *lines: dict[str, Any] | str) -> None:
    """A folder with docs/ and a training split of the given lines."""
    (folder / "docs").mkdir(exist_ok=True)
    for docid, text in DOCUMENTS.items():
        (folder / "docs" / docid).write_text(text, encoding="utf8")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "train.jsonl").write_text(text + "\n", encoding="utf8")


def message(folder: Path) -> str:
    """The one line that reading fails with."""
    with pytest.raises(InputError) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_written_data_set_reads_back(tmp_path: Path) -> None:
    """Documents, groups, offsets and text survive a round trip; splits that were not given stay absent."""
    write_dataset(tmp_path / "new" / "set", DOCUMENTS, {"train": [ANNOTATION], "val": []})
    read = read_dataset(tmp_path / "new" / "set")
    assert read.documents == DOCUMENTS
    assert read.splits == {"train": (ANNOTATION,), "val": ()}


def test_written_files_have_the_published_fields(tmp_path: Path) -> None:
    """Every line has ERASER's fields, and no half-written file is left."""
    write_dataset(tmp_path, DOCUMENTS, {"test": [ANNOTATION]})
    (line,) = (tmp_path / "test.jsonl").read_text(encoding="utf8").splitlines()
    row = json.loads(line)
    assert set(row) == {"annotation_id", "classification", "docids", "evidences", "query", "query_type"}
    assert row["evidences"][1] == [
        {"docid": "two", "start_token": 1, "end_token": 2, "start_sentence": -1, "end_sentence": -1, "text": "«dull»"}
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs.jsonl", "test.jsonl"]


def test_documents_may_be_files_of_a_folder(tmp_path: Path) -> None:
    """docs/ holds one file per document, named by its docid."""
    write_split(tmp_path, annotation())
    read = read_dataset(tmp_path)
    assert read.documents == DOCUMENTS
    assert read.splits["train"][0].evidences == ((GROUPS[0][0],),)


def test_documents_are_found_without_docids(tmp_path: Path) -> None:
    """Without docids they are those of the evidence; without evidence, the document of the annotation's name."""
    spans = [[{"docid": "two", "start_token": 0, "end_token": 1}], [{"docid": "two", "start_token": 1, "end_token": 2}]]
    write_split(
        tmp_path,
        annotation(annotation_id="pair", evidences=spans),
        annotation(evidences=[], docids=None, query=None),
        "",
    )
    first, second = read_dataset(tmp_path).splits["train"]
    assert first.docids == ("two",)
    assert (second.docids, second.query, second.evidences) == (("one",), "", ())


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{broken", ["train.jsonl, line 2", "no JSON"]),
        ("[1]", ["line 2", "is a list"]),
        (annotation(evidences=[[{"docid": "one"}]]), ["line 2", "start_token"]),
        (
            annotation(evidences=[[{"docid": "one", "start_token": "x", "end_token": 2}]]),
            ["line 2", "'x'", "whole number"],
        ),
        (annotation(evidences=3), ["line 2", "lists of spans"]),
        (annotation(docids=["three"]), ["line 2", "'three'", "not in the folder"]),
        (annotation(annotation_id="four", evidences=[]), ["line 2", "'four'"]),
        (annotation(evidences=[[{"docid": "one", "start_token": 7, "end_token": 9}]]), ["[7, 9)", "'one' of 8 tokens"]),
        (annotation(evidences=[[{"docid": "one", "start_token": 2, "end_token": 1}]]), ["[2, 1)"]),
        (annotation(evidences=[[{"docid": "one", "start_token": -1, "end_token": 1}]]), ["[-1, 1)"]),
        (annotation(evidences=[[{"docid": "one", "start_token": True, "end_token": 1}]]), ["true", "whole number"]),
        (annotation(evidences=[[{"docid": "one", "start_token": 1, "end_token": 1}]]), ["evidence without a token"]),
        (annotation(annotation_id="first"), ["line 2", "'first' is there twice"]),
        (annotation(docids=["two"]), ["line 2", "evidence in 'one'", "not among its docids"]),
        (annotation(docids=["one", "one"]), ["line 2", "a document twice"]),
        (annotation(classification=None), ["line 2", "classification holds null", "string"]),
        ('{"annotation_id": "a", "annotation_id": "b"}', ["line 2", "'annotation_id' occurs twice"]),
        (
            annotation(
                evidences=[[{"docid": "one", "start_token": 0, "end_token": 1, "start_sentence": 1, "end_sentence": 3}]]
            ),
            ["line 2", "sentences [1, 3)", "of 2 sentences", "-1"],
        ),
    ],
)
def test_a_broken_annotation_is_named_with_its_line(
    tmp_path: Path, line: dict[str, Any] | str, parts: list[str]
) -> None:
    """What is malformed or points outside its documents is refused with file and line."""
    write_split(tmp_path, annotation(annotation_id="first"), line)
    found = message(tmp_path)
    for part in parts:
        assert part in found


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    """An annotation without a label says which field is missing."""
    row = annotation()
    del row["classification"]
    write_split(tmp_path, row)
    assert "no field 'classification'" in message(tmp_path)


def test_folders_of_another_kind_are_refused(tmp_path: Path) -> None:
    """A folder without documents, without splits, or with unreadable documents says which."""
    assert "neither docs.jsonl nor docs/" in message(tmp_path)
    (tmp_path / "docs.jsonl").write_text('{"docid": "one"}\n', encoding="utf8")
    assert "strings 'docid' and 'document'" in message(tmp_path)
    (tmp_path / "docs.jsonl").write_text('{"docid": "one", "document": "a"}\n', encoding="utf8")
    assert "none of train.jsonl" in message(tmp_path)
    (tmp_path / "docs.jsonl").write_bytes(b"\xff")
    assert "not UTF-8" in message(tmp_path)


def test_documents_are_there_once(tmp_path: Path) -> None:
    """Two layouts at once, or a document twice, are refused, for it is not clear which one is meant."""
    write_split(tmp_path, annotation())
    (tmp_path / "docs.jsonl").write_text('{"docid": "one", "document": "a"}\n' * 2, encoding="utf8")
    assert "both docs.jsonl and docs/" in message(tmp_path)
    for path in (tmp_path / "docs").iterdir():
        path.unlink()
    (tmp_path / "docs").rmdir()
    assert "docs.jsonl, line 2: document 'one' is there twice" in message(tmp_path)


def test_a_token_is_what_the_published_offsets_count() -> None:
    """Blanks, tabs and line ends separate tokens, other spaces of Unicode do not; blank lines are no sentences."""
    text = "a\u00a0b  c\td\n \n\r\ne\u2028f\x1cg\n"
    assert tokens(text) == ["a\u00a0b", "c", "d", "e\u2028f\x1cg"]
    assert size(text) == (4, 2)


def test_writing_under_other_names_is_refused(tmp_path: Path) -> None:
    """A split of another name and a file in the folder's place are refused before anything is written."""
    with pytest.raises(InputError, match="called 'validation', but ERASER's splits are train, val, test"):
        write_dataset(tmp_path / "set", DOCUMENTS, {"validation": []})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf8")
    with pytest.raises(InputError, match="is a file"):
        write_dataset(tmp_path / "file", DOCUMENTS, {})


@pytest.mark.skipif("EFFICIENT_BERT_DATA" not in os.environ, reason="EFFICIENT_BERT_DATA is not set")
@pytest.mark.parametrize(
    ("name", "sizes", "documents"),
    [("movies", (1600, 200, 199), 2000), ("hatexplain", (3295, 1141, 1142), 5578)],
)
def test_published_data_loads(name: str, sizes: tuple[int, ...], documents: int) -> None:
    """Published folders load with their sizes, and every span's text is the text of its tokens."""
    read = read_dataset(Path(os.environ["EFFICIENT_BERT_DATA"]) / "eraser" / name)
    assert tuple(len(read.splits[split]) for split in ("train", "val", "test")) == sizes
    assert len(read.documents) == documents
    tokens = {docid: text.split() for docid, text in read.documents.items()}
    spans = [span for rows in read.splits.values() for row in rows for group in row.evidences for span in group]
    # Counted, not listed: a failure must not print the texts.
    differing = sum(" ".join(tokens[span.docid][span.start_token : span.end_token]) != span.text for span in spans)
    assert differing == 0
    assert len(spans) > 5000
