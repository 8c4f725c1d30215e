"""Gates choose widths and certain examples leave early: Flexible BERT whole."""

from __future__ import annotations

from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost.flexible_published import published_counts
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Values
from efficient_bert.methods import Method
from efficient_bert.methods.entropy_exit import BELOW_THRESHOLD, EXIT_THRESHOLD, check_threshold
from efficient_bert.methods.width_gates import WIDTH_MULT_LIST
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.exit_rules import exit_rule, require_exits
from efficient_bert.policies.gates import class_widths, gate_policy


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that runs widths as the gates choose, and leaves where the entropy is below the threshold.

    In a regression, where two depths' scores differ by less than the threshold.
    """
    return gate_policy(
        model.width_gates(),
        class_widths(knobs["width_mult_list"], model.config),
        exits=tuple(model.config.exit_depths),
        done=exit_rule(model.config, knobs["exit_threshold"]),
    )


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where no exits are trained, the list does not fit the gates, or the threshold the classes."""
    require_exits(config, "flexible")
    class_widths(knobs["width_mult_list"], config)
    check_threshold(config, knobs)


FLEXIBLE = Method(
    name="flexible",
    summary="gates choose the width of every layer, and examples leave at the first depth that is certain enough",
    source="Hu et al., 2023, Flexible BERT",
    stage="gates",
    policy=policy,
    check=check,
    leaving=BELOW_THRESHOLD,
    suite=False,
    published_flops=lambda model, output, knobs: published_counts(output.trace, model.config),
    knobs=(WIDTH_MULT_LIST, EXIT_THRESHOLD),
)
