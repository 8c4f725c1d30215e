"""Control: Flexible BERT's widths and exits, as often, for examples drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from efficient_bert.calibration.profiles import profiles_of
from efficient_bert.calibration.shares import leaving_shares, staying_shares
from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Values
from efficient_bert.methods import Method, flexible
from efficient_bert.methods.controls.random_exits import exit_at_random
from efficient_bert.methods.controls.random_widths import draw_widths
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.choice_controls import CLASS_RATES, EXIT_RATES, check_shares, class_shares
from efficient_bert.policies.controls import CONTROL_SEED, OWN
from efficient_bert.policies.gates import class_widths
from efficient_bert.rows import Rows


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that picks an example's widths by one random number, and its exit by another."""
    shares = class_shares(model.config, knobs["class_rates"])
    return exit_at_random(model.config, knobs, widths=draw_widths(model.config, knobs, shares=shares))


SHARES = {"class_rates": staying_shares, "exit_rates": leaving_shares}
"""Knob -> what reads its shares off measured profiles."""


def calibrate(model: EfficientBertForSequenceClassification, rows: Rows | None, knobs: Values) -> Mapping[str, Any]:
    """Replace `own` by the shares of examples that take each width and each exit, at these widths and threshold."""
    unknown = [name for name in SHARES if knobs[name] == OWN]
    if not unknown:
        return knobs
    config, threshold = model.config, knobs["exit_threshold"]
    widths = class_widths(knobs["width_mult_list"], config)
    profiles = profiles_of(model, rows, widths=widths, threshold=threshold)
    return {**knobs, **{name: SHARES[name](config, profiles, threshold) for name in unknown}}


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the list, the threshold or the shares do not fit."""
    flexible.check(config, knobs)
    check_shares(config, knobs)


RANDOM_FLEXIBLE = Method(
    name="random_flexible",
    summary="control: widths and exits as often as Flexible BERT chooses them, at random",
    source="Hu et al., 2023, Flexible BERT: the same widths and exit rates, without gates and certainty",
    stage="gates",
    control_of="flexible",
    policy=policy,
    calibrate=calibrate,
    check=check,
    suite=False,
    knobs=(*flexible.FLEXIBLE.knobs, CLASS_RATES, EXIT_RATES, CONTROL_SEED),
)
