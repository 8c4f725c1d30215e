"""A split is read from one whole set of files, or refused by the files' names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data.loading import load_split
from bench.errors import InputError
from bench.registry import TASKS

HASH = "-0a1b2c3d4e5f6071"


def load(folder: Path, task: str = "sst2", split: str = "train") -> list[str]:
    """The texts of a split."""
    return list(load_split(TASKS[task], split, data_dir=folder, seed=0)["text"])


def refusal(folder: Path, task: str = "sst2", split: str = "train") -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        load(folder, task, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, names: Sequence[str]) -> None:
    """Parquet files of one row each, whose text is the file's name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"sentence": [name], "label": [1]}), folder / name)


def of(count: int, *numbers: int, head: str = "train", tail: str = "") -> list[str]:
    """Names of shards."""
    return [f"{head}-{number:05d}-of-{count:05d}{tail}.parquet" for number in numbers]


@pytest.mark.parametrize(
    "names",
    [
        of(3, 0, 1, 2),
        of(11, *range(11)),
        of(1, 0, tail=HASH),
        [*of(2, 0, tail=HASH), *of(2, 1, tail="-1122334455667788")],
        of(2, 0, 1, head="data/train"),
        of(2, 0, 1, head="train/train"),
        of(2, 0, 1, head="train/part"),
        [f"train/{number:04d}.parquet" for number in range(12)],
        [f"train-{number}.parquet" for number in range(12)],
        ["train/part.0.parquet", "train/part.1.parquet"],
        ["train-clean.parquet"],
    ],
)
def test_whole_sets_are_read_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    """Every way in which one program writes a split is read, each file once, also beside what a desktop leaves."""
    write(tmp_path, names)
    for hidden in ("._train-00000-of-00001.parquet", "train/._0000.parquet", "train/~$0000.parquet", ".DS_Store"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"\0\5\26\7")
    assert load(tmp_path) == names


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ([*of(1, 0), *of(1, 0, tail=" (1)")], ["train-00000-of-00001 (1).parquet", "keep one set"]),
        ([*of(2, 0, 1), *of(2, 1, tail=" copy")], ["copy.parquet"]),
        ([*of(2, 0, 1), *of(2, 0, tail=HASH)], [HASH, "different sets"]),
        ([*of(2, 0), *of(2, 1, tail=HASH)], ["different sets"]),
        ([*of(1, 0, tail=HASH), *of(1, 0, tail="-ffffffffffffffff")], ["have the same number"]),
        (["train-00000-of-00001.parquet", "train-0-of-1.parquet"], ["different sets"]),
        (["train-0.parquet", "train-00.parquet"], ["have the same number"]),
        ([*of(2, 0, 1), *of(3, 2)], ["train-00002-of-00003.parquet", "different sets"]),
        (["train.parquet", *of(1, 0)], ["train.parquet", "train-00000-of-00001.parquet"]),
        (["train.parquet", "train (1).parquet"], ["train (1).parquet"]),
        (["train.parquet", "train-old.parquet"], ["train-old.parquet"]),
        (["train/0000.parquet", "train.parquet"], ["train/0000.parquet"]),
        ([*of(1, 0), *of(1, 0, head="data/train")], ["data/train-00000-of-00001.parquet"]),
        ([*of(1, 0, head="sst2/train"), *of(2, 0, 1)], ["sst2/train-00000-of-00001.parquet"]),
        (of(3, 0, 1), ["number 2 is missing (of 3, counted from 0)"]),
        (of(2, 1), ["number 0 is missing"]),
        (of(9999999, 0), ["number 1, 2, 3 and more is missing (of 9999999"]),
        (of(2, 0, 1, 2), ["train-00002-of-00002.parquet is beyond"]),
        (["train/0000.parquet", "train/0002.parquet"], ["number 1 is missing"]),
        (["train/0001.parquet"], ["number 0 is missing"]),
    ],
)
def test_what_is_not_one_whole_set_is_refused(tmp_path: Path, names: list[str], parts: list[str]) -> None:
    """Twins, copies, gaps, leftovers of another cutting and sets in two places are told by their files."""
    write(tmp_path, names)
    message = refusal(tmp_path)
    assert "the files of the 'train' split are not one whole set" in message
    assert [part for part in parts if part not in message] == []


