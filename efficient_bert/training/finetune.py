"""Fine-tuning the full model, or its first layers, on a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import reduce
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.encoder.hooks import change_output
from efficient_bert.knobs import Knob, Values
from efficient_bert.model import EfficientBertForSequenceClassification, rebuild
from efficient_bert.policies.subnets import count_layers
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.recipe import Loss, Recipe, one_loss

RDROP = Knob("rdrop", "weight of agreeing with itself under another dropout (R-Drop); 0 = one pass", 0.0, low=0.0)
ADVERSARIAL = Knob(
    "adversarial",
    "how far the word embeddings of a batch are moved against it, to learn from that too; 0 = not at all",
    0.0,
    low=0.0,
    before=0.0,
)
EMA = Knob(
    "ema",
    "decay of a running mean of the parameters, which is kept instead of them; 0 = none",
    0.0,
    low=0.0,
    high=0.99999,
)


def classify(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the full model's logits, (B, C)."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    logits: Tensor = model(**inputs).logits
    return logits


def classification_loss(model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the task's loss of the final logits: mean cross-entropy, or mean squared error in a regression."""
    return model.loss(classify(model, batch).float(), batch["labels"])


def consistent_loss(
    model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor], *, weight: float
) -> Tensor:
    """Compute the task's loss over two passes with different dropout, and how much they disagree (R-Drop).

    L = mean loss of both passes + weight (KL(p || q) + KL(q || p)) / 2, in a regression the squared difference instead
    of the divergences (Liang et al., 2021, equations 1 to 4; their alpha is twice the weight, as they add the losses).
    """
    twice = {name: torch.cat([value, value]) for name, value in batch.items()}
    logits = classify(model, twice).float()
    loss = model.loss(logits, twice["labels"])
    one, other = logits.chunk(2)
    if model.config.regression:
        return loss + weight * F.mse_loss(one, other)
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    divergences = F.kl_div(p, q, log_target=True, reduction="batchmean") + F.kl_div(
        q, p, log_target=True, reduction="batchmean"
    )
    return loss + weight * divergences / 2


def adversarial_loss(
    model: EfficientBertForSequenceClassification, batch: Mapping[str, Tensor], *, loss: Loss, radius: float
) -> Tensor:
    """Compute `loss`, and add `loss` again where the words of the batch are moved against it.

    With g the gradient of the loss at the table of word embeddings, the table moves by radius * g / |g|, a constant to
    the second pass: hard examples move more than easy ones, and words that many of them share most (the fast gradient
    method of Miyato et al., 2017, equation 5, whose examples each move by the radius).
    """
    words = model.bert.embeddings.word_embeddings
    plain = loss(model, batch)
    (gradient,) = torch.autograd.grad(plain, [words.weight], retain_graph=True)
    gradient = reduce(gradient * len(batch["labels"]), "sum")  # several processes move the same table
    move = radius * gradient / gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
    with change_output(words, lambda embedded, ids: embedded + F.embedding(ids, move)):
        return plain + loss(model, batch)


def task_recipe(options: Values, *, keep: int = 0) -> Recipe:
    """Make the recipe of the task's loss over every parameter, consistent and adversarial if the options say so.

    Devlin et al., 2019, section 4.1.
    """
    weight, radius = options["rdrop"], options["adversarial"]
    loss = partial(consistent_loss, weight=weight) if weight else classification_loss
    if radius:
        loss = partial(adversarial_loss, loss=loss, radius=radius)
    return one_loss(loss, classify, keep=keep, ema=options["ema"])


def finetune(context: Context) -> Trained:
    """Fine-tune the full model; the best epochs are kept for the stages after."""
    return train(context, task_recipe(context.options, keep=context.options["keep_epochs"]))


def finetune_truncated(context: Context) -> Trained:
    """Fine-tune the first layers with the same embeddings, pooler and classifier."""
    model = rebuild(context.model, **first_layers(context.model.config, context.options))
    return train(replace(context, model=model), task_recipe(context.options))


def first_layers(config: EfficientBertConfig, options: Values) -> dict[str, Any]:
    """Return the new fields of a model of the first round(depth_mult * N) layers; InputError where that is none."""
    depth = count_layers(options["depth_mult"], config.num_hidden_layers, name="depth_mult")
    return {"num_hidden_layers": depth, "exit_depths": [], "contribution_size": 0, "num_gates": 0}


def pass_cost(options: Values) -> float:
    """Estimate the passes of a step; the gradient of the embeddings takes half a backward pass."""
    return (2.0 if options["rdrop"] else 1.0) * (2.4 if options["adversarial"] else 1.0)


FINETUNE = Stage(
    name="finetune",
    summary="fine-tune the whole model on the task",
    train=finetune,
    options=(
        *with_defaults(epochs=5),
        RDROP,
        ADVERSARIAL,
        EMA,
        Knob("keep_epochs", "best epochs whose parameters are kept, for saliency maps", 3, low=1, high=100),
    ),
    step_cost=pass_cost,
)

TRUNCATE = Stage(
    name="truncate",
    summary="fine-tune the backbone's first layers on the task",
    train=finetune_truncated,
    options=(*with_defaults(epochs=5), RDROP, ADVERSARIAL, EMA),
    knobs=(
        Knob(
            "depth_mult",
            "fraction of the layers that are kept, from the first on",
            0.5,
            low=0.0,
            positive=True,
            high=1.0,
            points=(0.5,),
        ),
    ),
    changes=first_layers,
    step_cost=lambda options: pass_cost(options) * options["depth_mult"],
)
