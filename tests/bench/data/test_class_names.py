"""Class names that the data carries decide what its numbers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data.labels import class_number, renumbering
from bench.data.loading import fingerprint, load_split
from bench.errors import InputError
from bench.rationales.gold import read_gold
from bench.registry import TASKS

TEXTS = ["one film", "two films", "three films"]


def load(task: str, folder: Path, split: str = "train") -> datasets.Dataset:
    """A split from a folder."""
    return load_split(TASKS[task], split, data_dir=folder, seed=0)


def refusal(task: str, folder: Path, split: str = "train") -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        load(task, folder, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(path: Path, columns: Mapping[str, object], features: object = None) -> None:
    """A parquet file, with Hugging Face's metadata where features are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def sst2(path: Path, labels: Sequence[object], names: Sequence[str] | None = None, **feature: object) -> None:
    """Rows of SST-2 whose label column has class names."""
    described = {"label": {"_type": "ClassLabel", "names": names, **feature}} if names or feature else None
    parquet(path, {"sentence": TEXTS[: len(labels)], "label": labels}, described)


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (["positive", "negative"], [0, 1, 0]),
        (["Positive ", "NEGATIVE"], [0, 1, 0]),
        (["pos", "neg"], [0, 1, 0]),
        (["neg", "pos"], [1, 0, 1]),
        (["1", "0"], [0, 1, 0]),
        (["LABEL_0", "LABEL_1"], [1, 0, 1]),
        (None, [1, 0, 1]),
        (None, ["positive", "Negative", "pos"]),
        (None, [1.0, 0.0, 1.0]),
        (None, [" 1", "0", "1.0"]),
    ],
)
def test_equal_rows_have_equal_fingerprints_whatever_their_classes_numbers(
    tmp_path: Path, names: list[str] | None, stored: list[object]
) -> None:
    """Labels are carried over by name, so that the same rows give the same table."""
    (tmp_path / "tsv").mkdir()
    (tmp_path / "tsv" / "train.tsv").write_text("sentence\tlabel\none film\t1\ntwo films\t0\nthree films\t1\n")
    sst2(tmp_path / "parquet" / "train.parquet", stored, names)
    loaded = load("sst2", tmp_path / "parquet")
    assert loaded["label"][:] == [1, 0, 1]
    assert fingerprint(loaded) == fingerprint(load("sst2", tmp_path / "tsv"))


def test_shards_and_splits_each_have_their_own_names(tmp_path: Path) -> None:
    """The numbers of a file are read by the names of that file."""
    sst2(tmp_path / "train-00000-of-00002.parquet", [0, 1], ["positive", "negative"])
    sst2(tmp_path / "train-00001-of-00002.parquet", [0, 1], ["negative", "positive"])
    sst2(tmp_path / "validation.parquet", [0, 1])
    assert load("sst2", tmp_path)["label"][:] == [1, 0, 0, 1]
    assert load("sst2", tmp_path, "validation")["label"][:] == [0, 1]