def saved(folder: Path, shards: int = 3) -> Path:
    """A training split that save_to_disk wrote."""
    rows = {"sentence": ["a", "b", "c"], "label": [0, 1, 1]}
    datasets.Dataset.from_dict(rows).save_to_disk(folder / "train", num_shards=shards)
    return folder / "train"


def test_a_saved_data_set_is_held_against_its_state(tmp_path: Path) -> None:
    """Files that state.json lists are there once each, and no others; what the library caches is none of them."""
    folder = saved(tmp_path)
    first, state = folder / "data-00000-of-00003.arrow", folder / "state.json"
    (folder / "cache-1f2e.arrow").write_bytes(b"")
    assert load(tmp_path) == ["a", "b", "c"]
    shutil.copy(first, folder / "data-00000-of-00002.arrow")
    assert "does not list: data-00000-of-00002.arrow" in refusal(tmp_path)
    (folder / "data-00000-of-00002.arrow").unlink()
    whole = json.loads(state.read_text())
    for files, part in (
        (whole["_data_files"][:2], "does not list: data-00002-of-00003.arrow"),
        ([*whole["_data_files"], whole["_data_files"][0]], "lists files twice"),
        (None, "cannot be read as a saved data set"),
        ([{"filename": str(tmp_path / "other.arrow")}], "lacks files"),
    ):
        state.write_text(json.dumps(whole | {"_data_files": files}))
        assert part in refusal(tmp_path)
    (folder / "data-00002-of-00003.arrow").unlink()
    state.write_text(json.dumps(whole | {"_data_files": whole["_data_files"][:2]}))
    assert "number 2 is missing (of 3" in refusal(tmp_path)
    state.write_text(json.dumps(whole))
    assert "lacks files that its state.json lists: data-00002-of-00003.arrow" in refusal(tmp_path)
    state.unlink()
    assert "cannot be read as a saved data set" in refusal(tmp_path)


def test_a_split_that_an_earlier_saving_left_is_refused(tmp_path: Path) -> None:
    """A folder that dataset_dict.json does not list belongs to another data set."""
    saved(tmp_path, shards=1)
    for content, part in (
        ('{"splits": ["validation"]}', "does not list 'train'"),
        ('{"splits": 7}', "cannot be read as a saved data set (dataset_dict.json)"),
    ):
        (tmp_path / "dataset_dict.json").write_text(content)
        assert part in refusal(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert load(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("other", ["train.parquet", "train/0000.parquet", "glue/SST-2/train.parquet"])
def test_a_split_in_two_layouts_is_refused(tmp_path: Path, other: str) -> None:
    """Neither TSV nor a saved data set nor parquet wins: both are named."""
    saved(tmp_path)
    write(tmp_path, [other])
    message = refusal(tmp_path)
    assert "holds the 'train' split of task 'sst2' more than once" in message
    assert f"{other} and train" in message or f"train and {other}" in message


def test_text_files_beside_tables_are_refused(tmp_path: Path) -> None:
    """So is a TSV beside parquet, in one folder or in two, and JSON lines beside parquet; other splits are read."""
    write(tmp_path, ["validation.parquet", "train.parquet"])
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na\t1\n")
    assert "dev.tsv and validation.parquet" in refusal(tmp_path, split="validation")
    (tmp_path / "SST-2").mkdir()
    shutil.move(tmp_path / "dev.tsv", tmp_path / "SST-2" / "dev.tsv")
    assert "SST-2/dev.tsv and validation.parquet" in refusal(tmp_path, split="validation")
    (tmp_path / "train.jsonl").write_text("")
    assert "train.jsonl and train.parquet" in refusal(tmp_path, task="hatexplain")
    assert load(tmp_path) == ["train.parquet"]


def test_one_folder_of_two_names_is_one(tmp_path: Path) -> None:
    """A link to the folder itself does not make two splits of one."""
    write(tmp_path, ["train.parquet"])
    (tmp_path / "SST-2").symlink_to(tmp_path)
    assert load(tmp_path) == ["train.parquet"]
