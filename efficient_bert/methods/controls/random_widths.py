"""Control: the gates' model at the gates' widths, as often, for examples drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from efficient_bert.calibration.profiles import profiles_of
from efficient_bert.calibration.shares import gate_shares
from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Values
from efficient_bert.methods import Method
from efficient_bert.methods.width_gates import WIDTH_MULT_LIST
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.choice_controls import CLASS_RATES, ClassShares, check_shares, class_shares, random_widths
from efficient_bert.policies.controls import CONTROL_SEED, OWN
from efficient_bert.policies.gates import class_widths
from efficient_bert.rows import Rows


def draw_widths(config: EfficientBertConfig, knobs: Values, *, shares: ClassShares) -> Policy:
    """Make the policy that picks an example's class of width in every layer by one random number and the shares."""
    return random_widths(
        shares,
        class_widths(knobs["width_mult_list"], config),
        layers=config.num_hidden_layers,
        seed=knobs["control_seed"],
    )


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that picks an example's classes by the shares among all examples."""
    return draw_widths(model.config, knobs, shares=class_shares(model.config, knobs["class_rates"]))


def calibrate(model: EfficientBertForSequenceClassification, rows: Rows | None, knobs: Values) -> Mapping[str, Any]:
    """Replace `own` by the share of examples that the gates give each class, at this list of widths."""
    if knobs["class_rates"] != OWN:
        return knobs
    config, widths = model.config, class_widths(knobs["width_mult_list"], model.config)
    profiles = profiles_of(model, rows, widths=widths)
    return {**knobs, "class_rates": gate_shares(config, profiles)}


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the list or the shares do not fit the gates."""
    class_widths(knobs["width_mult_list"], config)
    check_shares(config, knobs)


RANDOM_WIDTHS = Method(
    name="random_widths",
    summary="control: each layer's widths as often as the gates choose them, for random examples",
    source="Hu et al., 2023, Flexible BERT: the same widths, without its gates",
    stage="gates",
    control_of="width_gates",
    policy=policy,
    calibrate=calibrate,
    check=check,
    suite=False,
    knobs=(WIDTH_MULT_LIST, CLASS_RATES, CONTROL_SEED),
)
