"""Count what a tokenizer makes of texts, and let it read the names of special tokens as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SPECIAL = 2
"""[CLS] and [SEP], which every example has; a pair has one [SEP] more."""

MANY = 0.05
"""A share of unknown word pieces that a plan speaks of."""


@dataclass(frozen=True)
class Counts:
    """What the texts of a split are made of.

    Attributes:
        texts: rows, of which some may be several examples.
        rows: examples.
        pieces: word pieces, special tokens left out.
        unknown: those that the vocabulary does not have, [UNK].
        lost: examples that have no other.
        typed: rows whose text holds the name of a special token.
    """

    texts: int
    rows: int
    pieces: int
    unknown: int
    lost: int
    typed: int

    @property
    def notable(self) -> bool:
        """Whether so much is unknown that a reader of the results should know."""
        return self.lost > 0 or self.unknown > MANY * self.pieces


def as_text(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Let a tokenizer that splits special tokens in texts split those alone that structure its input.

    Other tokens that were added to it, such as [USER], are words of its backbone, and stay whole.
    """
    from tokenizers import Tokenizer

    structure = set(structural_tokens(tokenizer))
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if all(token["content"] in structure for token in content["added_tokens"] if token["special"]):
        return tokenizer
    for token in content["added_tokens"]:
        token["special"] = token["content"] in structure
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    return tokenizer


def structural_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the names of the special tokens that structure an input: in a text they are text."""
    names = (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token, tokenizer.mask_token, tokenizer.unk_token)
    return [name for name in names if name]


def save_tokenizer(folder: Path, *, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Save a tokenizer beside a model that was trained on `max_length` word pieces: `truncation=True` cuts there.

    How the texts of the training were cut is not saved with it.
    """
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for name in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def rows_without_words(encoded: Dataset, *, pairs: bool) -> list[int]:
    """Return the numbers of the examples without word pieces, or, of `pairs`, with a text without any."""
    lengths = encoded["length"][:]
    if not pairs:
        return [row for row, length in enumerate(lengths) if length <= SPECIAL]
    seconds = [sum(types) for types in encoded["token_type_ids"]]
    return [
        row
        for row, (length, second) in enumerate(zip(lengths, seconds, strict=True))
        if second <= 1 or length - second <= SPECIAL
    ]


def count(texts: Dataset, encoded: Dataset, tokenizer: PreTrainedTokenizerBase) -> Counts:
    """Count what the rows of a split, before and after they were cut into word pieces, are made of."""
    lengths = np.asarray(encoded["length"][:]) - SPECIAL - ("pair" in texts.column_names)
    pieces = encoded.data.column("input_ids").combine_chunks()
    edges = np.concatenate(([0], np.cumsum(encoded["length"][:])))
    unknown = np.add.reduceat(pieces.flatten().to_numpy() == tokenizer.unk_token_id, edges[:-1], dtype=np.int64)
    return Counts(
        texts=len(texts),
        rows=len(encoded),
        pieces=int(lengths.sum()),
        unknown=int(unknown.sum()),
        lost=int(((unknown == lengths) & (lengths > 0)).sum()),
        typed=count_rows_with(
            structural_tokens(tokenizer), [texts[name] for name in ("text", "pair") if name in texts.column_names]
        ),
    )


def count_rows_with(names: Sequence[str], columns: Sequence[Iterable[str]]) -> int:
    """Count the rows of these columns that hold one of the names in one of their texts."""
    return sum(any(name in text for text in row for name in names) for row in zip(*columns, strict=True))
