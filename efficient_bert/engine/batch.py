"""Batches: rows of word pieces, padded on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from efficient_bert.errors import InputError


@dataclass(frozen=True)
class Batch:
    """A padded batch: input_ids and token_type_ids (B, L) int64, mask (B, L) bool."""

    input_ids: Tensor
    mask: Tensor
    token_type_ids: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> Batch:
        """Make a batch of what a tokenizer returns; a missing attention mask means no padding.

        Raises:
            InputError: a row holds no token at all.
        """
        ids, mask, types = inputs["input_ids"], inputs.get("attention_mask"), inputs.get("token_type_ids")
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        if ids.numel() == 0 or not bool(mask.any(1).all()):
            raise InputError("the batch has an example without tokens; every text needs at least [CLS]")
        return cls(ids, mask, torch.zeros_like(ids) if types is None else types)

    @classmethod
    def of_rows(
        cls, rows: Sequence[Mapping[str, Any]], *, pad_token_id: int, device: torch.device | str = "cpu"
    ) -> Batch:
        """Make a batch of encoded rows on a device, padded on the right to the longest row.

        Raises:
            InputError: a row holds no token at all.
        """
        return cls.of({name: part.to(device) for name, part in pad_rows(rows, pad_token_id=pad_token_id).items()})


def pad_rows(rows: Sequence[Mapping[str, Any]], *, pad_token_id: int) -> dict[str, Tensor]:
    """Pad rows on the right: int64 `input_ids`, `token_type_ids` and `attention_mask`, each (B, L)."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), pad_token_id)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[number, :length] = torch.tensor(row["input_ids"])
        types[number, :length] = torch.tensor(row["token_type_ids"])
        mask[number, :length] = 1
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
