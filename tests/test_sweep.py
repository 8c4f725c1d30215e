"""What a sweep runs beside the methods that were asked for."""

from __future__ import annotations

from bench.sweep import swept_methods


def test_controls_stand_beside_their_methods() -> None:
    """Those of the methods that are swept, unless they are not wanted."""
    assert swept_methods(["adapler"], {"eta_scale": [0.5, 1.0]}, controls=False) == ("adapler",)
    found = swept_methods(["width_gates", "prefix_exit"], {"exit_threshold": [0.1, 0.3]}, controls=True)
    assert set(found) == {"width_gates", "prefix_exit", "random_widths", "constant_widths", "random_exits"}
