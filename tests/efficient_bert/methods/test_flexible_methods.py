"""The methods on jointly trained subnets: what their knobs mean, what they refuse, how lists are typed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.commands.flags import given_values
from bench.registry import METHODS, all_knobs
from efficient_bert import InputError, run
from efficient_bert.engine.recorder import Output
from efficient_bert.methods.flexible import FLEXIBLE
from efficient_bert.methods.prefix_exit import PREFIX_EXIT
from efficient_bert.methods.static_subnet import STATIC_SUBNET
from efficient_bert.methods.width_gates import WIDTH_GATES
from efficient_bert.policies.exit_rules import entropy
from efficient_bert.policies.subnets import Subnet, subnet_policy, uniform_subnet
from tests.support.tiny import tiny_batch, tiny_model

MODEL = tiny_model(exit_depths=[2, 3], shared_head=True, seed=6)
BATCH = tiny_batch([9, 4, 7, 2, 5, 6, 8])


@torch.inference_mode()
def answer(method: Any, **knobs: Any) -> Output:
    """A pass of the small model under a method, with its default knobs but for these."""
    values = {knob.name: knob.parse(knobs.get(knob.name, knob.default)) for knob in all_knobs(method)}
    method.check(MODEL.config, values)
    return run(MODEL, BATCH, method.policy(MODEL, values))


def subnet(chosen: Subnet) -> Output:
    """A pass of a subnet."""
    with torch.inference_mode():
        return run(MODEL, BATCH, subnet_policy(chosen))


def test_a_static_subnet_by_knobs() -> None:
    """One width for all layers or one for each that runs, and a prefix of them."""
    found = answer(STATIC_SUBNET, width_mult="0.75", depth_mult=0.5)
    assert torch.equal(found.logits, subnet(uniform_subnet(MODEL.config, width=0.75, depth_mult=0.5)).logits)
    assert found.trace.heads.tolist() == [[9, 9, 0, 0]] * 7
    mixed = answer(STATIC_SUBNET, width_mult="0.25,1,0.5", depth_mult=0.75)
    assert torch.equal(mixed.logits, subnet(Subnet((0, 1, 2), (0.25, 1.0, 0.5))).logits)
    assert mixed.trace.exit_depth.tolist() == [3] * 7


def entropies(found: Output) -> Tensor:
    """Of the answers, in nats."""
    return entropy(found.logits)


def test_exits_of_the_final_head() -> None:
    """Each example leaves at the first trained depth whose prefix is certain enough, with the prefix's logits."""
    prefixes = [subnet(uniform_subnet(MODEL.config, width=0.5, depth_mult=depth)) for depth in (0.5, 0.75, 1.0)]
    threshold = float(entropies(prefixes[0]).median()) + 1e-4
    found = answer(PREFIX_EXIT, exit_width=0.5, exit_threshold=threshold)
    certain = [entropies(prefix) < threshold for prefix in prefixes]
    expected = [
        2 if first else 3 if second else 4
        for first, second in zip(certain[0].tolist(), certain[1].tolist(), strict=True)
    ]
    assert found.trace.exit_depth.tolist() == expected
    assert len(set(expected)) > 1
    for row, depth in enumerate(expected):
        torch.testing.assert_close(found.logits[row], prefixes[depth - 2].logits[row], atol=1e-5, rtol=0)


def test_flexible_is_gates_and_exits() -> None:
    """Without certainty enough it is the gates alone; at equal widths it is the exits alone."""
    gated = answer(WIDTH_GATES, width_mult_list="0.25,0.5,0.75,1")
    never = answer(FLEXIBLE, width_mult_list="0.25,0.5,0.75,1", exit_threshold=0.0)
    assert torch.equal(never.logits, gated.logits)
    assert len(gated.trace.heads[:, 1].unique()) > 1
    threshold = 0.5
    equal = answer(FLEXIBLE, width_mult_list="0.5,0.5,0.5,0.5", exit_threshold=threshold)
    exits = answer(PREFIX_EXIT, exit_width=0.5, exit_threshold=threshold)
    torch.testing.assert_close(equal.logits, exits.logits, atol=1e-5, rtol=0)
    assert torch.equal(equal.trace.exit_depth, exits.trace.exit_depth)


