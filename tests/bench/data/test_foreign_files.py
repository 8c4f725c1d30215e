"""Files that hold what a table cannot, or that are something else: one line that says so and quotes no text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data.loading import load_split
from bench.errors import InputError
from bench.registry import TASKS
from eraser_eval.formats.schema import read_dataset
from tests.support.command_line import call

TEXT = "SECRET words of a text that no message may ever repeat"
ROW: Mapping[str, Any] = {"post_id": "p", "text": TEXT, "label": "normal"}


def load(task: str, folder: Path, split: str = "train") -> Any:
    """A split from a folder."""
    return load_split(TASKS[task], split, data_dir=folder, seed=0)


def refusal(task: str, folder: Path, split: str = "train") -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        load(task, folder, split)
    message = str(caught.value)
    assert "\n" not in message
    assert "SECRET" not in message
    assert len(message) < 600
    assert message.encode()
    return message


def json_lines(path: Path, *lines: object) -> None:
    """A file with a JSON value per line; a string is a line as it is."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(text.encode("utf8", "surrogatepass"))


ODD_LINES = [
    (dict(ROW, text="\udc80"), "has half a surrogate pair"),
    (dict(ROW, label="\ud83d"), "has half a surrogate pair"),
    (dict(ROW, more={"deep": ["\udfff"]}), "has half a surrogate pair"),
    ({**ROW, "\ud83d key": 1}, "has half a surrogate pair"),
    (json.dumps(ROW)[:-1] + ', "more": "\ud83d"}', "is not UTF-8"),
    (json.dumps(ROW)[:-1] + ', "more": ' + '{"a":' * 99_999, "is nested too deeply"),
    (json.dumps(ROW)[:-1] + ', "more": ' + "[" * 99_999 + "]" * 99_999 + "}", "is nested too deeply"),
    (json.dumps(ROW)[:-1] + ', "more": -' + "1" * 4301 + "}", "a number of too many digits"),
    (json.dumps(ROW)[:-1] + ', "text": "again"}', "the key 'text' occurs twice"),
    (json.dumps(ROW) + "\r" + json.dumps(ROW), "Extra data"),
    (dict(ROW, label=float("nan")), "the label is nan"),
    (dict(ROW, label=10**400), "the label is (401 characters)"),
    (dict(ROW, label=True), "the label is True"),
    (dict(ROW, label=None), "the label is None"),
    (dict(ROW, label={"SECRET": TEXT}), "the label is ("),
    (dict(ROW, text=float("inf")), "the text is of type float"),
    (dict(ROW, text="a\0b"), "the text holds a NUL character"),
    (dict(ROW, post_id="a\0b"), "the id holds a NUL character"),
    (dict(ROW, post_id=None), "its id is None, but an id is a string or a whole number"),
    (dict(ROW, post_id=False), "its id is of type bool"),
    (dict(ROW, post_id=1.0), "its id is of type float"),
    (dict(ROW, post_id=[TEXT]), "its id is of type list"),
    (dict(ROW, post_id=""), "its id is empty"),
    (dict(ROW, post_id="\u2003"), "its id is empty"),
    (dict(ROW, post_id=TEXT * 20), "its id has 1080 characters, but may have 1000"),
    (dict(ROW, post_id=7), "its id '7' is that of"),
]


@pytest.mark.parametrize(("line", "part"), ODD_LINES, ids=range(len(ODD_LINES)))
def test_what_a_table_cannot_hold_is_told_by_file_and_line(tmp_path: Path, line: object, part: str) -> None:
    """Half characters, nesting, endless digits, doubled keys, numbers that are none, and ids that name nothing."""
    json_lines(tmp_path / "train.jsonl", dict(ROW, post_id="7"), "", line)
    message = refusal("hatexplain", tmp_path)
    assert "train.jsonl, line 3" in message
    assert part in message


