"""Control: Flexible BERT's widths and exits, as often, for examples drawn at random."""

from __future__ import annotations

from collections.abc import Mapping

from efficient_bert.calibration.profiles import measure_profiles
from efficient_bert.choice_controls import CLASS_RATES, EXIT_RATES, check_shares, staying_class_shares
from efficient_bert.config import EfficientBertConfig
from efficient_bert.controls import CONTROL_SEED
from efficient_bert.decisions import Policy
from efficient_bert.gates import class_widths
from efficient_bert.knobs import Value
from efficient_bert.methods import Method, flexible
from efficient_bert.methods.random_exits import exit_at_random
from efficient_bert.methods.random_widths import draw_widths
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import Rows


def policy(model: EfficientBertForSequenceClassification, knobs: Mapping[str, Value]) -> Policy:
    """Make the policy that picks an example's widths by one random number, and its exit by another."""
    shares = staying_class_shares(model.config, knobs["class_rates"], float(knobs["exit_threshold"]))
    return exit_at_random(model.config, knobs, widths=draw_widths(model.config, knobs, shares=shares))


def measure(model: EfficientBertForSequenceClassification, rows: Rows, knobs: Mapping[str, Value]) -> None:
    """Measure which share of examples takes each width and each exit, at this list of widths and this threshold."""
    widths = class_widths(str(knobs["width_mult_list"]), model.config)
    measure_profiles(model, rows, device=model.device, widths=widths, threshold=float(knobs["exit_threshold"]))


def check(config: EfficientBertConfig, knobs: Mapping[str, Value]) -> None:
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
    measure=measure,
    check=check,
    suite=False,
    knobs=(*flexible.FLEXIBLE.knobs, CLASS_RATES, EXIT_RATES, CONTROL_SEED),
)
