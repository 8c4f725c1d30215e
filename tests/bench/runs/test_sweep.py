"""What a sweep runs beside the methods that were asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.errors import InputError
from bench.planning.checks import check_controls
from bench.planning.settings import Settings
from bench.registry import METHODS
from bench.runs.sweep import methods_to_sweep


def test_controls_stand_beside_their_methods() -> None:
    """Those of the methods that are swept, unless they are not wanted."""
    assert methods_to_sweep(["adapler"], {"eta_scale": [0.5, 1.0]}, controls=False) == ("adapler",)
    found = methods_to_sweep(["width_gates", "prefix_exit"], {"exit_threshold": [0.1, 0.3]}, controls=True)
    assert set(found) == {"width_gates", "prefix_exit", "random_widths", "constant_widths", "random_exits"}


def test_a_control_whose_lengths_are_typed_follows_nobody() -> None:
    """Where its profile is given, it is the user who set it beside the point."""
    methods = [METHODS["adapler"], METHODS["last_tokens"]]
    settings = Settings("sst2", knobs={"eta_scale": (0.5,)})
    with pytest.raises(InputError, match="last_tokens has no points along eta_scale"):
        check_controls(settings, methods)
    check_controls(replace(settings, knobs={**settings.knobs, "profile": ("0.9/0.5",)}), methods)
