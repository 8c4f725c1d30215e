"""What a sweep runs beside the methods that were asked for."""

from __future__ import annotations

import pytest

from bench.errors import InputError
from bench.sweep import swept_methods


def test_controls_need_points_along_what_their_method_sweeps() -> None:
    """A control that cannot follow its method's knob is refused; a knob of other methods does not concern it."""
    with pytest.raises(InputError, match="_tokens has no points along eta_scale"):
        swept_methods(["adapler"], {"eta_scale": [0.5, 1.0]}, controls=True)
    assert swept_methods(["adapler"], {"eta_scale": [0.5, 1.0]}, controls=False) == ("adapler",)
    found = swept_methods(["width_gates", "prefix_exit"], {"exit_threshold": [0.1, 0.3]}, controls=True)
    assert set(found) == {"width_gates", "prefix_exit", "random_widths", "constant_widths", "random_exits"}
