"""Whether an arm's rounds agree, on samples whose disagreement is known."""

from __future__ import annotations

import random

import pytest

from bench.latency.repeats import LEAST_EXAMPLES, disagreement

LENGTHS = [5 + 3 * number for number in range(20)]


def samples(paces: list[float], *, noise: float = 0.0, examples: int = 20) -> list[list[float]]:
    """Seconds by example and round: an example's length times its round's pace, with noise."""
    draw = random.Random(0)  # noqa: S311 - a draw, no secret
    return [[0.001 * length * pace * (1 + noise * draw.random()) for pace in paces] for length in LENGTHS[:examples]]


def test_a_slow_round_is_named() -> None:
    """A round twice as slow is found whatever the examples' lengths, wherever it stands."""
    assert disagreement(samples([1, 1, 2, 1], noise=0.1)).startswith("round 3 took 2")
    assert "as long as round 2" in disagreement(samples([1, 0.7, 1, 1]))
    assert "round 2 took 1.5 times as long as round 1" in disagreement(samples([1, 1.5]))


@pytest.mark.parametrize("paces", [[1, 1.06, 0.98], [1, 1.2, 1.1], [3, 3, 3], [1]])
def test_rounds_that_drift_as_on_a_quiet_machine_agree(paces: list[float]) -> None:
    """What rounds of one arm differ by when nothing else runs is nothing to mention, nor is a single round."""
    assert disagreement(samples(paces, noise=0.05)) == ""


def test_single_slow_passes_are_no_slow_round() -> None:
    """A third of a round's passes three times as slow move tails, not the round."""
    spiky = samples([1, 1, 1])
    for example in spiky[::3]:
        example[1] *= 3
    assert disagreement(spiky) == ""


def test_too_few_examples_or_no_time_tell_nothing() -> None:
    """Of fewer than five examples nothing is said, nor where a clock counted nothing."""
    assert disagreement(samples([1, 2], examples=LEAST_EXAMPLES - 1)) == ""
    assert disagreement(samples([1, 2], examples=LEAST_EXAMPLES)) != ""
    assert disagreement([[0.0, 0.0]] * 8) == disagreement([[0.0, 0.1]] * 8) == ""
