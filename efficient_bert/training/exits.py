"""Exit heads trained on the frozen trunk: DeeBERT's second stage (Xin et al., 2020, section 3.2).

The trunk does not change, so its [CLS] states are computed once and kept; the heads then train on them for many
epochs at little cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.loop import Execution, run
from efficient_bert.model import EfficientBertForSequenceClassification, ExitHead, rebuild
from efficient_bert.rows import Rows
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.batches import batch_of, collate, compute_by_length
from efficient_bert.training.cached_rows import with_cached
from efficient_bert.training.finetune import FINETUNE
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.recipe import one_loss


def inner_exits(config: EfficientBertConfig) -> dict[str, Any]:
    """Return the configuration's new fields: an exit head of its own after every inner layer."""
    return {"exit_depths": list(range(1, config.num_hidden_layers)), "shared_head": False}


def with_exits(model: EfficientBertForSequenceClassification) -> EfficientBertForSequenceClassification:
    """Add an exit head after every inner layer to the model, each a copy of the final head."""
    grown = rebuild(model, **inner_exits(model.config))
    for depth in grown.config.exit_depths:
        head = cast(ExitHead, grown.exits[str(depth)])
        head.pooler.load_state_dict(model.bert.pooler.state_dict())
        head.classifier.load_state_dict(model.classifier.state_dict())
    return grown


@torch.inference_mode()
def exit_states(model: EfficientBertForSequenceClassification, rows: Rows) -> Tensor:
    """Compute the [CLS] states at every exit depth, without dropout: (rows, E, D)."""

    def compute(chunk: Rows) -> Tensor:
        batch = batch_of(model, collate(chunk, pad_token_id=model.config.padding))
        states = run(model, batch, execution=Execution.SOFT, record=True).hidden_states
        return torch.stack([states[depth][:, 0] for depth in model.config.exit_depths], dim=1).cpu()

    return compute_by_length(rows, compute)


def collate_states(rows: Rows) -> dict[str, Tensor]:
    """Stack `states` (B, E, D) and `labels` (B,) of rows."""
    return {
        "states": torch.stack([row["states"] for row in rows]),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def head_logits(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the logits of every exit head on its states, (E, B, C)."""
    depths = enumerate(model.config.exit_depths)
    return torch.stack([model.classify(batch["states"][:, number], depth=depth) for number, depth in depths])


def exits_loss(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the sum of the exits' mean cross-entropies."""
    logits = head_logits(model, batch).float()
    return sum((F.cross_entropy(one, batch["labels"]) for one in logits), start=logits.new_zeros(()))


def mean_exit(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the exits' mean probabilities (B, C), by which epochs are selected."""
    return head_logits(model, batch).float().softmax(-1).mean(0)


def train_exits(context: Context) -> Trained:
    """Train exit heads only; every other parameter stays as it was, to the bit."""
    model = with_exits(context.model).eval()
    torch.nn.Module.to(model, PartialState(cpu=context.device == "cpu").device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("exits.")
    with_states = partial(with_cached, name="states", compute=partial(exit_states, model))
    on_states = replace(
        context,
        model=model,
        train=with_states(context.train, context.folder / "train"),
        heldout=with_states(context.heldout, context.folder / "heldout"),
    )
    trained = train(on_states, one_loss(exits_loss, mean_exit, collate_states))
    return Trained(trained.model.requires_grad_(True), trained.scores)


EXITS = Stage(
    name="exits",
    summary="train exit heads after every inner layer on the frozen, fine-tuned trunk",
    train=train_exits,
    options=with_defaults(epochs=10, learning_rate=1e-3),
    after=FINETUNE,
    changes=lambda config, options: inner_exits(config),
    step_cost=lambda options: 0.4 / options["epochs"] + 0.02,  # one forward pass in all, then the heads
)
