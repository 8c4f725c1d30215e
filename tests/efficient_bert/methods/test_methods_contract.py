"""What every method owes, checked for whatever the registry finds."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from bench.registry import METHODS, all_knobs, stages_of
from efficient_bert import Batch, Execution, run
from efficient_bert.cost.flops import trace_flops
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.methods import Method
from efficient_bert.policies.controls import OWN
from efficient_bert.policies.exit_rules import entropy, replay, stack_exit_logits
from efficient_bert.rows import Rows
from tests.efficient_bert.training.test_training_loop import rows
from tests.support.tiny import tiny_batch, tiny_model

MODEL = tiny_model(classes=2)
BATCH = tiny_batch([7, 3, 5])
ROWS = rows(20, 1)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    """Each method in turn."""
    return METHODS[request.param]


def default_policy(method: Method) -> Policy:
    """The policy at the default knobs, which fit a model of four layers and two classes."""
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    method.check(MODEL.config, knobs)
    return method.policy(MODEL, method.calibrate(MODEL, None, knobs))


PROFILES = ("length_profile", "gate_profile", "exit_profile", "staying_profile")


@pytest.mark.parametrize("counted", [ROWS, None], ids=["rows", "stored"])
def test_no_policy_reads_a_measured_share_of_the_configuration(
    method: Method, counted: Rows | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With calibrated knobs it answers the same where the configuration's profiles are gone; knobs are as given."""
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    calibrated = method.calibrate(MODEL, counted, MappingProxyType(knobs))
    assert {name for name in knobs if calibrated[name] != knobs[name]} == {n for n in knobs if knobs[n] == OWN}
    with torch.inference_mode():
        before = run(MODEL, BATCH, method.policy(MODEL, calibrated))
        for name in PROFILES:
            monkeypatch.setattr(MODEL.config, name, [])
        after = run(MODEL, BATCH, method.policy(MODEL, calibrated))
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.trace.heads, after.trace.heads)


def test_calibrating_leaves_the_model_as_it_is(method: Method) -> None:
    """Neither its configuration nor its weights change, and shares that were counted cannot be written to."""
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    weights = {name: value.clone() for name, value in MODEL.state_dict().items()}
    configuration = MODEL.config.to_json_string(use_diff=False)
    calibrated = method.calibrate(MODEL, ROWS, knobs)
    assert MODEL.config.to_json_string(use_diff=False) == configuration
    assert all(torch.equal(value, MODEL.state_dict()[name]) for name, value in weights.items())
    hash(tuple(calibrated.values()))


def test_a_method_says_what_it_is(method: Method) -> None:
    """Name, summary and source are there, the first two fit on a line, and the name can be typed."""
    assert method.name.isidentifier()
    assert method.summary
    assert method.source
    assert "\n" not in method.summary
    assert not method.summary.endswith(".")


def test_knobs_are_named_once_and_their_values_fit(method: Method) -> None:
    """Defaults and points parse to themselves, and no two knobs of a method and its stages share a name."""
    names = [knob.name for knob in all_knobs(method)]
    assert len(names) == len(set(names))
    for knob in (*all_knobs(method), *(option for stage in stages_of(method) for option in stage.options)):
        assert knob.summary
        assert knob.name.isidentifier()
        for value in (knob.default, *knob.points):
            assert knob.parse(str(value)) == value
        assert list(knob.points) == sorted(set(knob.points), key=knob.points.index)


def test_stages_are_named_once_and_cost_something(method: Method) -> None:
    """A chain of stages has distinct names, and a positive cost at the default options."""
    chain = stages_of(method)
    assert len({stage.name for stage in chain}) == len(chain)
    for stage in chain:
        assert stage.summary
        assert stage.step_cost({knob.name: knob.default for knob in (*stage.options, *stage.knobs)}) > 0


def test_default_knobs_make_a_policy_that_runs(method: Method) -> None:
    """At the defaults a method answers every example, under each execution."""
    policy = default_policy(method)
    for execution in Execution:
        with torch.inference_mode():
            output = run(MODEL, BATCH, policy, execution=execution)
        assert output.logits.shape == (3, 2)
        assert output.logits.isfinite().all()
        assert output.trace.exit_depth.min() >= 1


def test_an_answer_does_not_depend_on_the_company(method: Method) -> None:
    """Each example alone gets the logits and the depth that it gets in a batch."""
    policy = default_policy(method)
    with torch.inference_mode():
        together = run(MODEL, BATCH, policy)
        for row, length in enumerate(together.trace.length.tolist()):
            parts = (part[row : row + 1, :length] for part in (BATCH.input_ids, BATCH.mask, BATCH.token_type_ids))
            alone = run(MODEL, Batch(*parts), policy)
            torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=0)
            assert alone.trace.exit_depth[0] == together.trace.exit_depth[row]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.leaving])
