"""Control: as many examples leave at each depth as certainty lets leave, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from efficient_bert.calibration.profiles import profiles_of
from efficient_bert.calibration.shares import leaving_shares
from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Values
from efficient_bert.methods import Method, prefix_exit
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.choice_controls import EXIT_RATES, check_shares, exit_shares, random_exits
from efficient_bert.policies.controls import CONTROL_SEED, OWN
from efficient_bert.policies.subnets import subnet_policy, uniform_subnet
from efficient_bert.rows import Rows


def exit_at_random(config: EfficientBertConfig, knobs: Values, *, widths: Policy) -> Policy:
    """Make the policy that runs the widths of another one, until the depth that an example's random number picks."""
    return random_exits(
        exit_shares(config, knobs["exit_rates"]),
        config.exit_depths,
        seed=knobs["control_seed"],
        widths=widths,
    )


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy of one width that leaves at the depth that an example's random number picks."""
    one_width = subnet_policy(uniform_subnet(model.config, width=knobs["exit_width"]))
    return exit_at_random(model.config, knobs, widths=one_width)


def calibrate(model: EfficientBertForSequenceClassification, rows: Rows | None, knobs: Values) -> Mapping[str, Any]:
    """Replace `own` by the share of examples that leaves at each exit, at this width and this threshold."""
    if knobs["exit_rates"] != OWN:
        return knobs
    config, width, threshold = model.config, knobs["exit_width"], knobs["exit_threshold"]
    profiles = profiles_of(model, rows, width=width, threshold=threshold)
    return {**knobs, "exit_rates": leaving_shares(config, profiles, threshold)}


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the width leaves no head, or the threshold or the shares do not fit."""
    prefix_exit.check(config, knobs)
    check_shares(config, knobs)


RANDOM_EXITS = Method(
    name="random_exits",
    summary="control: as many examples leave at each depth as with prefix_exit, at random",
    source="Hu et al., 2023, Flexible BERT: the same exit rates, without certainty",
    stage="final",
    control_of="prefix_exit",
    policy=policy,
    calibrate=calibrate,
    check=check,
    suite=False,
    knobs=(*prefix_exit.PREFIX_EXIT.knobs, EXIT_RATES, CONTROL_SEED),
)
