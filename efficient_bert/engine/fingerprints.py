"""Random numbers of an example that depend on its word pieces and a seed, never on its batch."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 0xFFFFFFFF
_TURNS = ((15, 0x2C1B3C6D), (12, 0x297A2D39))


def scramble(numbers: Tensor) -> Tensor:
    """Mix the bits of numbers, so that close numbers lie anywhere afterwards: int64 -> int64 in [0, 2^32)."""
    for shift, factor in _TURNS:
        numbers = ((numbers ^ (numbers >> shift)) * factor) & _BITS
    return numbers ^ (numbers >> 15)


def fingerprints(ids: Tensor, mask: Tensor) -> Tensor:
    """Hash each row's live word pieces (B, L) in their order: (B,) int64 in [0, 2^32); padding changes nothing."""
    placed = scramble(ids * 0x9E3779B1 + mask.cumsum(1) * 0x85EBCA77)
    return (placed * mask).sum(1) & _BITS


def uniform_draws(numbers: Tensor, *, seed: int, turn: int) -> Tensor:
    """Draw a uniform number for each fingerprint: (B,) -> (B,) float64 in [0, 1), others for each turn and seed."""
    mixed = scramble(torch.full_like(numbers, (seed * 0xC2B2AE3D + turn * 0x27D4EB2F) & _BITS))
    return scramble((numbers + mixed * 0x9E3779B1) & _BITS).double() / 2**32