def test_a_whole_number_is_an_id_by_its_digits(tmp_path: Path) -> None:
    """Ids are strings or whole numbers; characters beyond the basic plane are text, in escapes or not."""
    smile = json.dumps(dict(ROW, post_id=12, text="\U0001f600"))
    assert "\\ud83d" in smile
    json_lines(tmp_path / "train.jsonl", smile, json.dumps(dict(ROW, post_id="ü"), ensure_ascii=False))
    loaded = load("hatexplain", tmp_path)
    assert (loaded["example_id"][:], loaded["text"][0]) == (["12", "ü"], "\U0001f600")


def test_one_refusal_names_all_that_is_wrong(tmp_path: Path) -> None:
    """All missing columns at once; of rows the first of each column, and how many more are like it."""
    json_lines(tmp_path / "train.jsonl", {"id": 1, "post": TEXT})
    assert all(f"no column {name!r}" in refusal("hatexplain", tmp_path) for name in ("text", "post_id", "label"))
    bad = [dict(ROW, post_id=None, label="rude"), dict(ROW, post_id="b", label=7), dict(ROW, post_id="c", text="")]
    json_lines(tmp_path / "train.jsonl", *bad, dict(ROW, post_id="d", label="mad"))
    message = refusal("hatexplain", tmp_path)
    assert "line 1: its id is None" in message
    assert "train.jsonl, line 3: the text is empty" in message
    assert "train.jsonl, line 1: the label is 'rude'" in message
    assert "(as in 2 more rows)" in message


SOUND = f"sentence\tlabel\n{TEXT} one\t1\n{TEXT} two\t0\n".encode()
OTHERS = [
    (gzip.compress(SOUND), "is a gzip file"),
    (b"PK\x03\x04" + SOUND, "is a zip archive"),
    (b"\n <!DOCTYPE HTML>\n<title>SECRET</title>\n", "is a web page"),
    (b'<?xml version="1.0"?><Error><Code>SECRET</Code></Error>', "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "is a pointer of git's large-file"),
    (SOUND.decode().encode("utf-16"), "is text in UTF-16"),
    (SOUND.decode().encode("utf-16-be"), "is text in UTF-16"),
    (SOUND.decode().encode("utf-32"), "is text in UTF-32"),
    (b"", "is empty"),
    (b"\r\n\r\n", "is empty"),
]


@pytest.mark.parametrize(("content", "part"), OTHERS, ids=range(len(OTHERS)))
@pytest.mark.parametrize(
    ("task", "file"), [("sst2", "train.tsv"), ("hatexplain", "train.jsonl"), ("sst2", "train.parquet")]
)
def test_a_file_that_is_something_else_is_called_so(
    tmp_path: Path, task: str, file: str, content: bytes, part: str
) -> None:
    """An archive, a page, a pointer and another encoding are named, whichever file they stand for."""
    (tmp_path / file).write_bytes(content)
    message = refusal(task, tmp_path)
    assert file in message
    if file.endswith("parquet") and part == "is empty":
        assert "cannot be read as parquet" in message
    elif file.endswith("jsonl") and part in ("is a gzip file", "is empty"):  # gzipped lines are read; no line is no row
        assert "line 1 is no JSON text" in message or "has no rows" in message
    else:
        assert part in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (SOUND.replace(b"\n", b"\r"), "ends its lines with carriage returns alone"),
        (SOUND.replace(b" one\t1\n", b" one\t1\r"), "carriage returns alone, as it has some, end no line"),
        (f"{TEXT} one\tlabel\nfine\t1\n".encode(), "no column 'sentence' (it has (58 characters), label)"),
        (b"SECRET short text here\t1\n", "no column 'sentence' (it has (22 characters), 1) and no column 'label'"),
        (("\t".join(f"SECRET {n}, a text" for n in range(999)) + "\n").encode(), "and 987 more"),
        (SOUND.replace(b"label", b"sentence"), "no column 'label'"),
        (b"sentence\tlabel\tlabel\nfine\t1\t0\n", "has the column 'label' 2 times"),
        (SOUND.replace(b"two", b"t\0o"), "line 3: the text holds a NUL character"),
        (SOUND.replace(b"\t0", b"\t" + b"9" * 5000), "line 3: the label is (5000 characters)"),
        (SOUND + b"\n", "line 4: 1 tab-separated fields"),
        (SOUND.replace(b"two", b"tw\xc3"), "is not UTF-8"),
    ],
    ids=range(11),
)
def test_a_table_of_text_is_refused_by_line_without_its_words(tmp_path: Path, content: bytes, part: str) -> None:
    """Line ends, headers, fields and characters that do not fit are told by place, and texts by their length."""
    (tmp_path / "train.tsv").write_bytes(content)
    message = refusal("sst2", tmp_path)
    assert "train.tsv" in message
    assert part in message


