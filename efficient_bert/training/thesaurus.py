"""Words that may stand for a word: those a masked language model expects, and neighbours among word vectors."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from efficient_bert.errors import InputError
from efficient_bert.training.batches import in_order

VECTORS = 100_000
"""Words of a vectors file that are read, the most frequent ones (TinyBERT's code)."""

TOKENS = 2048
"""Word pieces in a pass of the masked language model, whose answer has the whole vocabulary for each."""

Span = tuple[int, int, str]
"""First piece of a word, the piece after its last, and its text."""

Choice = tuple[int, int, Sequence[Sequence[int]]]
"""A word's place, as in `Span`, and the word pieces of each candidate."""


@dataclass(frozen=True)
class Thesaurus:
    """Where candidates come from.

    Attributes:
        tokenizer, model: of the masked language model.
        vectors: file of word vectors, or None.
        count: candidates of a word.
    """

    tokenizer: PreTrainedTokenizerBase
    model: Any
    vectors: Path | None
    count: int

    @cached_property
    def replacements(self) -> Tensor:
        """(V,) bool: pieces that may stand for a word: no special ones, no parts of words."""
        pieces = self.tokenizer.convert_ids_to_tokens([*range(len(self.tokenizer))])
        special = set(self.tokenizer.all_special_tokens)
        return torch.tensor([piece not in special and not piece.startswith(("##", "[unused")) for piece in pieces])

    @property
    def segmented(self) -> bool:
        """Whether the model tells two texts apart."""
        return "token_type_ids" in self.tokenizer.model_input_names

    @cached_property
    def neighbours(self) -> tuple[dict[str, int], list[str], Tensor]:
        """Word -> its row, the rows' words, and their vectors of length 1.

        Raises:
            InputError: as `read_vectors`.
        """
        words, vectors = read_vectors(self.vectors or Path(os.devnull))
        return {word: row for row, word in enumerate(words)}, words, torch.nn.functional.normalize(vectors, dim=1)

    def near(self, word: str) -> list[list[int]]:
        """The pieces of the words whose vectors are nearest by cosine, the word itself left out."""
        places, words, vectors = self.neighbours
        if word not in places:
            return []
        likeness = vectors @ vectors[places[word]]
        likeness[places[word]] = -2.0
        nearest = likeness.topk(min(self.count, len(words) - 1)).indices.tolist()
        return [self.tokenizer.encode(words[row], add_special_tokens=False) for row in nearest]

    @torch.inference_mode()
    def expected(self, ids: Sequence[int], places: Sequence[int]) -> list[list[int]]:
        """For each place of a row, the pieces that are likeliest there, where the unmasked row follows."""
        given = [*ids, *ids[1:]] if 2 * len(ids) - 1 <= self.model.config.max_position_embeddings else list(ids)
        types = torch.tensor([0] * len(ids) + [1] * (len(given) - len(ids)), device=self.model.device)
        allowed = self.replacements.to(self.model.device)
        count = min(self.count, int(allowed.sum()))
        found: list[list[int]] = []
        for chunk in in_order(places, max(1, TOKENS // len(given))):
            masked = torch.tensor(given, device=self.model.device).repeat(len(chunk), 1)
            rows = torch.arange(len(chunk))
            masked[rows, list(chunk)] = int(self.tokenizer.mask_token_id or 0)
            segments = {"token_type_ids": types.expand_as(masked)} if self.segmented else {}
            logits = self.model(input_ids=masked, **segments).logits[rows, list(chunk), : len(allowed)]
            found += logits.masked_fill(~allowed, -torch.inf).topk(count).indices.tolist()
        return found

    def choices(self, ids: Sequence[int]) -> list[Choice]:
        """Every word of a row that has candidates."""
        spans = words_of(self.tokenizer.convert_ids_to_tokens(list(ids)))
        single = [start for start, end, _ in spans if end == start + 1]
        expected = dict(zip(single, self.expected(ids, single), strict=True))
        found: list[Choice] = []
        for start, end, word in spans:
            candidates = [[piece] for piece in expected[start]] if start in expected else self.near(word)
            if candidates:
                found.append((start, end, candidates))
        return found


def read_vectors(path: Path) -> tuple[list[str], Tensor]:
    """The first `VECTORS` words of a file, and their vectors (V, d).

    A first line that counts words and numbers is passed over. The next one's length gives d; what stands before a
    line's last d numbers is its word, which may have blanks.

    Raises:
        InputError: a line is no word in UTF-8 with d finite numbers.
    """
    words: list[str] = []
    vectors: list[list[float]] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            fields = re.split(rb"[ \t]+", line.strip(b" \t\r\n"))
            if number == 1 and len(fields) == 2 and all(map(bytes.isdigit, fields)):
                continue
            if len(words) == VECTORS:
                break
            size = len(vectors[0]) if vectors else len(fields) - 1
            try:
                word, vector = b" ".join(fields[:-size]).decode(), [float(field) for field in fields[-size:]]
            except ValueError:
                word, vector = "", []
            if not word or not all(map(math.isfinite, vector)):
                wanted = f"{size} finite numbers" if vectors else "its numbers"
                raise InputError(
                    f"{path}, line {number} is no word in UTF-8 with {wanted}; mend it, or give another file"
                )
            words.append(word)
            vectors.append(vector)
    return words, torch.tensor(vectors) if vectors else torch.zeros(0, 1)


def words_of(pieces: Sequence[str]) -> list[Span]:
    """The words that may be replaced: letters a to z alone, and no stop words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    starts = [place for place, piece in enumerate(pieces) if not piece.startswith("##")]
    spans = [
        (start, end, "".join(piece.removeprefix("##") for piece in pieces[start:end]))
        for start, end in zip(starts, [*starts[1:], len(pieces)], strict=True)
    ]
    return [span for span in spans if re.fullmatch("[a-z]+", span[2]) and span[2] not in ENGLISH_STOP_WORDS]
