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
from efficient_bert.rows import chunks

VECTORS = 100_000
"""Words of a vectors file that are read, the most frequent ones (TinyBERT's code)."""

TOKENS = 2048
"""Word pieces in a pass of the masked language model, whose answer has the whole vocabulary for each."""

Span = tuple[int, int, str]
"""First piece of a word, the piece after its last, and its text."""

Masked = tuple[Sequence[int], int]
"""The word pieces of a row, and the position of the one that is masked."""

Choice = tuple[int, int, Sequence[Sequence[int]]]
"""A word's first piece and the piece after its last, as in `Span`, and the word pieces of each candidate."""


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
        allowed = [piece not in special and not piece.startswith(("##", "[unused")) for piece in pieces]
        return torch.tensor(allowed, device=self.model.device)

    @property
    def uses_segments(self) -> bool:
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

    def nearest_words(self, word: str) -> list[list[int]]:
        """Return the pieces of the words whose vectors are nearest by cosine, without the word itself."""
        row_of, words, vectors = self.neighbours
        if word not in row_of:
            return []
        likeness = vectors @ vectors[row_of[word]]
        likeness[row_of[word]] = -2.0
        nearest = likeness.topk(min(self.count, len(words) - 1)).indices.tolist()
        return [self.tokenizer.encode(words[row], add_special_tokens=False) for row in nearest]

    def expected_pieces(self, masked: Sequence[Masked]) -> list[list[int]]:
        """Return the likeliest pieces at each position; rows of one length share passes, and none is padded."""
        pieces_of: list[list[int]] = [[]] * len(masked)
        by_length: dict[int, list[int]] = {}
        for number, (ids, _) in enumerate(masked):
            by_length.setdefault(len(ids), []).append(number)
        for length, numbers in by_length.items():
            for chunk in chunks(numbers, max(1, TOKENS // (2 * length))):
                likeliest = self.likeliest_pieces([masked[number] for number in chunk])
                for number, pieces in zip(chunk, likeliest, strict=True):
                    pieces_of[number] = pieces
        return pieces_of

    @torch.inference_mode()
    def likeliest_pieces(self, masked_rows: Sequence[Masked]) -> list[list[int]]:
        """Run one pass over rows of one length, each masked at its position and followed by itself where that fits."""
        device, rows = self.model.device, torch.arange(len(masked_rows))
        ids, positions = (torch.tensor(part) for part in zip(*masked_rows, strict=True))
        again = ids[:, 1:] if 2 * ids.shape[1] - 1 <= self.model.config.max_position_embeddings else ids[:, :0]
        types = torch.cat([torch.zeros_like(ids), torch.ones_like(again)], dim=1)
        masked = ids.index_put((rows, positions), torch.tensor(int(self.tokenizer.mask_token_id or 0)))
        segments = {"token_type_ids": types.to(device)} if self.uses_segments else {}
        logits = self.model(input_ids=torch.cat([masked, again], dim=1).to(device), **segments).logits
        allowed = self.replacements
        word_logits = logits[rows.to(device), positions.to(device), : len(allowed)].masked_fill(~allowed, -torch.inf)
        likeliest: list[list[int]] = word_logits.topk(min(self.count, int(allowed.sum()))).indices.tolist()
        return likeliest

    def choices(self, rows: Sequence[Sequence[int]]) -> list[list[Choice]]:
        """Return for each row every word that has candidates."""
        spans = [words_of(self.tokenizer.convert_ids_to_tokens(list(ids))) for ids in rows]
        masked = [
            (ids, start)
            for ids, row_spans in zip(rows, spans, strict=True)
            for start, end, _ in row_spans
            if end == start + 1
        ]
        expected = iter(self.expected_pieces(masked))
        choices: list[list[Choice]] = []
        for row_spans in spans:
            words = [
                (start, end, [[piece] for piece in next(expected)] if end == start + 1 else self.nearest_words(word))
                for start, end, word in row_spans
            ]
            choices.append([word for word in words if word[2]])
        return choices


def read_vectors(path: Path) -> tuple[list[str], Tensor]:
    """Read the first `VECTORS` words of a file, and their vectors (V, d).

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
                expected = f"{size} finite numbers" if vectors else "its numbers"
                raise InputError(
                    f"{path}, line {number} is no word in UTF-8 with {expected}; mend it, or give another file"
                )
            words.append(word)
            vectors.append(vector)
    return words, torch.tensor(vectors) if vectors else torch.zeros(0, 1)


def words_of(pieces: Sequence[str]) -> list[Span]:
    """Return the words that may be replaced: letters a to z alone, and no stop words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    starts = [index for index, piece in enumerate(pieces) if not piece.startswith("##")]
    spans = [
        (start, end, "".join(piece.removeprefix("##") for piece in pieces[start:end]))
        for start, end in zip(starts, [*starts[1:], len(pieces)], strict=True)
    ]
    return [span for span in spans if re.fullmatch("[a-z]+", span[2]) and span[2] not in ENGLISH_STOP_WORDS]
