"""Controls: as many tokens as the profile says, [CLS] always, nested, and the same whatever the batch."""

from __future__ import annotations

import pytest
import torch

from efficient_bert import Batch, Execution, InputError, run
from efficient_bert.policies.controls import (
    OWN,
    Order,
    calibrate,
    profile_policy,
    random_order,
    read_profile,
    text_order,
)
from tests.support.tiny import tiny_batch, tiny_config, tiny_model

MODEL = tiny_model(classes=2)
PROFILE = [0.9, 0.5, 0.5, 0.1]
LENGTHS = [10, 4, 7, 1]
BATCH = tiny_batch(LENGTHS)


def kept(order: Order, batch: Batch = BATCH, execution: Execution = Execution.GATHERED) -> torch.Tensor:
    """(B, N, L) bool."""
    with torch.inference_mode():
        return run(MODEL, batch, profile_policy(PROFILE, order), execution=execution).trace.kept


@pytest.mark.parametrize("order", [text_order, random_order(0), random_order(5)])
def test_as_many_are_kept_as_the_profile_says(order: Order) -> None:
    """The rounded fraction of each text's length, never fewer than one; [CLS] stays, and what left stays away."""
    found = kept(order)
    by_hand = [[9, 5, 5, 1], [4, 2, 2, 1], [6, 4, 4, 1], [1, 1, 1, 1]]
    assert found.sum(2).tolist() == by_hand
    assert found[:, :, 0].all()
    assert not (found[:, 1:] & ~found[:, :-1]).any()
    assert torch.equal(found, kept(order, execution=Execution.MASKED))


def test_the_end_goes_first() -> None:
    """The beginning of the text is what is left."""
    for row, layers in enumerate(kept(text_order)):
        for tokens in layers:
            count = int(tokens.sum())
            assert tokens[:count].all(), row


def test_a_random_order_depends_on_seed_and_length_alone() -> None:
    """An example alone keeps what it keeps in a batch; another seed, or another length, keeps others."""
    found = kept(random_order(0))
    alone = kept(random_order(0), tiny_batch(LENGTHS[:1]))
    assert torch.equal(found[0], alone[0])
    assert not torch.equal(found, kept(random_order(1)))


def test_every_position_is_kept_about_as_often() -> None:
    """Over a thousand seeds each of nine positions beside [CLS] is kept four times in nine, within four deviations."""
    counts = torch.stack([kept(random_order(seed), tiny_batch([10]))[0, 1, 1:] for seed in range(1000)]).sum(0)
    expected, deviation = 1000 * 4 / 9, (1000 * 4 / 9 * 5 / 9) ** 0.5
    assert (counts - expected).abs().max() < 4 * deviation


def test_a_profile_is_the_models_or_typed() -> None:
    """`own` becomes the stored one, and no policy takes it before; fractions are read in order."""
    model = tiny_model(classes=2)
    knobs = calibrate(model, None, {"profile": OWN, "control_seed": 1})
    assert knobs == {"profile": tuple(model.config.length_profile), "control_seed": 1}
    assert read_profile(model.config, knobs["profile"]) == knobs["profile"]
    assert read_profile(model.config, "0.9/0.5/0.5/0.1") == tuple(PROFILE)
    assert calibrate(model, None, {"profile": "0.9/0.5/0.5/0.1"}) == {"profile": "0.9/0.5/0.5/0.1"}
    with pytest.raises(InputError, match=r"profile is 'own', but a policy takes numbers; .* calibrate"):
        read_profile(model.config, OWN)


@pytest.mark.parametrize("given", ["0.9/0.5", "0.9/0.5/0.6/0.1", "1/1/1/0", "1.5/1/1/1", "1/1/nan/1"])
def test_a_profile_that_does_not_fit_is_refused(given: str) -> None:
    """Another number of layers, a rise, zero, above one: one line with the value and the rule."""
    with pytest.raises(
        InputError, match=r"profile is .* takes 4 fractions in \(0, 1\], none larger than the one before"
    ):
        read_profile(tiny_config(), given)


@pytest.mark.parametrize("given", ["a/b/c/d", "", "0.9,0.5,0.4,0.1"])
def test_a_profile_that_is_no_list_is_refused(given: str) -> None:
    """No numbers, or other separators: one line with the value and an example."""
    with pytest.raises(InputError, match=r"profile is .* takes numbers separated by slashes"):
        read_profile(tiny_config(), given)


def test_a_model_without_a_profile_says_so() -> None:
    """Where nothing was measured there is no profile to follow."""
    with pytest.raises(InputError, match=r"no length profile of its own; give --profile with 4 fractions"):
        calibrate(tiny_model(length_profile=[]), None, {"profile": OWN})
