"""Long texts in windows of whole words, one example each."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WINDOW = re.compile(r"#\d+\Z")
"""How the example_id of a window ends."""


def windows(
    rows: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> Iterator[dict[str, Any]]:
    """Cut texts into windows that follow one another and have at most `max_length` word pieces.

    Yields:
        Per window: example_id (the text's, "#" and the window's number), text_id (the text's), its text's label,
        input_ids and token_type_ids with [CLS] and [SEP], and words: for each word piece the number of its
        whitespace-separated word in the whole text, -1 for [CLS] and [SEP].
    """
    texts = [text.split() for text in rows["text"]]
    pieces = tokenizer(texts, is_split_into_words=True, add_special_tokens=False, verbose=False)
    for row, (name, label) in enumerate(zip(rows["example_id"], rows["label"], strict=True)):
        ids, words = pieces["input_ids"][row], pieces.word_ids(row)
        for number, (start, end) in enumerate(spans(words, max_length - 2)):
            yield {
                "example_id": f"{name}#{number}",
                "text_id": name,
                "label": label,
                "input_ids": [tokenizer.cls_token_id, *ids[start:end], tokenizer.sep_token_id],
                "token_type_ids": [0] * (end - start + 2),
                "words": [-1, *words[start:end], -1],
                "cut": False,
            }


def spans(words: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Return half-open runs of word pieces: as many whole words as `room` holds; a longer word is cut.

    Args:
        words: the word of each piece, rising.
        room: pieces in a window.
    """
    runs, start = [], 0
    while start < len(words):
        end = min(start + room, len(words))
        if end < len(words):
            word = bisect_left(words, words[end])  # where the word begins that would be cut, or the next one
            end = word if word > start else end
        runs.append((start, end))
        start = end
    return runs or [(0, 0)]


def with_text_ids(table: pa.Table, *, windows: bool) -> pa.Table:
    """Add text_id to a table of examples of before it was a column: where texts were read in windows, by the ids."""
    names = table["example_id"].to_pylist()
    texts = [WINDOW.sub("", name) for name in names] if windows else names
    return table.add_column(1, "text_id", pa.array(texts, pa.string()))
