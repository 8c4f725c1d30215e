"""Long texts: cut into windows of whole words, or truncated, without a word of warning."""

from __future__ import annotations

import os
import re
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from bench.data.loading import encode, load_split
from bench.data.windows import spans
from bench.registry import TASKS
from bench.store.runs import RunStore
from eraser_eval.formats.schema import Annotation, write_dataset
from tests.support.command_line import call
from tests.support.tiny import tokenizer_folder
from tests.support.tiny_files import write_backbone, write_sst2


@pytest.fixture
def tokenizer(tmp_path: Path) -> BertTokenizer:
    """Words of one piece, and "longword" of three."""
    folder = tokenizer_folder(tmp_path, words=["a", "b", "c", "long", "##wo", "##rd", "."])
    loaded: BertTokenizer = BertTokenizer.from_pretrained(folder)
    return loaded


def table(*texts: str) -> datasets.Dataset:
    """A loaded split whose rows are all of class 1."""
    rows = {"example_id": [f"d{n}" for n in range(len(texts))], "text": list(texts), "label": [1] * len(texts)}
    return datasets.Dataset.from_dict(rows)


def test_a_window_ends_where_a_word_ends(tokenizer: BertTokenizer) -> None:
    """By hand: 5 word pieces a window; the word that does not fit opens the next window, with its document's label."""
    encoded = encode(table("a b c longword\nb.", "c"), tokenizer, max_length=7, windows=True)
    pieces = [tokenizer.convert_ids_to_tokens(ids) for ids in encoded["input_ids"]]
    assert pieces == [
        ["[CLS]", "a", "b", "c", "[SEP]"],
        ["[CLS]", "long", "##wo", "##rd", "b", ".", "[SEP]"],
        ["[CLS]", "c", "[SEP]"],
    ]
    assert encoded["words"][:] == [[-1, 0, 1, 2, -1], [-1, 3, 3, 3, 4, 4, -1], [-1, 0, -1]]
    assert encoded["example_id"][:] == ["d0#0", "d0#1", "d1#0"]
    assert encoded["label"][:] == [1, 1, 1]
    assert encoded["length"][:] == [5, 7, 3]
    assert {piece for types in encoded["token_type_ids"] for piece in types} == {0}


def test_a_word_longer_than_a_window_is_cut(tokenizer: BertTokenizer) -> None:
    """A word that no window holds is cut between word pieces; none is lost."""
    encoded = encode(table("a longword b"), tokenizer, max_length=4, windows=True)
    assert encoded["words"][:] == [[-1, 0, -1], [-1, 1, 1, -1], [-1, 1, 2, -1]]


def test_a_text_without_word_pieces_is_one_window(tokenizer: BertTokenizer) -> None:
    """What the tokenizer leaves nothing of is [CLS] [SEP], so that it still has an answer."""
    encoded = encode(table("\u200b", "a"), tokenizer, max_length=8, windows=True)
    assert encoded["input_ids"][:] == [[2, 3], [2, 5, 3]]


@given(st.lists(st.integers(1, 6), max_size=30), st.integers(1, 8))
def test_spans_are_whole_short_and_few(sizes: list[int], room: int) -> None:
    """Spans follow one another, hold at most `room` pieces, cut only longer words, and had no room for the next."""
    words = [word for word, size in enumerate(sizes) for _ in range(size)]
    found = spans(words, room)
    assert [piece for start, end in found for piece in range(start, end)] == list(range(len(words)))
    for start, end in found:
        assert end - start <= room
        if 0 < end < len(words):
            cut = words[end - 1] == words[end]
            assert not cut or sizes[words[end]] > room
            assert cut or end - start + sizes[words[end]] > room


@pytest.mark.parametrize(("windows", "examples"), [(False, 1), (True, 50)])
def test_5000_words_make_no_noise(
    tokenizer: BertTokenizer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    windows: bool, examples: int,
) -> None:  # fmt: skip
    """A text of 5,000 words is truncated, or cut into 50 windows of 100, and nothing is printed, logged or warned."""
    encoded = encode(table("a " * 5000), tokenizer, max_length=102, windows=windows)
    assert encoded["length"][:] == [102] * examples
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_plan_tells_of_5000_words(tmp_path: Path) -> None:
    """Rows of 5,000 words among SST-2's, held out or not, are trained on, and the plan says that they are cut."""
    data = write_sst2(tmp_path / "sst2", train=96, dev=8)
    with (data / "train.tsv").open("a", encoding="utf8") as file:
        file.writelines(f"{word} {'film ' * 4999}\t{label}\n" for label in (0, 1) for word in ("a", "b", "c"))
    small = ("--backbone", write_backbone(tmp_path / "bert"), "--max-length", 10, "--preset", "smoke")
    answer = call("train", "--task", "sst2", "--method", "full", "--train-rows", 102, *small, "--data-dir", data,
                  "--store", tmp_path)  # fmt: skip
    assert answer.code == 0, answer.err
    assert re.search(r"^data .* at most 10 word pieces \(longer texts, which are cut: \d+\)$", answer.out, re.MULTILINE)


def test_a_run_scores_every_window(tmp_path: Path) -> None:
    """A run on movies has an example per window, with its review's label, and may report on another split."""
    reviews = {f"r{n}.txt": " ".join(["the", "film", "was", ("dull", "fine")[n % 2]] * (n % 5 + 1)) for n in range(40)}
    annotations = [Annotation(name, "", ("NEG", "POS")[n % 2], (), (name,)) for n, name in enumerate(reviews)]
    write_dataset(tmp_path / "movies", reviews, {"train": annotations, "val": annotations[:5]})
    small = ("--backbone", write_backbone(tmp_path / "bert"), "--max-length", 10, "--preset", "smoke")
    places = ("--data-dir", tmp_path / "movies", "--store", tmp_path, "--report", tmp_path / "report")
    answer = call("run", "--task", "movies", "--method", "full", "--split", "validation", *small, *places)
    assert answer.code == 0, answer.err
    (run_id,) = RunStore(tmp_path / "runs").ids()
    examples = RunStore(tmp_path / "runs").examples(run_id)
    # reviews of 4, 8, 12, 16 and 20 words, in windows of 8
    assert examples["example_id"].to_pylist() == [
        "r0.txt#0", "r1.txt#0", "r2.txt#0", "r2.txt#1", "r3.txt#0", "r3.txt#1", "r4.txt#0", "r4.txt#1", "r4.txt#2"
    ]  # fmt: skip
    assert examples["label"].to_pylist() == [0, 1, 0, 0, 1, 1, 0, 0, 0]
    assert examples["length"].to_pylist() == [6, 10, 10, 6, 10, 10, 10, 10, 6]


@pytest.mark.skipif("EFFICIENT_BERT_DATA" not in os.environ, reason="EFFICIENT_BERT_DATA is not set")
def test_windows_of_a_review_are_the_review(tokenizer: BertTokenizer) -> None:
    """The windows of real reviews hold the word pieces of the whole text in order, and every word."""
    reviews = load_split(TASKS["movies"], "validation", data_dir=Path(os.environ["EFFICIENT_BERT_DATA"]), seed=0)
    some = reviews.select(range(5))
    rows = encode(some, tokenizer, max_length=128, windows=True).to_list()
    for review in some:
        own = [row for row in rows if row["example_id"].partition("#")[0] == review["example_id"]]
        whole = tokenizer(review["text"], add_special_tokens=False, verbose=False)["input_ids"]
        assert [piece for row in own for piece in row["input_ids"][1:-1]] == whole
        assert {word for row in own for word in row["words"]} == {-1, *range(len(review["text"].split()))}
