"""Leave at the first depth that is certain enough, by the final head: the exits of the jointly trained model."""

from __future__ import annotations

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.knobs import Knob, Values
from efficient_bert.methods import Method
from efficient_bert.methods.entropy_exit import BELOW_THRESHOLD, EXIT_THRESHOLD, check_threshold
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.exit_rules import exit_rule, require_exits
from efficient_bert.policies.subnets import uniform_subnet


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy of one width that leaves where the entropy after a trained depth is below the threshold.

    In a regression, until two depths' scores differ by less than the threshold.
    """
    done, exits = exit_rule(model.config, knobs["exit_threshold"]), tuple(model.config.exit_depths)
    subnet = uniform_subnet(model.config, width=knobs["exit_width"])

    def decide(view: View) -> Decision:
        return Decision(leave=done(view.logits)) if view.depth in exits else Decision()

    return Policy(decide, exits=exits, widths=subnet.widths)


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where no exits are trained, the width leaves no head or the threshold fits no classes."""
    require_exits(config, "prefix_exit")
    kept_heads(knobs["exit_width"], config.num_attention_heads, name="exit_width")
    check_threshold(config, knobs)


PREFIX_EXIT = Method(
    name="prefix_exit",
    summary="early exit at the trained depths of the jointly trained model, answered by its final head",
    source="Hu et al., 2023, Flexible BERT",
    stage="final",
    policy=policy,
    check=check,
    leaving=BELOW_THRESHOLD,
    suite=False,
    knobs=(
        EXIT_THRESHOLD,
        Knob("exit_width", "fraction of heads and neurons of every layer", 1.0, low=0.0, high=1.0, positive=True),
    ),
)