@pytest.mark.parametrize("end", [b"\r\n", b"\r\r\n"])
def test_line_ends_are_no_part_of_a_field(tmp_path: Path, end: bytes) -> None:
    """Neither a text nor a label in the last column takes a carriage return along."""
    (tmp_path / "train.tsv").write_bytes(SOUND.replace(b"\n", end))
    (tmp_path / "test.tsv").write_bytes(b"index\tsentence\n0\tfine\n".replace(b"\n", end))
    assert load("sst2", tmp_path)["label"][:] == [1, 0]
    assert load("sst2", tmp_path, "test")["text"][:] == ["fine"]


def test_files_that_were_joined_are_refused(tmp_path: Path) -> None:
    """A second header in a file is no example, also where rows have no labels to tell it by."""
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tfine\nindex\tsentence\n0\tfine\n")
    assert "test.tsv, line 3 is the header again" in refusal("sst2", tmp_path, "test")


@pytest.mark.parametrize(
    ("column", "part"),
    [
        (pa.array([1, 2]), "row 1: the text is of type int"),
        (pa.array([["a"], ["b"]]), "row 1: the text is of type list"),
        (pa.array([b"a", b"b"]), "row 1: the text is of type bytes"),
        (pa.array([b"a", b"\xff"]).cast(pa.string(), safe=False), "row 2: the column 'sentence' cannot be read"),
        (pa.array(["a", "b\0"]), "row 2: the text holds a NUL"),
    ],
    ids=range(5),
)
def test_columns_of_another_type_are_refused_by_row(tmp_path: Path, column: pa.Array, part: str) -> None:
    """Numbers, lists, bytes and what is no UTF-8 are no texts."""
    pq.write_table(pa.table({"sentence": column, "label": [1, 0]}), tmp_path / "train.parquet")
    message = refusal("sst2", tmp_path)
    assert "train.parquet, " in message
    assert part in message


def test_shards_of_several_types_are_one_split(tmp_path: Path) -> None:
    """A text is a text and a number a number, in whatever type a file stores it."""
    kinds = [
        (pa.array(["a"]), pa.array([1], pa.int8())),
        (pa.array(["b"], pa.large_string()), pa.array([0.0])),
        (pa.array(["c"]).dictionary_encode(), pa.array(["positive"])),
        (pa.array(["d"], pa.string_view()), pa.array(["negative"]).dictionary_encode()),
    ]
    for number, (text, label) in enumerate(kinds):
        table = pa.table({"sentence": text, "label": label})
        pq.write_table(table, tmp_path / f"train-{number:05d}-of-00004.parquet")
    loaded = load("sst2", tmp_path)
    assert (loaded["text"][:], loaded["label"][:]) == (["a", "b", "c", "d"], [1, 0, 1, 0])
    pq.write_table(pa.table({"sentence": ["x"], "label": [5]}), tmp_path / "train-00002-of-00004.parquet")
    assert "train-00002-of-00004.parquet, row 1: the label is 5" in refusal("sst2", tmp_path)


def test_a_flipped_bit_in_a_page_is_noticed(tmp_path: Path) -> None:
    """Where a parquet file carries checksums they are checked."""
    path = tmp_path / "train.parquet"
    table = pa.table({"sentence": ["a fine film"], "label": [1]})
    pq.write_table(table, path, write_page_checksum=True, write_statistics=False, use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"a fine film", b"a mine film", 1))
    assert "cannot be read as parquet" in refusal("sst2", tmp_path)


