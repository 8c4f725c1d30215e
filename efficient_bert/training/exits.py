"""Exit heads trained on the frozen trunk: DeeBERT's second stage (Xin et al., 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.decisions import Policy
from efficient_bert.engine import Batch, Execution, run
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.finetune import FINETUNE
from efficient_bert.training.loop import train, with_defaults


def exit_logits(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits of every exit, (E, B, C)."""
    policy = Policy(exits=tuple(model.config.exit_depths))
    output = run(model, Batch.of(batch), policy, execution=Execution.SOFT)
    return torch.stack(list(output.exit_logits.values()))


def exits_loss(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """The sum of the exits' mean cross-entropies."""
    logits = exit_logits(model, batch).float()
    return sum((F.cross_entropy(one, batch["labels"]) for one in logits), start=logits.new_zeros(()))


def mean_exit(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """The exits' mean probabilities (B, C): what the epochs are selected by."""
    return exit_logits(model, batch).float().softmax(-1).mean(0)


def with_exits(model: EfficientBertForSequenceClassification) -> EfficientBertForSequenceClassification:
    """The model with an exit head after every inner layer, each starting as a copy of the final head."""
    depths = list(range(1, model.config.num_hidden_layers))
    grown = EfficientBertForSequenceClassification(
        EfficientBertConfig(**{**model.config.to_dict(), "exit_depths": depths})
    )
    states = dict(model.state_dict())
    for depth in depths:
        states |= {f"exits.{depth}.pooler.{name}": value for name, value in model.bert.pooler.state_dict().items()}
        states |= {f"exits.{depth}.classifier.{name}": value for name, value in model.classifier.state_dict().items()}
    grown.load_state_dict(states)
    return grown


def train_exits(context: Context) -> Trained:
    """Exit heads only; every other parameter stays as it was, to the bit."""
    model = with_exits(context.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("exits.")
    trained = train(replace(context, model=model), loss=exits_loss, predict=mean_exit)
    return Trained(trained.model.requires_grad_(True), trained.scores)


EXITS = Stage(
    name="exits",
    summary="train exit heads after every inner layer on the frozen, fine-tuned trunk",
    train=train_exits,
    options=with_defaults(epochs=2, learning_rate=1e-3),
    after=FINETUNE,
    step_cost=lambda options: 0.4,  # the trunk runs forward only
)