def test_who_leaves_is_read_off_a_pass_in_which_nobody_does(name: str) -> None:
    """At every value of the knob answers, tokens, widths, heads and cost are those of a pass at that value."""
    method, batch = METHODS[name], tiny_batch([7, 3, 5, 9, 2, 4, 8, 6] * 5, seed=3)
    leaving = method.leaving
    assert leaving is not None
    (knob,) = (knob for knob in method.knobs if knob.name == leaving.knob)
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    with torch.inference_mode():
        whole = run(MODEL, batch, method.policy(MODEL, {**knobs, knob.name: leaving.never}))
        certainty = entropy(stack_exit_logits(whole)).flatten()
        values = certainty.quantile(torch.tensor([0.2, 0.5, 0.8])).tolist() if knob.low == 0 else knob.points
        depths: set[int] = set()
        for value in values:
            there = run(MODEL, batch, method.policy(MODEL, {**knobs, knob.name: value}))
            read = replay(whole, leaving.rule(MODEL.config, value))
            torch.testing.assert_close(read.logits, there.logits, atol=1e-5, rtol=0)
            for field in vars(there.trace):
                assert torch.equal(getattr(read.trace, field), getattr(there.trace, field)), field
            assert torch.equal(trace_flops(read.trace, MODEL.config), trace_flops(there.trace, MODEL.config))
            depths |= set(there.trace.exit_depth.tolist())
    assert set(whole.trace.exit_depth.tolist()) == {MODEL.config.num_hidden_layers}
    assert len(depths) >= 3


def test_scores_that_agree_are_read_off_a_pass_too() -> None:
    """In a regression with two exits, where some scores agree before the whole depth."""
    model, method = tiny_model(classes=1, exit_depths=[1, 2, 3]), METHODS["prefix_exit"]
    batch, leaving = tiny_batch([7, 3, 5, 9, 2, 4]), method.leaving
    assert leaving is not None
    with torch.inference_mode():
        whole = run(model, batch, method.policy(model, {"exit_width": 1.0, "exit_threshold": leaving.never}))
        apart = stack_exit_logits(whole).diff(dim=0).abs().flatten().sort().values
        middle = float(apart[5:7].mean())  # on no value itself, which another batch may round otherwise
        there = run(model, batch, method.policy(model, {"exit_width": 1.0, "exit_threshold": middle}))
    read = replay(whole, leaving.rule(model.config, middle))
    torch.testing.assert_close(read.logits, there.logits, atol=1e-5, rtol=0)
    assert torch.equal(read.trace.kept, there.trace.kept)
    assert len(there.trace.exit_depth.unique()) > 1


def tensors(of: View | Decision) -> dict[str, Tensor]:
    """Copies of the tensors in a view or a decision."""
    return {name: value.clone() for name, value in vars(of).items() if isinstance(value, Tensor)}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """The same names and values."""
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_decisions_are_pure(method: Method) -> None:
    """The same view gets the same decision, whatever was asked in between, and stays as it was."""
    policy = default_policy(method)
    if policy.decide is None:
        assert not policy.needs_fingerprints
        return
    asked: list[tuple[View, dict[str, Tensor], dict[str, Tensor]]] = []

    def ask(view: View) -> Decision:
        before = tensors(view)
        assert policy.decide is not None
        decision = policy.decide(view)
        assert_equal(before, tensors(view))
        asked.append((view, before, tensors(decision)))
        return decision

    with torch.inference_mode():
        run(MODEL, BATCH, replace(policy, decide=ask), execution=Execution.MASKED)
        assert asked
        for view, before, answer in reversed(asked):
            assert_equal(tensors(policy.decide(view)), answer)
            assert_equal(tensors(view), before)


def test_decisions_have_the_shapes_of_their_view(method: Method) -> None:
    """Masks are bool, widths lie in (0, 1], fades are not positive, multiply-adds are whole."""
    policy = default_policy(method)
    if policy.decide is None:
        assert run(MODEL, BATCH, policy).trace.decision_macs.sum(1).tolist() == [0, 0, 0]
        return

    def check(view: View) -> Decision:
        assert policy.decide is not None
        decision = policy.decide(view)
        rows, length = view.mask.shape
        each_token = dict.fromkeys(("keep", "fade", "scores"), (rows, length))
        shapes = {**each_token, **dict.fromkeys(("leave", "width", "macs"), (rows,))}
        for name, value in tensors(decision).items():
            assert value.shape == shapes[name], name
        for name in ("keep", "leave"):
            assert getattr(decision, name) is None or getattr(decision, name).dtype == torch.bool
        assert decision.width is None or ((decision.width > 0) & (decision.width <= 1)).all()
        assert decision.fade is None or (decision.fade <= 0).all()
        assert not isinstance(decision.macs, Tensor) or decision.macs.dtype == torch.int64
        assert not isinstance(decision.macs, int) or decision.macs > 0
        return decision

    for execution in Execution:
        with torch.inference_mode():
            run(MODEL, BATCH, replace(policy, decide=check), execution=execution)


def test_methods_are_frozen(method: Method) -> None:
    """A method cannot be changed after it was made."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.name = "other"  # type: ignore[misc]  # that it cannot be assigned is the point
