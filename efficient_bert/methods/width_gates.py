"""Gates choose the width of every layer for each example: Flexible BERT without exits."""

from __future__ import annotations

from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost.flexible_published import published_counts
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Knob, Values
from efficient_bert.methods import Method
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.gates import class_widths, gate_policy

WIDTH_MULT_LIST = Knob(
    "width_mult_list",
    "the width at which each class of the gates is run, separated by commas",
    "0.25,0.5,0.75,1",
    points=("0.25,0.5,0.75,1", "0.5,0.75,0.75,0.75", "0.5,0.5,0.75,1"),
    separator=";",
    listed=True,
)


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that runs each layer at the width of the class that the gate before it chooses."""
    return gate_policy(model.width_gates(), class_widths(knobs["width_mult_list"], model.config))


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the list does not fit the gates."""
    class_widths(knobs["width_mult_list"], config)


WIDTH_GATES = Method(
    name="width_gates",
    summary="gates choose the width of every layer for each example",
    source="Hu et al., 2023, Flexible BERT",
    stage="gates",
    policy=policy,
    check=check,
    suite=False,
    published_flops=lambda model, output, knobs: published_counts(output.trace, model.config),
    knobs=(WIDTH_MULT_LIST,),
)
