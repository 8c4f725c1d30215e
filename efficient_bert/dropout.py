"""Dropout that a CPU draws several times faster than torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16
"""Numbers of two bytes, four of which are drawn at once."""


def dropout(values: Tensor, rate: float) -> Tensor:
    """Each value zero with probability `rate` (on a CPU to 1 / LEVELS), the others divided by 1 - rate."""
    level = round(rate * LEVELS)
    if values.device.type != "cpu" or not 0 < level < LEVELS:
        return F.dropout(values, rate) if rate else values
    count, low = values.numel(), level - LEVELS // 2 - 1
    draws = torch.empty(count // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    stays = draws.clamp_(low, low + 1).sub_(low)  # 0 or 1; a comparison's bool would cost more to multiply with
    return values * stays.view(values.shape).to(values.dtype).div_(1 - rate)


class Dropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        """(...) -> (...)."""
        return dropout(values, self.p) if self.training else values
