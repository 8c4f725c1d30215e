"""What a stage gives the training loop: losses, predictions, learning rates, and how epochs are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import Rows

Model = EfficientBertForSequenceClassification
Inputs = Mapping[str, Tensor]
Loss = Callable[[Model, Inputs], Tensor]
Predict = Callable[[Model, Inputs], Tensor]
Collate = Callable[[Rows], Inputs]
Backward = Callable[..., None]
"""Like `Tensor.backward`, keywords included, of its first argument; scales it where half precision needs that."""


@dataclass
class Progress:
    """Where a training run stands; stored with every checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    scores: list[float] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)

    def best(self, count: int) -> list[int]:
        """Return the epochs of highest rank, counted from 0, best first.

        The earlier of equals comes first; an undefined rank is the lowest.
        """
        epochs = range(len(self.ranks))
        return sorted(epochs, key=lambda epoch: (math.isnan(self.ranks[epoch]), -self.ranks[epoch]))[:count]


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how epochs are compared.

    Attributes:
        descend: (model, batch, progress, backward) -> loss to report; leaves gradients behind by calling `backward`,
            more than once where one graph after the other takes less memory. Runs in the chosen precision.
        predict: (model, batch) -> logits (B, C), scored with the context's score.
        collate: rows -> batch with `labels`; pads word pieces by default.
        rates: name of a parameter -> its own learning rate; it has no weight decay.
        norm_group: names of parameters whose common gradient norm is clipped apart from that of the others.
        after_step: called after every optimiser step.
        rank: (model, held-out score) -> what the best epoch is highest in; the score by default.
        observe: model -> numbers to remember of it, about a hundred times in a training.
        keep: how many of the best epochs' parameters are kept beside the model; 0 for none.
        ema: decay of a running mean of the parameters, which is scored and kept instead of them; 0 for none.
    """

    descend: Callable[[Model, Inputs, Progress, Backward], Tensor]
    predict: Predict
    collate: Collate | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    norm_group: Collection[str] = ()
    after_step: Callable[[Model], None] = lambda model: None
    rank: Callable[[Model, float], float] = lambda model, score: score
    observe: Callable[[Model], Mapping[str, Any]] = lambda model: {}
    keep: int = 0
    ema: float = 0.0

    @property
    def epochs_to_keep(self) -> int:
        """How many of the best epochs' parameters are needed at the end."""
        return max(1, self.keep)


def one_loss(
    loss: Loss, predict: Predict, collate: Collate | None = None, *, keep: int = 0, ema: float = 0.0
) -> Recipe:
    """Make the recipe that minimises one loss over all trainable parameters."""

    def descend(model: Model, batch: Inputs, progress: Progress, backward: Backward) -> Tensor:
        value = loss(model, batch)
        backward(value)
        return value

    return Recipe(descend, predict, collate, keep=keep, ema=ema)


def parameter_groups(
    model: nn.Module, weight_decay: float, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Group trainable parameters: matrices with decay, vectors without, and those with learning rates of their own."""
    rates = rates or {}
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    trainable = [parameter for name, parameter in named.items() if name not in rates]
    matrices = [parameter for parameter in trainable if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
        *({"params": [named[name]], "weight_decay": 0.0, "lr": rate} for name, rate in rates.items()),
    ]
    return [group for group in groups if group["params"]]


def set_training_mode(model: nn.Module) -> None:
    """Switch dropout on only within modules that learn: a frozen trunk gives the same states in every epoch."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
