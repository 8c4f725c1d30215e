"""Whatever a data folder holds, reading it gives one line, or the rows that were written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from bench.data.loading import encode, hold_out, load_split
from bench.errors import InputError
from bench.registry import TASKS
from tests.support.foreign_data import COLUMNS, SECRET, Draw, Truth, json_lines, rows, tab_separated
from tests.support.foreign_tables import parquet, save_to_disk

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""How many folders are made; a thorough search takes thousands."""


def folder(draw: Draw, base: Path) -> Truth:
    """Write a training split in some layout, sound or damaged."""
    truth = rows(draw)
    others = [parquet, save_to_disk] if truth.task != "hatexplain" else [json_lines, parquet]
    layout = draw(st.sampled_from([*others, *([tab_separated] if COLUMNS[truth.task].tsv else [])]))
    layout(draw, truth, base)
    if draw(st.integers(0, 24)) == 0:
        second_layout(draw, truth, base)
    return truth


def second_layout(draw: Draw, truth: Truth, base: Path) -> None:
    """The same split once more."""
    below = base / draw(st.sampled_from(["", "data", TASKS[truth.task].folder]))
    below.mkdir(parents=True, exist_ok=True)
    if not (below / "train.parquet").exists():
        truth.spoil()
        pq.write_table(pa.table({"sentence": ["x"]}), below / "train.parquet")


def require_one_line(error: InputError) -> None:
    """A refusal is one short line that quotes no text."""
    message = str(error)
    assert "\n" not in message
    assert len(message) < 600, message
    assert SECRET not in message.replace(f"'{SECRET}'", ""), message


def read(truth: Truth, base: Path) -> datasets.Dataset | None:
    """The table, or None where the folder is refused; whether it had to be or must not be is known."""
    try:
        loaded = load_split(TASKS[truth.task], "train", data_dir=base, seed=0)
    except InputError as error:
        require_one_line(error)
        if truth.sound:
            raise
        return None
    assert truth.sound is not False
    return loaded


def require_rows(loaded: datasets.Dataset, truth: Truth) -> None:
    """The table holds what was written, row by row."""
    columns = [loaded[name][:] for name in ("text", "pair") if name in loaded.column_names]
    assert list(zip(*columns, strict=True)) == truth.texts
    assert loaded["label"][:] == pytest.approx(truth.labels)
    assert len(set(loaded["example_id"])) == len(truth.texts)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    """A tokenizer of a few word pieces."""
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "secret", "a", "##1", "."]), encoding="utf8"
    )
    loaded: BertTokenizer = BertTokenizer.from_pretrained(path.parent)
    return loaded


def require_parts(loaded: datasets.Dataset, tokenizer: BertTokenizer) -> None:
    """Held-out rows and those that are left are different rows of the table, and each is encoded once."""
    try:
        rest, heldout = hold_out(loaded, seed=0)
        encoded = encode(rest, tokenizer, max_length=16)
    except InputError as error:
        require_one_line(error)
        return
    assert not set(rest["example_id"]) & set(heldout["example_id"])
    assert {*rest["example_id"], *heldout["example_id"]} <= set(loaded["example_id"])
    assert encoded["example_id"][:] == rest["example_id"][:]


@settings(deadline=None, max_examples=EXAMPLES)
@given(data=st.data())
def test_foreign_folders_are_read_right_or_refused(data: st.DataObject, tokenizer: BertTokenizer) -> None:
    """A folder with damage is refused in one line without its texts; a sound one gives its rows and labels."""
    with tempfile.TemporaryDirectory() as name:
        truth = folder(data.draw, Path(name))
        loaded = read(truth, Path(name))
    if loaded is not None:
        require_rows(loaded, truth)
        require_parts(loaded, tokenizer)
