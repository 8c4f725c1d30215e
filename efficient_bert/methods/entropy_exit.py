"""Leave at the first exit that is certain enough: DeeBERT's rule on exit heads over a frozen trunk."""

from __future__ import annotations

import math

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Values
from efficient_bert.methods import Leaving, Method
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.exit_rules import exit_rule, require_classes

EXIT_THRESHOLD = Knob(
    name="exit_threshold",
    summary="leave where the entropy is below this, in nats (0 never, ln C always)",
    default=0.3,
    low=0.0,
    points=(0.05, 0.15, 0.3, 0.45, 0.6),
)

BELOW_THRESHOLD = Leaving(EXIT_THRESHOLD.name, never=0.0, rule=lambda config, value: exit_rule(config, float(value)))


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the threshold is above the largest entropy of this many classes, or there are none.

    Nor can anyone leave a model of one layer.
    """
    require_classes(config, "entropy_exit")
    if config.num_hidden_layers < 2:
        raise InputError(
            "entropy_exit leaves before the last layer, but the model has one; take a backbone of two layers or more"
        )
    check_threshold(config, knobs)


def check_threshold(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the threshold is above the largest entropy of this many classes; scores have no such."""
    if config.regression:
        return
    threshold, most = knobs["exit_threshold"], math.log(config.classes)
    if threshold > most:
        raise InputError(
            f"exit_threshold is {threshold:g}, but the entropy of {config.classes} classes lies in "
            f"[0, {math.floor(most * 1000) / 1000:.3f}] nats; at the top everyone leaves at the first exit"
        )


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that leaves where the entropy falls below `exit_threshold` nats."""
    done = exit_rule(model.config, knobs["exit_threshold"])

    def decide(view: View) -> Decision:
        return Decision(leave=done(view.logits)) if len(view.logits) else Decision()

    return Policy(decide, exits=tuple(model.config.exit_depths))


ENTROPY_EXIT = Method(
    name="entropy_exit",
    summary="early exit at the first head whose entropy (nats) is below a threshold",
    source="Xin et al., 2020, DeeBERT, section 3",
    stage="exits",
    policy=policy,
    check=check,
    leaving=BELOW_THRESHOLD,
    knobs=(EXIT_THRESHOLD,),
)
