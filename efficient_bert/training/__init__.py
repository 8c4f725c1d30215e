"""Training: one loop, and the stages that use it. A stage turns one model into the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.knobs import Knob, Values
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import Rows


@dataclass(frozen=True)
class Status:
    """Progress of a running stage: steps done of all, and what is known of the last one; NaN is unknown."""

    step: int
    steps: int
    examples_per_second: float = math.nan
    loss: float = math.nan
    score: float | None = None


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    Attributes:
        model: the model of the stage before, or the backbone with a fresh classifier.
        train: training examples.
        heldout: a slice of the training split, never trained on: models are selected on it.
        score: (labels (n,), logits (n, C)) -> the task's first metric, higher is better.
        holds_up: (a score, that of the full model, how much may be lost) -> whether no more is lost: the rule by
            which whoever trains chooses operating points, so that a stage keeps an epoch by no other.
        options: values of the stage's options and knobs.
        seed: of initialisation, order and dropout.
        device: "cpu" or "cuda".
        folder: where checkpoints go; what is there from an earlier, killed attempt is resumed.
        vocabulary: word piece -> its id in `train`; needed only where other texts are read.
        before: the finished stage before: its model and the files it kept beside it; None for a first stage.
        fresh: () -> the backbone with a fresh classifier.
        watch: called often with the progress.
    """

    model: EfficientBertForSequenceClassification
    train: Rows
    heldout: Rows
    score: Callable[[Tensor, Tensor], float]
    holds_up: Callable[[float, float, float], bool]
    options: Values
    seed: int
    device: str
    folder: Path
    fresh: Callable[[], EfficientBertForSequenceClassification]
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    before: Path | None = None
    watch: Callable[[Status], None] = lambda status: None

    def stage_before(self) -> Path:
        """Return the folder of the finished stage before, which a stage with `after` always has."""
        if self.before is None:
            raise ValueError("this context is of a first stage: there is no stage before it")
        return self.before


@dataclass(frozen=True)
class Trained:
    """What a stage returns.

    Attributes:
        model: ready for evaluation, on the CPU.
        scores: the held-out score of each epoch.
        history: what the recipe watched, name -> a value for each of about a hundred moments, in order.
        beside: name -> a file in the stage's folder, to be kept beside the model for the stages after.
    """

    model: EfficientBertForSequenceClassification
    scores: tuple[float, ...] = ()
    history: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    beside: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of training whose result is stored and reused.

    Attributes:
        name: names the artifact; `--<name>-<option>` on the command line.
        summary: one line for listings.
        train: context -> trained model.
        options: hyper-parameters.
        knobs: values that decide the training and that a sweep varies.
        after: the stage whose model this one starts from; None starts from the backbone.
        changes: (configuration of the model before, options and knobs) -> its fields that are others afterwards;
            raises InputError where they do not fit. Asked before any stage trains, as `check` is.
        check: (configuration of the model before, options and knobs, word pieces of the backbone's tokenizer);
            raises InputError where options that change no field do not fit.
        step_cost: options -> cost of an example relative to fine-tuning the full model, for time estimates.
        uses_seed: whether anything in it is random, and so depends on the seed.
        untouched_rows: (number of held-out rows, options, seed) -> numbers of those that the stage does not learn on.
    """

    name: str
    summary: str
    train: Callable[[Context], Trained]
    options: tuple[Knob, ...]
    knobs: tuple[Knob, ...] = ()
    after: Stage | None = None
    changes: Callable[[EfficientBertConfig, Values], Mapping[str, Any]] = lambda config, options: {}
    check: Callable[[EfficientBertConfig, Values, Mapping[str, int]], object] = lambda *given: None
    step_cost: Callable[[Values], float] = lambda options: 1.0
    uses_seed: bool = True
    untouched_rows: Callable[[int, Values, int], Sequence[int]] = lambda rows, options, seed: range(rows)

    @property
    def chain(self) -> tuple[Stage, ...]:
        """This stage and all before it, first one first."""
        return (*(self.after.chain if self.after else ()), self)
