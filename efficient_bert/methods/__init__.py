"""Methods, one file each: a policy with knobs, and the training stage whose model it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.recorder import Output
from efficient_bert.knobs import Knob, Value, Values
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.exit_rules import Done
from efficient_bert.rows import Rows

Count = Callable[[EfficientBertForSequenceClassification, Output, Values], tuple[Tensor, Tensor]]
Calibrate = Callable[[EfficientBertForSequenceClassification, Rows | None, Values], Mapping[str, Any]]


@dataclass(frozen=True)
class Leaving:
    """A knob that says who leaves and nothing else: of one pass in which nobody does, every value can be read off.

    All layers run in order, and `published_flops` does not ask for the knob.

    Attributes:
        knob: its name.
        never: its value at which nobody leaves.
        rule: (configuration, value) -> who leaves.
    """

    knob: str
    never: Value
    rule: Callable[[EfficientBertConfig, Value], Done]


@dataclass(frozen=True)
class Method:
    """A way to run the model.

    Attributes:
        name: registry name, as typed.
        summary: one line for listings.
        source: paper and section.
        stage: name of the last training stage; its model is the one that runs.
        policy: (model, knob values) -> policy; nothing that was measured is read from the model's configuration.
        control_of: the method whose point of it this is the control for, empty for others.
        knobs: values that vary at inference; the stages add those that vary in training.
        leaving: the knob that says who leaves, where there is one.
        published_flops: (model, its pass, knob values) -> the authors' counts of the pass and of the full model, each
            (B,) int64; None where they count as we do.
        suite: it runs where no method is named; not one whose training takes as long as all others'.
        calibrate: (model, rows, knob values) -> the knob values that `policy` takes: shares, as tuples, in place of a
            control's `own`. They are measured on the rows, whose labels are not read; without rows (None) they are
            those that the stage has stored. The model stays as it is.
        dense: every layer of the model runs, at its full width, on every token: any engine for BERT can answer.
        check: raises InputError where knob values do not fit a model of the configuration that `stage` leaves; asked
            before training.
    """

    name: str
    summary: str
    source: str
    stage: str
    policy: Callable[[EfficientBertForSequenceClassification, Mapping[str, Any]], Policy]
    control_of: str = ""
    knobs: tuple[Knob, ...] = ()
    leaving: Leaving | None = None
    published_flops: Count | None = None
    suite: bool = True
    dense: bool = False
    calibrate: Calibrate = lambda model, rows, knobs: knobs
    check: Callable[[EfficientBertConfig, Values], None] = lambda config, knobs: None