@pytest.mark.parametrize(
    "names", [["contradiction", "entailment", "neutral"], ["Neutral", "CONTRADICTION", "Entailment"]]
)
def test_a_saved_data_set_s_features_name_its_classes(tmp_path: Path, names: list[str]) -> None:
    """save_to_disk keeps class names beside the numbers, and these decide; a format for tensors changes nothing."""
    features = {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string")}
    wanted = ["entailment", "neutral", "contradiction"]
    numbers = [[name.lower() for name in names].index(name) for name in wanted]
    rows = {"premise": TEXTS, "hypothesis": TEXTS, "label": numbers}
    saved = datasets.Dataset.from_dict(rows, datasets.Features(features | {"label": datasets.ClassLabel(names=names)}))
    saved.with_format("numpy", columns=["label"]).save_to_disk(tmp_path / "train")
    assert load("mnli", tmp_path)["label"][:] == [0, 1, 2]


@pytest.mark.parametrize("nested", [False, True])
def test_votes_are_named_too(tmp_path: Path, nested: bool) -> None:
    """HateXplain's annotators vote by numbers whose names lie two levels down."""
    feature = {"label": {"_type": "ClassLabel", "names": ["normal", "offensive", "hatespeech"]}}
    votes = [[0, 0, 1], [2, 1, 2], [1, 1, 1]]
    column = [[{"label": vote} for vote in row] if nested else {"label": row} for row in votes]
    described: object = [feature] if nested else {"feature": feature, "_type": "Sequence"}
    columns = {"post_tokens": [text.split() for text in TEXTS], "annotators": column}
    parquet(tmp_path / "train.parquet", columns, {"annotators": described})
    assert load("hatexplain", tmp_path)["label"][:] == [1, 0, 2]


@pytest.mark.parametrize(
    "names", [["bad", "good"], ["negative", "neutral", "positive"], ["positive"], ["negative", "negative"], ["1", "2"]]
)
def test_names_of_other_classes_are_refused_with_both_lists(tmp_path: Path, names: list[str]) -> None:
    """Numbers of classes that are not one for one the task's are no labels of it."""
    sst2(tmp_path / "train.parquet", [0, 0, 0], names)
    message = refusal("sst2", tmp_path)
    assert "train.parquet: its labels are numbers of the classes 0" in message
    assert [name for name in [*names, "0 (negative), 1 (positive)"] if name not in message] == []


def test_a_class_s_number_is_no_score(tmp_path: Path) -> None:
    """A regression refuses labels that have class names, and takes whole numbers as scores."""
    columns = {"sentence1": ["a"], "sentence2": ["b"], "label": [4]}
    parquet(tmp_path / "validation.parquet", columns)
    parquet(tmp_path / "train.parquet", columns, {"label": {"_type": "ClassLabel", "names": list("abcde")}})
    assert load("stsb", tmp_path, "validation")["label"][:] == [4.0]
    assert "0 (a), 1 (b)" in refusal("stsb", tmp_path)


def test_a_split_without_labels_needs_no_names(tmp_path: Path) -> None:
    """Rows that are to be answered are labelled -1 whatever their label column holds."""
    sst2(tmp_path / "test.parquet", [-1, -1, -1], ["positive", "negative"])
    assert load("sst2", tmp_path, "test")["label"][:] == [-1, -1, -1]
    sst2(tmp_path / "train.parquet", [-1, 0, 1], ["positive", "negative"])
    assert "row 1: the label is -1" in refusal("sst2", tmp_path)


@pytest.mark.parametrize("label", [True, None, 0.5, 2, float("nan"), "true", "", "9" * 5000, "1_0", "\u0661", [1]])
def test_what_stands_for_no_class_is_refused(tmp_path: Path, label: object) -> None:
    """Truth values, fractions, other digits and missing labels are no class numbers; the row is named."""
    sst2(tmp_path / "train.parquet", [label])
    assert "train.parquet, row 1: the label is " in refusal("sst2", tmp_path)


def test_metadata_that_is_damaged_is_refused(tmp_path: Path) -> None:
    """Names that cannot be read might have mattered."""
    table = pa.table({"sentence": ["a"], "label": [1]}).replace_schema_metadata({"huggingface": "{"})
    pq.write_table(table, tmp_path / "train.parquet")
    assert "its Hugging Face metadata is no JSON" in refusal("sst2", tmp_path)


def test_marked_posts_have_the_task_s_own_class_names(tmp_path: Path) -> None:
    """The gold of rationales is named as answers are, whether the file says 0, Normal or normal."""
    rows = [("p", "Normal"), ("q", 0), ("r", "offensive")]
    lines = [{"post_id": name, "text": "a b", "label": label, "rationale_spans": [[0, 1]]} for name, label in rows]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    gold = read_gold(TASKS["hatexplain"], "val", data_dir=tmp_path)
    assert [annotation.classification for annotation in gold.annotations] == ["normal", "hatespeech", "offensive"]


def test_spelling_never_decides_between_two_classes() -> None:
    """Names that differ in signs alone are told apart by their exact spelling only."""
    assert renumbering(["-", "+"], ["+", "-"]) == [1, 0]
    assert renumbering(["Not Equivalent", "EQUIVALENT"], ["equivalent", "not_equivalent"]) == [1, 0]
    assert class_number("c", ["C", "C++"]) is None
    assert class_number("Sci-Tech", ["World", "Sci/Tech"]) == 1
