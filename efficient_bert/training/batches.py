"""Batches of like length, padded to their own longest: little of a step is spent on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from efficient_bert.engine.batch import Batch, pad_rows
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import Rows, chunks

POOL = 50
"""Batches sorted by length together: enough that a batch is even, few enough that batches stay random."""


class LengthBuckets:
    """Index batches of one epoch: shuffled, sorted by length within pools of `POOL` batches, shuffled again.

    Every example occurs once; the order depends on seed and epoch alone, so that a resumed epoch sees the same one.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed * 10_007 + epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        order = random_permutation(len(self.lengths), generator)
        batches: list[list[int]] = []
        for start in range(0, len(order), self.batch_size * POOL):
            pool = sorted(order[start : start + self.batch_size * POOL], key=lambda row: self.lengths[row])
            batches += [pool[first : first + self.batch_size] for first in range(0, len(pool), self.batch_size)]
        return iter([batches[number] for number in random_permutation(len(batches), generator)])

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)


def random_permutation(count: int, generator: torch.Generator) -> list[int]:
    """Return a random order of 0..count-1."""
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def batch_of(model: EfficientBertForSequenceClassification, inputs: Mapping[str, Tensor]) -> Batch:
    """Move a collated batch to the model's device."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Batch.of({name: inputs[name].to(model.device) for name in names})


def collate(rows: Rows, *, pad_token_id: int) -> dict[str, Tensor]:
    """Pad rows on the right: int64 `input_ids`, `token_type_ids` and `attention_mask` (B, L), and `labels` (B,)."""
    labels = torch.tensor([row["label"] for row in rows])
    return {**pad_rows(rows, pad_token_id=pad_token_id), "labels": labels}


def labelled_batches(model: EfficientBertForSequenceClassification, rows: Rows) -> Iterator[tuple[Batch, Tensor]]:
    """Yield batches with their labels (B,), both on the model's device."""
    for chunk in chunks(rows):
        inputs = collate(chunk, pad_token_id=model.config.padding)
        yield batch_of(model, inputs), inputs["labels"].to(model.device)


def length_order(rows: Rows, *, first_by: str = "") -> list[int]:
    """Return row numbers, shortest row first, so that a batch of neighbours has little padding.

    Args:
        first_by: a field of the rows to sort by before length, so that rows with equal values are neighbours.
    """
    return sorted(range(len(rows)), key=lambda row: (rows[row].get(first_by, 0), len(rows[row]["input_ids"])))


def compute_by_length(rows: Rows, compute: Callable[[Rows], Tensor], *, first_by: str = "") -> Tensor:
    """Compute something for each row, (rows, ...), in batches of rows of similar length."""
    order = length_order(rows, first_by=first_by)
    packed = torch.cat([compute([rows[row] for row in chunk]) for chunk in chunks(order)])
    return torch.empty_like(packed).index_copy(0, torch.tensor(order), packed)
