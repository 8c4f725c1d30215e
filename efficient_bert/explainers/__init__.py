"""Explainers, one file each: how much each token matters to an answer, to be held against people's marks.

Shapes: B examples, N layers, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from efficient_bert.engine.batch import Batch
from efficient_bert.engine.decisions import Policy
from efficient_bert.model import EfficientBertForSequenceClassification


@dataclass(frozen=True)
class Question:
    """What is explained.

    Attributes:
        model: in evaluation mode.
        batch: the inputs.
        classes: (B,) int64, whose answer is explained: the predicted class of each example.
        marked: (B, L) bool, which tokens people marked.
        before: (B, L) in [0, 1), how much of the document stands before each token, also where it is read in windows.
        policy: how an adaptive model runs; None where all of the model runs.
    """

    model: EfficientBertForSequenceClassification
    batch: Batch
    classes: Tensor
    marked: Tensor
    before: Tensor
    policy: Policy | None = None


@dataclass(frozen=True)
class Explainer:
    """A way to score tokens.

    Attributes:
        name: registry name, as typed.
        summary: one line for listings.
        source: paper and section.
        explain: question -> (B, N, L) scores, none negative, 0 on padding; (B, 1, L) unless `by_layer`.
        adaptive: explains the adaptive model under its policy, not the fine-tuned one.
        by_layer: every layer has scores of its own.
        control: knows nothing of the model.
        shares: the scores of an example add up to 1, so that those of a short text are larger.
        gradients: read off gradients, whose order survives passes in bfloat16.
    """

    name: str
    summary: str
    source: str
    explain: Callable[[Question], Tensor]
    adaptive: bool = False
    by_layer: bool = False
    shares: bool = False
    gradients: bool = False
    control: bool = False
