"""Controls of gates and exits: as often as the shares say, at random and each example's own, at the same mean."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from efficient_bert import Batch, EfficientBertConfig, Execution, InputError, run
from efficient_bert.calibration.profiles import STEPS, Profiles, measure_profiles, stored_profiles
from efficient_bert.calibration.shares import gate_shares, leaving_shares, staying_shares
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.fingerprints import fingerprints, uniform_draws
from efficient_bert.knobs import Value
from efficient_bert.methods.controls.constant_widths import CONSTANT_WIDTHS
from efficient_bert.methods.controls.random_exits import RANDOM_EXITS
from efficient_bert.methods.controls.random_flexible import RANDOM_FLEXIBLE
from efficient_bert.methods.flexible import FLEXIBLE
from efficient_bert.methods.prefix_exit import PREFIX_EXIT
from efficient_bert.methods.width_gates import WIDTH_GATES
from efficient_bert.policies.choice_controls import (
    check_shares,
    class_shares,
    constant_widths,
    exit_shares,
    random_exits,
    random_widths,
)
from efficient_bert.policies.controls import OWN
from efficient_bert.policies.gates import gate_policy
from efficient_bert.policies.subnets import subnet_policy, uniform_subnet
from tests.efficient_bert.training.test_training_loop import rows
from tests.support.tiny import rows_of, tiny_batch, tiny_config, tiny_model

WIDTHS = (0.25, 0.5, 0.75, 1.0)
RATES = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
LEAVING = [[0.0, 0.0, 0.0], [0.6, 0.3, 0.3]]
PROFILES: dict[str, Any] = {"gate_profile": RATES, "exit_profile": LEAVING, "staying_profile": [RATES, RATES[::-1]]}
MODEL = tiny_model(classes=2, exit_depths=[2, 3], shared_head=True, **PROFILES)
MANY = tiny_batch([5] * 400)


def test_fingerprints_are_of_the_words_and_their_order() -> None:
    """Padding on either side changes nothing; another word, or another order, gives another number."""
    right, left = tiny_batch([4, 2, 7]), tiny_batch([4, 2, 7], left=True)
    found = fingerprints(right.input_ids, right.mask)
    moved = torch.zeros_like(right.input_ids).masked_scatter(left.mask, right.input_ids[right.mask])
    assert torch.equal(fingerprints(moved, left.mask), found)
    ids = torch.tensor([[1, 2, 3], [1, 3, 2], [1, 2, 4]])
    assert len(fingerprints(ids, torch.ones_like(ids).bool()).unique()) == 3


def test_draws_are_uniform_and_independent() -> None:
    """Of 10,000 neighbours each tenth gets a tenth; turns and seeds are uncorrelated, within four deviations."""
    numbers = torch.arange(10_000)
    first = uniform_draws(numbers, seed=0, turn=0)
    counts = (first * 10).long().bincount(minlength=10)
    assert (counts - 1000).abs().max() < 4 * math.sqrt(1000 * 0.9)
    for other in (uniform_draws(numbers, seed=0, turn=1), uniform_draws(numbers, seed=1, turn=0)):
        assert torch.corrcoef(torch.stack([first, other]))[0, 1].abs() < 4 / math.sqrt(10_000)


@torch.inference_mode()
def test_widths_are_drawn_as_often_as_the_shares_say() -> None:
    """In each layer every width has its share within four deviations; the wider in one, the wider in the other."""
    heads = run(MODEL, MANY, random_widths(RATES, WIDTHS, layers=4, seed=0)).trace.heads
    for layer, shares in enumerate(RATES):
        for share, count in zip(shares, (3, 6, 9, 12), strict=True):
            deviation = math.sqrt(share * (1 - share) / 400)
            assert abs(float((heads[:, layer] == count).float().mean()) - share) <= 4 * deviation
    order = (100 * heads[:, 0] + heads[:, 1]).argsort()
    assert (heads[order, 1].diff() >= 0).all()
    again = run(MODEL, MANY, random_widths(RATES, WIDTHS, layers=4, seed=1)).trace.heads
    assert not torch.equal(heads, again)


@torch.inference_mode()
def test_a_shared_gates_class_holds_for_its_layers() -> None:
    """With two rows of shares for four layers, layers in pairs run at one width."""
    heads = run(MODEL, MANY, random_widths(RATES[:2], WIDTHS, layers=4, seed=0)).trace.heads
    assert torch.equal(heads[:, ::2], heads[:, 1::2])
    assert not torch.equal(heads[:, 0], heads[:, 2])


@torch.inference_mode()
def test_exits_are_drawn_as_often_as_the_shares_say() -> None:
    """Each depth has its share of all examples; who leaves has the answer of its prefix; heads run as if asked."""
    output = run(MODEL, MANY, random_exits([0.3, 0.5], [2, 3], seed=0, widths=Policy()))
    depths = output.trace.exit_depth
    for depth, share in ((2, 0.3), (3, 0.5), (4, 0.2)):
        assert abs(float((depths == depth).float().mean()) - share) <= 4 * math.sqrt(share * (1 - share) / 400)
        left = (depths == depth).nonzero()[:, 0].tolist()
        prefix = run(
            MODEL, rows_of(MANY, left), subnet_policy(uniform_subnet(MODEL.config, width=1.0, depth_mult=depth / 4))
        )
        torch.testing.assert_close(output.logits[left], prefix.logits, atol=1e-5, rtol=0)
        assert set(output.trace.head_runs[left].tolist()) == {min(depth - 1, 3)}


@torch.inference_mode()
def test_those_who_stay_draw_by_the_shares_of_those_who_stay() -> None:
    """At the last threshold the shares are those measured there: 0.6 of all leave, the others' order is reversed."""
    knobs: dict[str, Any] = {"width_mult_list": "0.25,0.5,0.75,1", "class_rates": OWN, "exit_rates": OWN}
    knobs = dict(RANDOM_FLEXIBLE.calibrate(MODEL, None, {**knobs, "control_seed": 0, "exit_threshold": 0.6}))
    trace = run(MODEL, MANY, RANDOM_FLEXIBLE.policy(MODEL, knobs)).trace
    assert abs(float((trace.exit_depth == 4).float().mean()) - 0.4) <= 4 * math.sqrt(0.24 / 400)
    assert (trace.heads[:, 0] == 12).all()
    there = trace.heads[trace.exit_depth == 4, 3]
    for share, count in zip(RATES[0], (3, 6, 9, 12), strict=True):
        assert abs(float((there == count).float().mean()) - share) <= 4 * math.sqrt(share * (1 - share) / len(there))


