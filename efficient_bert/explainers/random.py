"""Control: scores that no model has made."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from efficient_bert.explainers import Explainer, Question


def explain(question: Question) -> Tensor:
    """Return independent uniform numbers, (B, 1, L); a text has the same ones in every batch."""
    ids, mask = question.batch.input_ids.cpu(), question.batch.mask.cpu()
    scores = torch.zeros(mask.shape)
    for row, (word_pieces, present) in enumerate(zip(ids, mask, strict=True)):
        seed = zlib.crc32(repr(word_pieces[present].tolist()).encode())
        scores[row, present] = torch.rand(int(present.sum()), generator=torch.Generator().manual_seed(seed))
    return scores[:, None].to(question.batch.mask.device)


RANDOM = Explainer(
    name="random",
    summary="control: uniform random numbers, fixed by the text",
    source="DeYoung et al., 2020, section 5",
    explain=explain,
    control=True,
)
