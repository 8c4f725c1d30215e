"""The layouts of the published data sets, in tiny files with the published headers, and what is wrong with a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data.loading import hold_out, load_split
from bench.errors import InputError
from bench.registry import TASKS
from bench.tasks.hatexplain import majority
from eraser_eval.formats.schema import Annotation, Evidence, write_dataset

needs_data = pytest.mark.skipif("EFFICIENT_BERT_DATA" not in os.environ, reason="EFFICIENT_BERT_DATA is not set")

MNLI_HEADER = "index promptID pairID genre s1_binary s2_binary s1_parse s2_parse sentence1 sentence2 label1 gold_label"
STSB_HEADER = "index genre filename year old_index source1 source2 sentence1 sentence2 score"


def tsv(path: Path, *rows: str | Sequence[str]) -> Path:
    """A file of tab-separated rows; a string is cut at its blanks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = [row.split() if isinstance(row, str) else row for row in rows]
    path.write_text("".join("\t".join(row) + "\n" for row in cut), encoding="utf8")
    return path


def json_lines(path: Path, *rows: object) -> Path:
    """A file with a JSON value per line; a string is a line as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf8")
    return path


def parquet(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """A parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def load(task: str, split: str, folder: Path) -> datasets.Dataset:
    """A split from a folder."""
    return load_split(TASKS[task], split, data_dir=folder, seed=0)


