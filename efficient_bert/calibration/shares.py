"""Read the shares that a control follows off measured profiles.

Shapes: G gates, K classes of width, T thresholds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from efficient_bert.calibration.profiles import Profiles
from efficient_bert.config import EfficientBertConfig
from efficient_bert.errors import InputError
from efficient_bert.policies.choice_controls import Shares


def gate_shares(config: EfficientBertConfig, profiles: Profiles) -> tuple[Shares, ...]:
    """Return the measured shares of each gate among all examples.

    Raises:
        InputError: none were measured.
    """
    if len(profiles.gate_profile) != config.num_gates or not profiles.gate_profile:
        raise InputError(
            f"the model has no gate profile of its own; give --class-rates with {len(config.widths)} shares, or train "
            "stage 'gates' again"
        )
    return profiles.gate_profile


def staying_shares(config: EfficientBertConfig, profiles: Profiles, threshold: float) -> tuple[Shares, ...]:
    """Return the measured shares of each gate among the examples that are still there at an exit threshold.

    Raises:
        InputError: none were measured.
    """
    gate_shares(config, profiles)
    if len(profiles.staying_profile) != len(profiles.exit_profile) or not profiles.exit_profile:
        raise InputError(
            f"the model has no profile of those who stay; give --class-rates with {len(config.widths)} shares, or "
            "train stage 'gates' again"
        )
    return tuple(map(tuple, interpolate(profiles, profiles.staying_profile, threshold).tolist()))


def leaving_shares(config: EfficientBertConfig, profiles: Profiles, threshold: float) -> Shares:
    """Return the measured share of all examples that leaves at each exit depth at an exit threshold.

    Raises:
        InputError: none were measured.
    """
    exits = len(config.exit_depths)
    if not profiles.exit_profile or len(profiles.exit_profile[0]) != exits + 1:
        raise InputError(
            f"the model has no exit profile of its own; give --exit-rates with {exits} shares, or train stage 'final' "
            "again"
        )
    return tuple(interpolate(profiles, profiles.exit_profile, threshold)[1:].tolist())


def interpolate(profiles: Profiles, profile: Sequence[Any], threshold: float) -> Tensor:
    """Interpolate a profile, one row for each threshold of `exit_profile`, at another threshold: (T, ...) -> (...)."""
    thresholds, rows = [row[0] for row in profiles.exit_profile], torch.tensor(profile, dtype=torch.float64)
    above = min(bisect_right(thresholds, threshold), len(thresholds) - 1)
    if not above:
        return rows[0]
    part = (threshold - thresholds[above - 1]) / (thresholds[above] - thresholds[above - 1])
    return torch.lerp(rows[above - 1], rows[above], min(1.0, part))
