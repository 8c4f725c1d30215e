"""Control: the gates' model at one width per layer, the mean of the gates' choices."""

from __future__ import annotations

from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Values
from efficient_bert.methods import Method
from efficient_bert.methods.controls.random_widths import calibrate, check
from efficient_bert.methods.width_gates import WIDTH_MULT_LIST
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.choice_controls import CLASS_RATES, class_shares, constant_widths
from efficient_bert.policies.gates import class_widths
from efficient_bert.policies.subnets import subnet_policy


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that runs each layer at the mean of the gates' choices, for every example."""
    widths = class_widths(knobs["width_mult_list"], model.config)
    return subnet_policy(constant_widths(class_shares(model.config, knobs["class_rates"]), widths, model.config))


CONSTANT_WIDTHS = Method(
    name="constant_widths",
    summary="control: one width per layer for every example, the mean of the gates' choices",
    source="Hu et al., 2023, Flexible BERT: the same mean widths, without its gates",
    stage="gates",
    control_of="width_gates",
    policy=policy,
    calibrate=calibrate,
    check=check,
    suite=False,
    knobs=(WIDTH_MULT_LIST, CLASS_RATES),
)