@torch.inference_mode()
def test_in_a_regression_steady_scores_leave() -> None:
    """Never at the first depth; at the second where its score differs from the first's by less than the threshold."""
    model = tiny_model(exit_depths=[2, 3], shared_head=True, seed=6, num_labels=1)
    scores = [
        run(model, BATCH, subnet_policy(uniform_subnet(model.config, width=1.0, depth_mult=depth))).logits[:, 0]
        for depth in (0.5, 0.75)
    ]
    apart = (scores[1] - scores[0]).abs()
    threshold = float(apart.median()) + 1e-4
    for method, knobs in ((PREFIX_EXIT, {"exit_width": 1.0}), (FLEXIBLE, {"width_mult_list": "1,1,1,1"})):
        values: dict[str, Any] = {**knobs, "exit_threshold": threshold}
        method.check(model.config, values)
        depths = run(model, BATCH, method.policy(model, values)).trace.exit_depth
        assert depths.tolist() == [3 if near else 4 for near in (apart < threshold).tolist()]
        assert len(depths.unique()) == 2


def test_the_released_count_by_hand() -> None:
    """Dense layers of what ran, a gate more than layers, every exit head and the final one."""
    values: dict[str, Any] = {"width_mult_list": "0.5,0.5,0.5,0.5", "exit_threshold": 0.5}
    assert FLEXIBLE.published_flops is not None
    assert WIDTH_GATES.published_flops is not None
    depths = answer(FLEXIBLE, **values).trace.exit_depth
    assert len(depths.unique()) > 1
    # a token in a layer at half width: (4 x 48 x 48 + 2 x 48 x 192) / 2; a gate: 48 x 52; a head: 48 x 51
    expected = [
        2 * (length * depth * 13824 + (depth + 1) * 2496 + ({2: 1, 3: 2, 4: 2}[depth] + 1) * 2448)
        for length, depth in zip(BATCH.mask.sum(1).tolist(), depths.tolist(), strict=True)
    ]
    passes = {method: answer(method, **values) for method in (FLEXIBLE, WIDTH_GATES)}
    spent, whole = FLEXIBLE.published_flops(MODEL, passes[FLEXIBLE], values)
    assert spent.tolist() == expected
    without = [2 * (length * 4 * 13824 + 5 * 2496 + 2448) for length in BATCH.mask.sum(1).tolist()]
    assert WIDTH_GATES.published_flops(MODEL, passes[WIDTH_GATES], values)[0].tolist() == without
    full = [2 * (length * 4 * 27648 + 2448) for length in BATCH.mask.sum(1).tolist()]
    assert whole.tolist() == full, "four layers at full width, attention's products left out here too, one head"


def test_classes_are_remapped() -> None:
    """The list says at which width each class runs, without another training."""
    chosen = answer(WIDTH_GATES, width_mult_list="0.25,0.5,0.75,1").trace.heads[:, 0]
    remapped = answer(WIDTH_GATES, width_mult_list="0.5,0.75,0.75,0.75").trace.heads[:, 0]
    table = {3: 6, 6: 9, 9: 9, 12: 9}
    assert remapped.tolist() == [table[heads] for heads in chosen.tolist()]


@pytest.mark.parametrize(
    ("method", "knobs", "message"),
    [
        (STATIC_SUBNET, {"width_mult": "0.5,0.5"}, "4 layers run"),
        (STATIC_SUBNET, {"width_mult": "0.02"}, "leaves none of 12 heads"),
        (STATIC_SUBNET, {"depth_mult": 0.1}, "leaves none of 4 layers"),
        (STATIC_SUBNET, {"width_mult": "half"}, "numbers"),
        (WIDTH_GATES, {"width_mult_list": "0.5,1"}, "4 classes"),
        (FLEXIBLE, {"width_mult_list": "0.5,1,1"}, "4 classes"),
        (FLEXIBLE, {"exit_threshold": 2.0}, "3 classes"),
        (FLEXIBLE, {"exit_threshold": "nan"}, "takes a number"),
        (PREFIX_EXIT, {"exit_width": 0.01}, "leaves none of 12 heads"),
    ],
)
def test_bad_knobs_are_refused(method: Any, knobs: dict[str, Any], message: str) -> None:
    """Before anything runs, in one line."""
    with pytest.raises(InputError) as caught:
        answer(method, **knobs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_are_typed_with_commas() -> None:
    """Several lists of a knob are separated by semicolons, several numbers by commas."""
    given = {"width_mult_list": "0.5,1;1,1", "exit_threshold": "0.1,0.2", "width__list": "0.5,1", "graft": None}
    assert given_values(given) == {
        "knobs": {"width_mult_list": ("0.5,1", "1,1"), "exit_threshold": ("0.1", "0.2")},
        "options": {"width__list".replace("__", "."): "0.5,1"},
    }


def test_joint_training_is_asked_for_by_name() -> None:
    """The methods whose chain of stages is long are outside the suite that runs by default."""
    outside = {name for name, method in METHODS.items() if not method.suite}
    controls = {"random_widths", "constant_widths", "random_exits", "random_flexible"}
    assert outside == {"static_subnet", "prefix_exit", "width_gates", "flexible"} | controls