@torch.inference_mode()
@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
def test_an_example_draws_the_same_in_any_company(execution: Execution) -> None:
    """Widths and exit of an example alone are those it has in a batch with others of its length."""
    knobs: dict[str, Value] = {"width_mult_list": "0.25,0.5,0.75,1", "class_rates": OWN, "exit_rates": "0.3/0.3"}
    knobs |= {"exit_threshold": 0.3, "control_seed": 5}
    policy = RANDOM_FLEXIBLE.policy(MODEL, RANDOM_FLEXIBLE.calibrate(MODEL, None, knobs))
    batch = tiny_batch([6, 3, 6, 6, 4, 6, 6, 6])
    together = run(MODEL, batch, policy, execution=execution).trace
    assert len(together.exit_depth.unique()) > 1
    for row in range(8):
        alone = run(MODEL, rows_of(batch, [row]), policy).trace
        assert torch.equal(alone.heads[0], together.heads[row])


def test_constant_widths_have_the_heads_that_the_shares_expect() -> None:
    """Expected heads are 6, 9, 3, 12 of 12; between whole heads the next layer makes up for what rounding took."""
    assert constant_widths(RATES, WIDTHS, MODEL.config).widths == pytest.approx([6 / 12, 9 / 12, 3 / 12, 1])
    uneven = [[0.5, 0.5, 0.0, 0.0]] * 4  # 4.5 heads in each of four layers
    heads = [round(12 * width) for width in constant_widths(uneven, WIDTHS, MODEL.config).widths]
    assert sum(heads) == 18
    assert set(heads) == {4, 5}