def refusal(task: str, split: str, folder: Path) -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        load(task, split, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_qnli_reads_questions_with_sentences(tmp_path: Path) -> None:
    """QNLI's columns are question, sentence and a class by name; its test file has no label column."""
    tsv(tmp_path / "train.tsv", "index question sentence label", "0 who? me not_entailment", "1 what? that entailment")
    tsv(tmp_path / "test.tsv", "index question sentence", "0 where? here")
    train, test = load("qnli", "train", tmp_path), load("qnli", "test", tmp_path)
    assert (train["text"][:], train["pair"][:], train["label"][:]) == (["who?", "what?"], ["me", "that"], [1, 0])
    assert test[0] == {"example_id": "test-0", "text": "where?", "pair": "here", "label": -1}


def test_mnli_reads_matched_and_mismatched_and_the_diagnostics(tmp_path: Path) -> None:
    """MNLI's splits lie in files of several widths, GLUE's diagnostics in a folder beside."""
    folder = tmp_path / "glue" / "MNLI"
    tsv(folder / "train.tsv", MNLI_HEADER, "0 p x g b b q q one two neutral neutral")
    wide = MNLI_HEADER.replace("label1", "label1 label2 label3 label4 label5")
    tsv(folder / "dev_mismatched.tsv", wide, "0 p x g b b q q three four neutral a b c d contradiction")
    tsv(folder / "test_matched.tsv", MNLI_HEADER.removesuffix(" label1 gold_label"), "0 p x g b b q q five six")
    tsv(tmp_path / "glue" / "diagnostic" / "diagnostic.tsv", "index sentence1 sentence2", "0 seven eight")
    found = {split: load("mnli", split, tmp_path)[0] for split in ("train", "validation_mismatched")}
    assert [(row["text"], row["pair"], row["label"]) for row in found.values()] == [
        ("one", "two", 1),
        ("three", "four", 2),
    ]
    for place in (tmp_path, tmp_path / "glue"):
        assert load("mnli", "test_matched", place)["pair"][:] == ["six"]
        assert load("mnli", "ax", place)[0] == {"example_id": "ax-0", "text": "seven", "pair": "eight", "label": -1}
    assert "diagnostic.tsv" in refusal("mnli", "ax", folder)


def test_the_diagnostics_have_a_place_of_their_own_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNLI's `ax` is the test split of GLUE's configuration `ax`, whose labels are -1 there."""
    parquet(tmp_path / "ax" / "test-0.parquet", {"premise": ["a"], "hypothesis": ["b"], "label": [-1]})
    asked: list[object] = []

    def answer(repository: str, **options: object) -> str:
        asked.append((repository, options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    loaded = load_split(TASKS["mnli"], "ax", data_dir=None, seed=0)
    assert loaded.to_dict() == {"example_id": ["ax-0"], "text": ["a"], "pair": ["b"], "label": [-1]}
    assert asked == [("nyu-mll/glue", ["ax/test-*.parquet"])]


def test_cola_has_a_header_row_in_its_test_file_only(tmp_path: Path) -> None:
    """CoLA's labelled files start with an example, its test file with names; lines are counted accordingly."""
    path = tsv(tmp_path / "train.tsv", ["gj04", "1", "", "They left."], ["gj04", "0", "*", "Them left."])
    tsv(tmp_path / "test.tsv", "index sentence", ["0", "We left."])
    assert load("cola", "train", tmp_path)["text"][:] == ["They left.", "Them left."]
    assert load("cola", "train", tmp_path)["label"][:] == [1, 0]
    assert load("cola", "test", tmp_path)["text"][:] == ["We left."]
    tsv(path, ["gj04", "1", "", "They left."], ["gj04", "2", "*", "Them left."])
    assert "train.tsv, line 2: the label is '2'" in refusal("cola", "train", tmp_path)
    tsv(path, ["gj04", "1", "", "They left."], ["gj04", "Them left."])
    assert "train.tsv, line 2: 2 tab-separated fields, but its header has 4" in refusal("cola", "train", tmp_path)


def test_broken_rows_of_qqp_are_left_out_unless_they_have_to_be_answered(tmp_path: Path) -> None:
    """A row of QQP that is torn in two or lacks a question is no training example; every test row is kept."""
    header = "id qid1 qid2 question1 question2 is_duplicate"
    torn = ["4", "5", "6", '"half a'], ["question", "other", "1"]
    rows = ["1", "2", "3", "a b", "c d", "1"], *torn, ["7", "8", "9", " ", "e", "0"], ["9", "8", "7", "f", "g", "0"]
    path = tsv(tmp_path / "train.tsv", header, *rows)
    tsv(tmp_path / "test.tsv", "id question1 question2", ["0", "a", "b"], ["1", "c"], ["2", "", "d"])
    train, test = load("qqp", "train", tmp_path), load("qqp", "test", tmp_path)
    assert list(zip(train["text"], train["pair"], train["label"], strict=True)) == [("a b", "c d", 1), ("f", "g", 0)]
    assert list(zip(test["text"], test["pair"], strict=True)) == [("a", "b"), ("c", ""), ("", "d")]
    tsv(path, header, *rows, ["9", "8", "7", "f", "g", "3"])
    assert "train.tsv, line 7: the label is '3'" in refusal("qqp", "train", tmp_path)


def test_sts_b_has_real_valued_scores(tmp_path: Path) -> None:
    """STS-B's labels are numbers from 0 to 5; anything else is refused with its line."""
    row = ["0", "news", "f", "2012", "1", "s", "s", "one", "two"]
    tsv(tmp_path / "train.tsv", STSB_HEADER, [*row, "3.750"], [*row, "5"])
    loaded = load("stsb", "train", tmp_path)
    assert loaded.features["label"].dtype == "float64"
    assert loaded["label"][:] == [3.75, 5.0]
    for wrong in ("5.1", "-0.1", "nan", "high", ""):
        tsv(tmp_path / "train.tsv", STSB_HEADER, [*row, "3.750"], [*row, wrong])
        assert f"line 3: the label is '{wrong}', but task 'stsb' has scores of 0 to 5" in refusal(
            "stsb", "train", tmp_path
        )


def test_news_and_articles_come_as_parquet(tmp_path: Path) -> None:
    """AG News and DBpedia are read as the hub stores them; of DBpedia the content alone."""
    parquet(tmp_path / "ag_news" / "data" / "train-0.parquet", {"text": ["Oil up"], "label": [2]})
    parquet(
        tmp_path / "dbpedia" / "dbpedia_14" / "test-0.parquet", {"label": [13], "title": ["T"], "content": [" A book."]}
    )
    assert load("ag_news", "train", tmp_path)[0] == {"example_id": "train-0", "text": "Oil up", "label": 2}
    assert load("dbpedia", "test", tmp_path)[0] == {"example_id": "test-0", "text": " A book.", "label": 13}


def test_hatexplain_is_read_from_json_lines(tmp_path: Path) -> None:
    """Posts keep their own names, classes are given by name, and blank lines do not count as rows."""
    rows = [{"post_id": f"p{n}", "text": f"some {n}", "label": name} for n, name in enumerate(("normal", "offensive"))]
    json_lines(tmp_path / "hatexplain" / "val.jsonl", rows[0], "", rows[1])
    loaded = load("hatexplain", "validation", tmp_path)
    assert loaded.to_dict() == {"example_id": ["p0", "p1"], "text": ["some 0", "some 1"], "label": [1, 2]}


def test_two_rows_of_one_name_are_refused(tmp_path: Path) -> None:
    """Maps and answers are kept by name, so that each names one row."""
    json_lines(tmp_path / "hatexplain" / "val.jsonl", *[{"post_id": "p", "text": "some", "label": "normal"}] * 2)
    with pytest.raises(InputError, match=r"line 2: its id 'p' is that of .* line 1 too; give each row its own"):
        load("hatexplain", "validation", tmp_path)


TEXT = "SECRET words of a post that no message may ever repeat"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"post_id": "p", "text": "' + TEXT, ["line 2 is no JSON text", "each line is one object"]),
        ([TEXT], ["line 2 is a list", "JSON object"]),
        ({"post_id": "p", "text": TEXT}, ["line 2 has no column 'label'", "it has post_id, text"]),
        (
            {"post_id": "p", "text": TEXT, "label": "rude"},
            ["line 2: the label is 'rude'", "0 (hatespeech), 1 (normal)"],
        ),
        ({"post_id": "p", "text": "normal", "label": TEXT}, ["line 2: the label is (54 characters)", "2 (offensive)"]),
        ({"post_id": "p", "text": [TEXT], "label": "normal"}, ["line 2: the text is of type list", "a string"]),
        ({"post_id": "p", "text": None, "label": "normal"}, ["line 2: the text is None", "a string"]),
        ({"post_id": "p", "text": " \t", "label": "normal"}, ["line 2: the text is empty", "remove the row"]),
    ],
)
def test_malformed_json_lines_are_named_without_their_text(tmp_path: Path, line: object, parts: list[str]) -> None:
    """A bad line is told by file, number, label and rule, and never by its text."""
    json_lines(tmp_path / "train.jsonl", {"post_id": "o", "text": "fine", "label": "normal"}, line)
    found = refusal("hatexplain", "train", tmp_path)
    assert "train.jsonl, " in found
    assert [part for part in parts if part not in found] == []
    assert "SECRET" not in found


