"""Leave once the exits have agreed for long enough: PABEE's rule, here on the exit heads of the frozen trunk."""

from __future__ import annotations

from functools import partial

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Values
from efficient_bert.methods import Leaving, Method
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.exit_rules import exits_agree, require_classes

AGREED = Leaving("patience", never=10**6, rule=lambda config, value: partial(exits_agree, patience=int(value)))


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the model has too few exits for anyone ever to leave, or no classes."""
    require_classes(config, "patience_exit")
    patience, exits = knobs["patience"], config.num_hidden_layers - 1
    if patience >= exits:
        remedy = f"give at most {exits - 1}" if exits > 1 else "take a backbone of three layers or more"
        raise InputError(
            f"patience is {patience}, but a model of {exits + 1} layers has {exits} exits, so nobody could leave; "
            f"{remedy}"
        )


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy that leaves once `patience` + 1 successive exits predict the same class."""
    done = AGREED.rule(model.config, knobs["patience"])

    def decide(view: View) -> Decision:
        return Decision(leave=done(view.logits)) if len(view.logits) else Decision()

    return Policy(decide, exits=tuple(model.config.exit_depths))


PATIENCE_EXIT = Method(
    name="patience_exit",
    summary="early exit once successive heads agree on the class",
    source="Zhou et al., 2020, BERT loses patience (PABEE), section 3.2; heads as DeeBERT's, not trained jointly",
    stage="exits",
    policy=policy,
    check=check,
    leaving=AGREED,
    knobs=(
        Knob(
            name="patience",
            summary="agreements in a row before leaving",
            default=2,
            low=1,
            points=(1, 2, 3),
        ),
    ),
)