@torch.inference_mode()
def test_controls_match_what_was_measured() -> None:
    """On the rows they were measured on: frequencies are the gates' own, exit rates those of every threshold.

    And so are the frequencies among those who are still there, for each gate that anybody reaches.
    """
    model, some = gated(), rows(60, 1)
    profiles = measure_profiles(model, some)
    batches = [tiny_rows(some[start : start + 20]) for start in range(0, 60, 20)]
    heads = torch.cat([run(model, batch, gate_policy(model.width_gates(), WIDTHS)).trace.heads for batch in batches])
    by_hand = [[float((heads[:, layer] == count).double().mean()) for count in (3, 6, 9, 12)] for layer in range(4)]
    for found, expected in zip(profiles.gate_profile, by_hand, strict=True):
        assert found == pytest.approx(expected)
    assert len(profiles.exit_profile) == STEPS + 1
    assert profiles.exit_profile[0] == (0, 0, 0)
    assert profiles.staying_profile[0] == profiles.gate_profile
    reached = 0
    for place in range(10, STEPS, 10):
        bound, first, second = profiles.exit_profile[place]
        traces = [run(model, batch, gate_exits(model, bound)).trace for batch in batches]
        depths = torch.cat([trace.exit_depth for trace in traces])
        assert (first, second) == pytest.approx([float((depths == depth).double().mean()) for depth in (2, 3)])
        heads = torch.cat([trace.heads for trace in traces])
        for layer, found in enumerate(profiles.staying_profile[place]):
            there = heads[heads[:, layer] > 0, layer]
            if 0 < len(there) < 60:
                reached += 1
                assert found == pytest.approx([float((there == count).double().mean()) for count in (3, 6, 9, 12)])
        assert staying_shares(model.config, profiles, bound) == profiles.staying_profile[place]
    assert reached


@pytest.mark.parametrize("listed", ["0.5,0.75,0.75,0.75", "1,0.25,1,0.5"])
@torch.inference_mode()
def test_controls_follow_the_point_that_they_belong_to(listed: str) -> None:
    """At any list of widths, in any order, and at a threshold between two measured ones: as often as the method there.

    Gates see other states at other widths, and choose otherwise; so the shares of the trained widths will not do.
    """
    knobs: dict[str, Value] = {
        "width_mult_list": listed, "exit_threshold": 0.6, "class_rates": OWN, "exit_rates": OWN,
    }  # fmt: skip
    model, some = gated(), rows(60, 1)
    trained = staying_shares(model.config, measure_profiles(model, some), 0.6)
    calibrated = RANDOM_FLEXIBLE.calibrate(model, some, knobs)
    trace = run(model, tiny_rows(some), FLEXIBLE.policy(model, knobs)).trace
    left = [float((trace.exit_depth == depth).double().mean()) for depth in (2, 3)]
    assert 0 < sum(left) < 1
    assert calibrated["exit_rates"] == pytest.approx(left)
    counts = [round(12 * float(width)) for width in listed.split(",")]
    rates = calibrated["class_rates"]
    assert rates != trained
    for layer, shares in enumerate(rates):
        there = trace.heads[trace.heads[:, layer] > 0, layer]
        for count in set(counts):
            share = sum(share for share, own in zip(shares, counts, strict=True) if own == count)
            assert share == pytest.approx(float((there == count).double().mean()))


@torch.inference_mode()
def test_exits_are_counted_at_their_own_width() -> None:
    """Narrower layers leave examples less or more certain, and their control leaves as often."""
    model, some = tiny_model(classes=2, exit_depths=[2, 3], shared_head=True, num_gates=0), rows(60, 1)
    found = []
    for width in (1.0, 0.25):
        knobs: dict[str, Value] = {"exit_width": width, "exit_threshold": 0.6, "exit_rates": OWN}
        trace = run(model, tiny_rows(some), PREFIX_EXIT.policy(model, knobs)).trace
        left = [float((trace.exit_depth == depth).double().mean()) for depth in (2, 3)]
        assert RANDOM_EXITS.calibrate(model, some, knobs)["exit_rates"] == pytest.approx(left)
        found.append(left)
    assert found[0] != found[1]


def gated() -> Any:
    """A model with gates and exits that knows no profile yet."""
    bare: dict[str, Any] = {name: [] for name in PROFILES}
    return tiny_model(classes=2, exit_depths=[2, 3], shared_head=True, seed=3, **bare)


