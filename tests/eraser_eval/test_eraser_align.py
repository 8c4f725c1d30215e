"""Word pieces, words, tokens and windows: values arrive where their characters are, and come back exactly."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from bench.backbones.resolving import resolve, tokenizer
from bench.errors import InputError as BenchInputError
from eraser_eval import InputError, read_dataset
from eraser_eval.align import POOLINGS, Alignment, Pooling, align, merge_windows, token_offsets, windows
from eraser_eval.formats.documents import tokens

TEXTS = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from(" \t\n\r\u00a0\u200b\u0301\u202e👩‍👧ﬁß")), max_size=60
)
"""Any characters, with many blanks, joiners, combining marks and signs outside the basic plane."""

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def cut(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A text, and its tokens cut into pieces at random, with special tokens and padding around them."""
    text = draw(TEXTS)
    pieces = []
    for start, end in token_offsets(text).tolist():
        points = draw(st.sets(st.integers(start + 1, end - 1), max_size=4)) if end - start > 1 else set()
        pieces += list(pairwise([start, *sorted(points), end]))
    return text, [(0, 0), *pieces, (0, 0), (0, 0)]


@settings(deadline=None)
@given(TEXTS)
def test_offsets_are_those_of_the_tokens(text: str) -> None:
    """The characters of each run are its token, and between the runs there are only blanks and line ends."""
    offsets = token_offsets(text).tolist()
    assert [text[start:end] for start, end in offsets] == tokens(text)
    rest = set(range(len(text))) - {index for start, end in offsets for index in range(start, end)}
    assert {text[index] for index in rest} <= set(" \t\n\r\f\v")


@pytest.mark.parametrize("how", POOLINGS)
@settings(deadline=None)
@given(data=st.data())
def test_pooling_undoes_spreading(data: st.DataObject, how: Pooling) -> None:
    """Values of tokens spread over any pieces come back exactly, and special tokens get the filling."""
    text, pieces = data.draw(cut())
    alignment = align(pieces, token_offsets(text))
    values = data.draw(st.lists(NUMBERS, min_size=alignment.size, max_size=alignment.size))
    spread = alignment.spread(values, how=how, fill=-7.0)
    assert alignment.covered.all()
    assert alignment.pool(spread, how=how).tolist() == values
    assert [spread[0], *spread[-2:]] == [-7.0] * 3


@pytest.mark.parametrize("how", POOLINGS)
@settings(deadline=None)
@given(data=st.data())
def test_windows_come_back_together(data: st.DataObject, how: Pooling) -> None:
    """Values cut into windows with [CLS], [SEP] and padding merge into what was cut, overlapping or not."""
    length = data.draw(st.integers(0, 40))
    size = data.draw(st.integers(1, 12))
    overlap = 0 if how == "sum" else data.draw(st.integers(0, size - 1))
    values = data.draw(st.lists(NUMBERS, min_size=length, max_size=length))
    places = list(windows(length, size=size, overlap=overlap))
    padded = [[9e9, *(values[piece] for piece in place), 9e9, *[9e9] * (size - len(place))] for place in places]
    content = [[False, *[True] * len(place), False, *[False] * (size - len(place))] for place in places]
    assert merge_windows(padded, content, places, length=length, how=how).tolist() == values
    assert {piece for place in places for piece in place} == set(range(length))
    assert all(len(set(one) & set(other)) == overlap for one, other in pairwise(places))


def test_pooling_is_what_it_says() -> None:
    """Sum, mean and largest value of the pieces of each token; a token without a piece has the filling."""
    alignment = align([(0, 0), (0, 2), (2, 4), (5, 6), (9, 10)], [(0, 4), (5, 8), (8, 9)])
    values = [50.0, 1.0, -3.0, 2.0, 60.0]
    assert alignment.units.tolist() == [-1, 0, 0, 1, -1]
    assert alignment.pool(values, how="sum").tolist() == [-2.0, 2.0, 0.0]
    assert alignment.pool(values, how="mean").tolist() == [-1.0, 2.0, 0.0]
    assert alignment.pool(values, how="max", fill=-1.0).tolist() == [1.0, 2.0, -1.0]
    assert alignment.covered.tolist() == [True, True, False]


def test_pieces_go_to_words_and_words_to_tokens() -> None:
    """Two steps through words that are finer than tokens equal one step; a run over two tokens goes to the larger."""
    text = "don't stop"
    pieces, words = [(0, 2), (2, 3), (3, 5), (6, 8), (8, 10)], [(0, 3), (3, 4), (4, 5), (6, 10)]
    in_words = align(pieces, words)
    assert in_words.units.tolist() == [0, 0, 1, 3, 3]
    assert in_words.compose(align(words, token_offsets(text))).units.tolist() == [0, 0, 0, 1, 1]
    assert align(pieces, token_offsets(text)).units.tolist() == [0, 0, 0, 1, 1]
    assert align([(3, 10)], token_offsets(text)).units.tolist() == [1]


