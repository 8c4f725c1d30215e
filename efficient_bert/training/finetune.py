"""Fine-tuning the whole model, or its first layers, on a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Value
from efficient_bert.model import EfficientBertForSequenceClassification, reshaped
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.recipe import one_loss


def classify(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """The full model's logits (B, C)."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    logits: Tensor = model(**inputs).logits
    return logits


def classification_loss(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the final logits."""
    return F.cross_entropy(classify(model, batch).float(), batch["labels"])


def finetune(context: Context) -> Trained:
    """Every parameter, cross-entropy (Devlin et al., 2019, section 4.1); the best epochs are kept for stages after."""
    return train(context, one_loss(classification_loss, classify, keep=int(context.options["keep_epochs"])))


def truncate(model: EfficientBertForSequenceClassification, depth: int) -> EfficientBertForSequenceClassification:
    """A model of the first `depth` layers with the same embeddings, pooler and classifier."""
    return reshaped(model, num_hidden_layers=depth, exit_depths=[], contribution_size=0)


def finetune_truncated(context: Context) -> Trained:
    """The first round(depth_mult * N) layers, fine-tuned."""
    depth = kept_depth(context.model.config, context.options)
    return train(replace(context, model=truncate(context.model, depth)), one_loss(classification_loss, classify))


def kept_depth(config: EfficientBertConfig, options: Mapping[str, Value]) -> int:
    """round(depth_mult * N), or an InputError where that is no layer at all."""
    layers, fraction = config.num_hidden_layers, float(options["depth_mult"])
    depth = round(layers * fraction)
    if depth < 1:
        raise InputError(
            f"depth_mult is {fraction:g}, which keeps none of {layers} layers; give {1 / layers:.2f} or more"
        )
    return depth


FINETUNE = Stage(
    name="finetune",
    summary="fine-tune the whole model on the task",
    train=finetune,
    options=(
        *with_defaults(epochs=5),
        Knob("keep_epochs", "best epochs whose parameters are kept, for saliency maps", 3, low=1, high=100),
    ),
)

TRUNCATE = Stage(
    name="truncate",
    summary="fine-tune the backbone's first layers on the task",
    train=finetune_truncated,
    options=with_defaults(epochs=5),
    knobs=(
        Knob(
            "depth_mult",
            "fraction of the layers that are kept, from the first on",
            0.5,
            low=0.0,
            high=1.0,
            points=(0.5,),
        ),
    ),
    step_cost=lambda options: float(options["depth_mult"]),
)