def tiny_rows(some: Any) -> Batch:
    """Rows as a batch."""
    from efficient_bert.training.batches import collate

    return Batch.of(collate(some, pad_token_id=0))


def gate_exits(model: Any, threshold: float) -> Any:
    """The method's policy at the trained widths."""
    from efficient_bert.methods.flexible import policy

    return policy(model, {"width_mult_list": "0.25,0.5,0.75,1", "exit_threshold": threshold})


def test_exit_rates_lie_between_the_measured_ones() -> None:
    """Halfway between two thresholds are the means of their shares; beyond the last are the last's."""
    config = tiny_config(exit_depths=[2, 3], exit_profile=[[0, 0, 0], [0.5, 0.2, 0.4], [1.0, 0.6, 0.2]])
    profiles = stored_profiles(config)
    assert leaving_shares(config, profiles, 0.75) == pytest.approx([0.4, 0.3])
    assert leaving_shares(config, profiles, 0.5) == pytest.approx([0.2, 0.4])
    assert leaving_shares(config, profiles, 5.0) == (0.6, 0.2)


def test_typed_shares_are_the_same_at_every_gate() -> None:
    """Exits have one share each; measured shares are taken as they are."""
    config = tiny_config(exit_depths=[2, 3])
    assert exit_shares(config, "0.1/0.9") == (0.1, 0.9)
    assert exit_shares(config, (0.2, 0.3)) == (0.2, 0.3)
    assert class_shares(config, "0.7/0.1/0.1/0.1") == ((0.7, 0.1, 0.1, 0.1),) * 4
    measured = tuple(map(tuple, RATES))
    assert class_shares(config, measured) == measured


def test_controls_stand_beside_their_methods() -> None:
    """A control has every inference knob of its method, so that each point has its own control."""
    for method, control in ((WIDTH_GATES, CONSTANT_WIDTHS), (PREFIX_EXIT, RANDOM_EXITS)):
        assert control.control_of == method.name
        assert set(method.knobs) <= set(control.knobs)
        assert control.stage == method.stage


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"class_rates": "0.5/0.5"}, "takes 4 shares"),
        ({"class_rates": "0.5/0.5/0.1/0.1"}, "add up to 1"),
        ({"class_rates": "1.5/-0.5/0/0"}, "0 or more"),
        ({"class_rates": "a/b/c/d"}, "takes numbers separated by slashes"),
        ({"class_rates": "nan/0/0/1"}, "takes 4 shares"),
        ({"exit_rates": "0.5/0.5/0.5"}, "takes 2 shares"),
        ({"exit_rates": "0.9/0.2"}, "at most 1"),
    ],
)
def test_shares_that_do_not_fit_are_refused(knobs: dict[str, Any], message: str) -> None:
    """Their number, their sum and their sign, in one line."""
    with pytest.raises(InputError, match=message):
        check_shares(MODEL.config, knobs)


def test_a_model_without_profiles_says_so() -> None:
    """Where nothing was measured the shares have to be typed, and a policy cannot take `own`."""
    bare: EfficientBertConfig = tiny_config(exit_depths=[2, 3])
    with pytest.raises(InputError, match=r"no gate profile of its own; give --class-rates with 4 shares"):
        gate_shares(bare, Profiles())
    with pytest.raises(InputError, match=r"no exit profile of its own; give --exit-rates with 2 shares"):
        leaving_shares(bare, Profiles(), 0.3)
    earlier = replace(stored_profiles(bare), staying_profile=())
    with pytest.raises(InputError, match=r"no profile of those who stay; .* train stage 'gates' again"):
        staying_shares(bare, earlier, 0.3)
    knobs: dict[str, Value] = {"class_rates": "0.7/0.1/0.1/0.1", "exit_rates": "0.3/0.2"}
    assert RANDOM_FLEXIBLE.calibrate(MODEL, None, knobs) == knobs
    with pytest.raises(InputError, match=r"class_rates is 'own', but a policy takes numbers; .* calibrate"):
        class_shares(bare, OWN)
    with pytest.raises(InputError, match=r"exit_rates is 'own', but a policy takes numbers; .* calibrate"):
        exit_shares(bare, OWN)
