"""What was typed becomes values once, before anything is planned with it."""

from __future__ import annotations

import pytest

from bench.errors import InputError
from bench.planning.fitting import grid, parse_values
from bench.planning.settings import Settings
from bench.registry import METHODS, STAGES, all_knobs

KNOBS = (*all_knobs(METHODS["entropy_exit"]), *all_knobs(METHODS["flexible"]))
STAGE = STAGES["finetune"]


def test_text_becomes_values_of_the_knobs_types() -> None:
    """Numbers and lists in any spelling are one value; what belongs to no knob stays as it is."""
    settings = Settings(
        "sst2",
        knobs={"exit_threshold": ("0.30", "1e-1"), "width_mult_list": ("0.50,1.0",), "phi": ("0.1",)},
        options={"finetune.epochs": "3.0", "adapler.epochs": "3.0"},
    )
    parsed = parse_values(settings, [STAGE], KNOBS)
    assert parsed.knobs == {"exit_threshold": (0.3, 0.1), "width_mult_list": ("0.5,1",), "phi": ("0.1",)}
    assert repr(parsed.options) == "{'finetune.epochs': 3, 'adapler.epochs': '3.0'}"
    threshold = next(knob for knob in KNOBS if knob.name == "exit_threshold")
    assert grid([threshold], parsed.knobs) == [{"exit_threshold": 0.3}, {"exit_threshold": 0.1}]


def test_one_line_names_every_wrong_value() -> None:
    """Nobody has to try again for each value."""
    settings = Settings("sst2", knobs={"exit_threshold": ("x", "0.3", "-1")}, options={"finetune.epochs": "0.5"})
    with pytest.raises(InputError) as refused:
        parse_values(settings, [STAGE], KNOBS)
    assert str(refused.value).split("; ") == [
        "exit_threshold is 'x', but it takes a number in [0, inf)",
        "exit_threshold is -1.0, but it lies in [0, inf)",
        "epochs is '0.5', but it takes a whole number in [1, 1000]",
    ]