@pytest.mark.parametrize("nested", [False, True])
def test_hatexplain_on_the_hub_is_put_to_the_vote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    """The hub's rows hold words and the annotators' classes, in either form; the majority's class is the label."""
    votes = [[0, 2, 0], [1, 1, 1], [2, 0, 2]]
    annotators: list[object] = [[{"label": vote} for vote in row] if nested else {"label": row} for row in votes]
    columns: dict[str, list[object]] = {
        "annotators": annotators,
        "post_tokens": [["x", "y"], ["z"], ["u", "v", "w"]],
    }
    parquet(tmp_path / "plain_text" / "train" / "0000.parquet", columns)
    asked: dict[str, object] = {}

    def answer(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    loaded = load_split(TASKS["hatexplain"], "train", data_dir=None, seed=0)
    assert (loaded["text"][:], loaded["label"][:]) == (["x y", "z", "u v w"], [0, 1, 2])
    assert asked["repository"] == "Hate-speech-CNERG/hatexplain"
    assert asked["revision"] == "refs/convert/parquet"
    assert asked["allow_patterns"] == ["plain_text/train/*.parquet"]


def test_a_post_without_a_majority_is_refused(tmp_path: Path) -> None:
    """Three annotators of three minds give no label, which is said by row and without the post."""
    assert majority(["a"], {"label": ["normal", "offensive", "hatespeech"]}) == ("a", "no majority")
    parquet(tmp_path / "train.parquet", {"annotators": [{"label": [0, 1, 2]}], "post_tokens": [["SECRET"]]})
    found = refusal("hatexplain", "train", tmp_path)
    assert "row 1: the label is 'no majority'" in found
    assert "SECRET" not in found


def annotation(name: str, label: str, docids: tuple[str, ...] = ()) -> Annotation:
    """An annotation about the document of its own name."""
    return Annotation(name, "", label, ((Evidence(name, 0, 1),),), docids or (name,))


def test_movies_are_read_from_eraser_s_layout(tmp_path: Path) -> None:
    """A document with its annotation's class is an example, named as there; `validation` is ERASER's `val`."""
    documents = {"one.txt": "a fine film\nindeed", "two.txt": "a dull film"}
    write_dataset(
        tmp_path / "eraser" / "movies",
        documents,
        {"train": [annotation("one.txt", "POS"), annotation("two.txt", "NEG")], "val": [annotation("two.txt", "NEG")]},
    )
    assert load("movies", "train", tmp_path).to_dict() == {
        "example_id": ["one.txt", "two.txt"],
        "text": list(documents.values()),
        "label": [1, 0],
    }
    assert load("movies", "validation", tmp_path / "eraser")["example_id"][:] == ["two.txt"]
    assert "docs/ and test.jsonl, or test-*.parquet" in refusal("movies", "test", tmp_path)


def test_malformed_annotations_are_named(tmp_path: Path) -> None:
    """A class that movies do not have, and an annotation of two documents, are told by file and annotation."""
    documents = {"one.txt": "a fine film", "two.txt": "a dull film"}
    write_dataset(tmp_path, documents, {"train": [annotation("one.txt", "GOOD")]})
    assert "train.jsonl, annotation 'one.txt': the label is 'GOOD'" in refusal("movies", "train", tmp_path)
    write_dataset(tmp_path, documents, {"train": [annotation("one.txt", "POS", tuple(documents))]})
    assert "is about 2 documents, but task 'movies' classifies one" in refusal("movies", "train", tmp_path)
    write_dataset(tmp_path, documents, {"train": []})
    assert "no rows" in refusal("movies", "train", tmp_path)


def test_a_label_may_be_absent_only_where_there_are_none(tmp_path: Path) -> None:
    """A test split without labels loads; -1 or no label column in a training split does not."""
    for split in ("train", "test"):
        parquet(tmp_path / f"{split}.parquet", {"sentence": ["a"], "label": [-1]})
    assert load("sst2", "test", tmp_path)["label"][:] == [-1]
    assert "row 1: the label is -1" in refusal("sst2", "train", tmp_path)
    tsv(tmp_path / "SST-2" / "train.tsv", "index sentence", "0 fine")
    assert "no column 'label'" in refusal("sst2", "train", tmp_path / "SST-2")


def test_an_empty_text_is_refused_unless_it_has_to_be_answered(tmp_path: Path) -> None:
    """A labelled example without words is refused by line; a row for the leaderboard is kept."""
    tsv(tmp_path / "train.tsv", "sentence label", ["fine", "1"], ["  ", "0"])
    tsv(tmp_path / "test.tsv", "index sentence", ["0", ""])
    assert "train.tsv, line 3: the text is empty" in refusal("sst2", "train", tmp_path)
    assert load("sst2", "test", tmp_path)["text"][:] == [""]


def test_a_file_without_its_header_does_not_end_up_in_a_message(tmp_path: Path) -> None:
    """Where a header row is expected and a text stands, only short names are shown."""
    tsv(tmp_path / "train.tsv", [TEXT, "1"])
    found = refusal("sst2", "train", tmp_path)
    assert "no column 'sentence' (it has (54 characters), 1)" in found


def test_training_rows_of_one_class_are_refused() -> None:
    """Nothing can be learned from one class; the message holds the label."""
    table = datasets.Dataset.from_dict({"example_id": ["a"] * 9, "text": ["t"] * 9, "label": [1] * 9})
    with pytest.raises(InputError, match="all 9 training rows have the label 1, but training needs two classes"):
        hold_out(table, seed=0)


def test_scores_are_held_out_at_random() -> None:
    """A regression has no classes to stratify by: a tenth is held out, whatever the scores are."""
    names = [f"e{n}" for n in range(100)]
    rows = {"example_id": names, "text": names, "label": [n / 20 for n in range(100)]}
    rest, heldout = hold_out(datasets.Dataset.from_dict(rows), seed=0)
    assert len(heldout) == 10
    assert sorted([*rest["example_id"], *heldout["example_id"]]) == sorted(names)


def test_a_decoder_is_given_the_labels_of_a_split_that_has_them(tmp_path: Path) -> None:
    """Where a split has no labels there is nothing to decode them from, and its texts are read as they are."""
    task = replace(TASKS["hatexplain"], unlabelled={"test": "none.tsv"}, json_lines=None, decode=None, text="text")
    parquet(tmp_path / "test.parquet", {"text": ["a"]})
    assert load_split(task, "test", data_dir=tmp_path, seed=0)["label"][:] == [-1]


@needs_data
@pytest.mark.parametrize(
    ("name", "split", "rows", "labels"),
    [
        ("hatexplain", "train", 15383, {0: 4748, 1: 6251, 2: 4384}),
        ("hatexplain", "validation", 1922, {0: 593, 1: 781, 2: 548}),
        ("hatexplain", "test", 1924, {0: 594, 1: 782, 2: 548}),
        ("movies", "train", 1600, {0: 800, 1: 800}),
        ("movies", "validation", 200, {0: 100, 1: 100}),
        ("movies", "test", 199, {0: 100, 1: 99}),
        ("sst2", "test", 1821, {-1: 1821}),
        ("mrpc", "test", 1725, {-1: 1725}),
        ("rte", "test", 3000, {-1: 3000}),
    ],
)
def test_published_data_has_its_published_size(name: str, split: str, rows: int, labels: dict[int, int]) -> None:
    """Each split has the rows and classes that its authors state, and distinct names."""
    loaded = load(name, split, Path(os.environ["EFFICIENT_BERT_DATA"]))
    assert len(loaded) == rows == len(set(loaded["example_id"]))
    assert {label: loaded["label"][:].count(label) for label in set(loaded["label"])} == labels