@pytest.mark.parametrize(
    "annotators",
    [
        [["normal"], ["normal"]],
        [{"label": None}] * 2,
        [{"voter": [1]}] * 2,
        [{"label": []}] * 2,
        [1, 2],
        [[[1]], [[2]]],
    ],
)
def test_votes_in_another_form_are_refused(tmp_path: Path, annotators: list[Any]) -> None:
    """Annotators without classes are no labels, and the row is named."""
    pq.write_table(pa.table({"post_tokens": [["a"], ["b"]], "annotators": annotators}), tmp_path / "train.parquet")
    assert "row 1: " in refusal("hatexplain", tmp_path)


LEFT = (
    ".DS_Store",
    "._one",
    "Thumbs.db",
    "Desktop.ini",
    "one~",
    "#one#",
    "~$one",
    ".one.swp",
    "one:Zone.Identifier",
    "one.bak",
)


def eraser(folder: Path) -> None:
    """A data set in ERASER's layout with one document in docs/."""
    (folder / "docs").mkdir()
    (folder / "docs" / "one").write_text("a fine film")
    json_lines(folder / "train.jsonl", {"annotation_id": "one", "classification": "POS", "evidences": []})


def test_what_a_desktop_leaves_is_no_document(tmp_path: Path) -> None:
    """Hidden files, indexes, locks and backups in docs/ are passed over, whatever they hold."""
    eraser(tmp_path)
    for name in LEFT:
        (tmp_path / "docs" / name).write_bytes(b"\0\0\xff\xfeBud1")
    assert dict(read_dataset(tmp_path).documents) == {"one": "a fine film"}
    assert load("movies", tmp_path)["text"][:] == ["a fine film"]


def test_only_documents_make_a_second_layout(tmp_path: Path) -> None:
    """A folder docs/ in which a desktop left its files does not contradict docs.jsonl."""
    eraser(tmp_path)
    json_lines(tmp_path / "docs.jsonl", {"docid": "one", "document": "a fine film"})
    (tmp_path / "docs" / "one").rename(tmp_path / "docs" / ".one")
    assert dict(read_dataset(tmp_path).documents) == {"one": "a fine film"}


@pytest.mark.parametrize(
    ("file", "line", "part"),
    [
        ("docs.jsonl", {"docid": "two", "document": "\ud800"}, "docs.jsonl, line 1 has half a surrogate pair"),
        ("docs.jsonl", {"docid": None, "document": TEXT}, "docid holds null"),
        ("docs.jsonl", '{"docid": ' + "[" * 99_999, "docs.jsonl, line 1 is nested too deeply"),
        ("docs.jsonl", "version https://git-lfs.github.com/spec/v1", "is a pointer of git's large-file storage"),
        (
            "train.jsonl",
            {"annotation_id": 1, "classification": [TEXT], "evidences": []},
            "classification holds [(54 ch",
        ),
        ("train.jsonl", {"annotation_id": 1, "classification": "POS", "evidences": [TEXT]}, "evidences holds [(54 ch"),
        ("train.jsonl", '{"annotation_id": ' + "1" * 5000 + "}", "a number of too many digits"),
        ("train.jsonl", "<html>SECRET</html>", "train.jsonl is a web page"),
    ],
)
def test_eraser_s_files_are_told_likewise(tmp_path: Path, file: str, line: object, part: str) -> None:
    """Documents and annotations that a table cannot hold, or that are something else, are told by file and line."""
    json_lines(tmp_path / "docs.jsonl", {"docid": "one", "document": TEXT})
    json_lines(tmp_path / "train.jsonl", {"annotation_id": "one", "classification": "POS", "evidences": []})
    json_lines(tmp_path / file, line)
    assert part in refusal("movies", tmp_path)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    """Trouble with a file is one line on standard error and exit code 2."""
    json_lines(tmp_path / "train.jsonl", {"\ud800": 1})
    answer = call(
        "run", "--task", "hatexplain", "--data-dir", tmp_path, "--backbone", tmp_path, "--out", tmp_path / "r"
    )
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
