"""Exit rules against scipy and a plain loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from bench.registry import METHODS
from efficient_bert.errors import InputError
from efficient_bert.policies.exit_rules import entropy, exits_agree, is_certain
from tests.support.tiny import tiny_config


def test_entropy_equals_scipys() -> None:
    """The entropy in nats of softmaxed logits is scipy's."""
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    expected = scipy.stats.entropy(scipy.special.softmax(logits.numpy(), axis=1), axis=1)
    np.testing.assert_allclose(entropy(logits).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_entropy_is_finite_where_a_probability_is_zero(dtype: torch.dtype) -> None:
    """A certain answer has entropy 0, also where the other probabilities underflow."""
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, 2e3, 0.0]], dtype=dtype)
    assert logits.softmax(-1).min() == 0
    assert entropy(logits).tolist() == [0.0, 0.0]


def test_entropy_of_equal_logits_is_ln_c() -> None:
    """Three equal logits have the largest entropy, ln 3."""
    torch.testing.assert_close(entropy(torch.zeros(1, 3)), torch.tensor([math.log(3)]))


def test_only_the_newest_exit_decides() -> None:
    """Entropies of the newest exit are compared with the threshold, strictly."""
    sure, torn = [9.0, -9.0], [0.0, 0.0]
    logits = torch.tensor([[sure, torn], [torn, sure]])
    assert is_certain(logits, 0.3).tolist() == [False, True]
    assert is_certain(logits, 0.0).tolist() == [False, False]


def brute_force(predictions: list[int], patience: int) -> bool:
    """PABEE's counter: how often the prediction equalled the one before, reset by a change."""
    counter = 0
    for before, now in itertools.pairwise(predictions):
        counter = counter + 1 if now == before else 0
    return counter >= patience


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_equals_a_counter(patience: int) -> None:
    """For every history of up to five predictions of three classes the rule equals a counter kept in a loop."""
    for exits in range(1, 6):
        histories = list(itertools.product(range(3), repeat=exits))
        logits = torch.nn.functional.one_hot(torch.tensor(histories).T, 3).float()
        expected = [brute_force(list(history), patience) for history in histories]
        assert exits_agree(logits, patience).tolist() == expected


def test_a_model_of_one_layer_has_no_exit() -> None:
    """Nobody could leave before the last layer, so there is nothing to train."""
    config = tiny_config(num_hidden_layers=1, exit_depths=[])
    with pytest.raises(InputError, match="the model has one"):
        METHODS["entropy_exit"].check(config, {"exit_threshold": 0.3})
