"""A point of each method at which something happens on random models of four layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.registry import METHODS, all_knobs
from efficient_bert import EfficientBertForSequenceClassification
from efficient_bert.engine.decisions import Policy

KNOBS: Mapping[str, Mapping[str, Any]] = {
    "entropy_exit": {"exit_threshold": 1.0},
    "prefix_exit": {"exit_threshold": 1.0, "exit_width": 0.5},
    "flexible": {"exit_threshold": 0.3},
    "static_subnet": {"width_mult": "0.5,0.75", "depth_mult": 0.5},
    "adapler": {"eta_scale": 3.0},
}


def knobs_of(name: str, model: EfficientBertForSequenceClassification) -> Mapping[str, Any]:
    """The knob values of a method, a control's shares as the model's configuration has them."""
    method = METHODS[name]
    knobs = {**{knob.name: knob.default for knob in all_knobs(method)}, **KNOBS.get(name, {})}
    return method.calibrate(model, None, knobs)


def policy_of(name: str, model: EfficientBertForSequenceClassification) -> Policy:
    """A method's policy at these knobs."""
    return METHODS[name].policy(model, knobs_of(name, model))