def test_windows_that_disagree_are_pooled() -> None:
    """A piece that two windows saw has their mean, sum or larger value; one that none saw has the filling."""
    values, content, places = [[1.0, 2.0], [4.0, 8.0]], [[True, True], [True, True]], [range(2), range(1, 3)]
    assert merge_windows(values, content, places, length=4).tolist() == [1.0, 3.0, 8.0, 0.0]
    assert merge_windows(values, content, places, length=4, how="sum", fill=-1.0).tolist() == [1.0, 6.0, 8.0, -1.0]
    assert merge_windows(values, content, places, length=4, how="max").tolist() == [1.0, 4.0, 8.0, 0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: align([(3, 1)], [(0, 4)]), r"\[3, 1\) ends before it starts"),
        (lambda: align([(0, 1)], [(0, 4), (3, 5)]), "overlap or are out of order"),
        (lambda: Alignment(np.array([0]), 1).pool([1.0, 2.0], how="sum"), "shape (2,) were given for 1 units"),
        (lambda: Alignment(np.array([0]), 1).spread([], how="sum"), "shape (0,) were given for 1 units"),
        (lambda: Alignment(np.array([0]), 1).pool([1.0], how="median"), "'median', but there are sum, mean, max"),  # type: ignore[arg-type]  # what is refused
        (lambda: Alignment(np.array([0]), 2).compose(Alignment(np.array([0]), 1)), "2 units cannot be aligned with 1"),
        (lambda: list(windows(5, size=3, overlap=3)), "windows of 3 pieces cannot overlap by 3"),
        (lambda: merge_windows([[1.0]], [[False]], [range(1)], length=1), "window 0 has 0 pieces"),
        (lambda: merge_windows([[1.0]], [[True]], [range(3, 4)], length=3), "reaches piece 3"),
    ],
)
def test_what_cannot_be_aligned_is_refused(call: object, message: str) -> None:
    """Runs, values and windows that do not fit together are named."""
    with pytest.raises(InputError, match=message.replace("(2,)", r"\(2,\)").replace("(0,)", r"\(0,\)")):
        call()  # type: ignore[operator]  # a lambda of the list above


@pytest.fixture(scope="module")
def pieces() -> PreTrainedTokenizerBase:
    """The packaged backbone's tokenizer."""
    try:
        return tokenizer(resolve("minilm"))
    except BenchInputError as error:
        pytest.skip(str(error))


def test_a_real_tokenizer_is_aligned(pieces: PreTrainedTokenizerBase) -> None:
    """Pieces of accented, joined, invisible and Chinese characters lie in the tokens that hold their characters."""
    text = "A naïve\u00a0café — “émigré” 👩‍👩‍👧 x\u200by ﬁne\t\u202eabc\n日本語 tests don't"
    found = pieces(text, return_offsets_mapping=True, padding="max_length", max_length=48)
    alignment = align(found["offset_mapping"], token_offsets(text))
    special = np.array(found.input_ids) < 103
    spans = token_offsets(text)
    assert (alignment.units[special & (np.array(found.input_ids) != 100)] == -1).all()
    for (start, end), unit in zip(found["offset_mapping"], alignment.units.tolist(), strict=True):
        assert unit == -1 or spans[unit][0] <= start < end <= spans[unit][1]
    assert alignment.covered.all()


@pytest.mark.skipif("EFFICIENT_BERT_DATA" not in os.environ, reason="EFFICIENT_BERT_DATA is not set")
def test_long_reviews_in_windows(pieces: PreTrainedTokenizerBase) -> None:
    """Token masks of real reviews, cut into windows of 512 word pieces, come back exactly."""
    documents = read_dataset(Path(os.environ["EFFICIENT_BERT_DATA"]) / "eraser" / "movies").documents
    for text in list(documents.values())[:20]:
        encoded = pieces(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        alignment = align(encoded["offset_mapping"], token_offsets(text))
        mask = np.arange(alignment.size) % 3 == 0
        spread = alignment.spread(mask, how="max")
        places = list(windows(len(spread), size=510, overlap=100))
        values = [[9.0, *spread[place.start : place.stop], 9.0] for place in places]
        content = [[False, *[True] * len(place), False] for place in places]
        whole = merge_windows(values, content, places, length=len(spread), how="max")
        assert (alignment.pool(whole, how="max").astype(bool) == mask)[alignment.covered].all()
        assert alignment.covered.mean() > 0.99
