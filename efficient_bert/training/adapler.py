"""AdapLeR's training: predictors follow a fine-tuned model's saliency while thresholds rise (section 3.4).

Saliency maps of the fine-tuned model are computed once. Then model, predictors and thresholds learn together from
soft passes whose removal grows sharper with each epoch; epochs are compared by what really dropping tokens gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.contribution import contribution_policy
from efficient_bert.cost import full_flops, trace_flops
from efficient_bert.decisions import Policy
from efficient_bert.engine import Batch, Execution, run
from efficient_bert.explain import gradient_times_input
from efficient_bert.knobs import Knob, Value
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.training import Context, Rows, Stage, Trained
from efficient_bert.training.batches import collate
from efficient_bert.training.finetune import FINETUNE
from efficient_bert.training.kept import kept
from efficient_bert.training.loop import in_order, train, with_defaults
from efficient_bert.training.objectives import keep_in_bounds, new_probe, soft_losses, two_objectives
from efficient_bert.training.recipe import Backward, Descent, Inputs, Recipe

ALLOWED_DROP = 0.01
"""Epochs whose held-out score is this much below the fine-tuned model's are not chosen (the authors' code)."""


def with_contribution(
    model: EfficientBertForSequenceClassification, size: int
) -> EfficientBertForSequenceClassification:
    """The model with fresh contribution predictors of this size."""
    grown = EfficientBertForSequenceClassification(
        EfficientBertConfig(**{**model.config.to_dict(), "contribution_size": size})
    )
    fresh = {name: value for name, value in grown.state_dict().items() if name.startswith("contribution.")}
    grown.load_state_dict({**model.state_dict(), **fresh})
    return grown


def sharpness(epoch: int, epochs: int) -> float:
    """Of the soft removal in this epoch, from 0: in the end around 100,000 (the authors' code)."""
    start, growth = {3: (50.0, 50.0), 10: (10.0, 3.0)}.get(epochs, (10.0, 10.0 ** (4 / max(1, epochs - 1))))
    return float(start * growth**epoch)


def batch_of(model: EfficientBertForSequenceClassification, inputs: Inputs) -> Batch:
    """A collated batch on the model's device."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Batch.of({name: inputs[name].to(model.device) for name in names})


def saliency_of(model: EfficientBertForSequenceClassification, rows: Rows) -> Tensor:
    """(rows, longest): gradient times input of each row's gold logit, 0 after a row's end."""
    longest = max(len(row["input_ids"]) for row in rows)
    found = []
    for chunk in in_order(rows):
        inputs = collate(chunk, pad_token_id=model.config.padding)
        values = gradient_times_input(model, batch_of(model, inputs), inputs["labels"].to(model.device)).cpu()
        found.append(F.pad(values, (0, longest - values.shape[1])))
    return torch.cat(found)


def with_saliency(rows: Rows, *, pad_token_id: int) -> Inputs:
    """The usual batch, with the rows' saliency (B, L) where they have one."""
    batch = collate(rows, pad_token_id=pad_token_id)
    longest = batch["input_ids"].shape[1]
    maps = {"saliency": torch.stack([row["saliency"][:longest] for row in rows])} if "saliency" in rows[0] else {}
    return {**batch, **maps}


def descend(
    model: EfficientBertForSequenceClassification, batch: Inputs, epoch: int, *, options: Mapping[str, Value]
) -> Descent:
    """Both objectives on one soft pass; the first one is reported."""
    gamma, phi = float(options["gamma"]), float(options["phi"])
    probe = new_probe(model.contributions())
    losses = soft_losses(
        model,
        batch_of(model, batch),
        classes=batch["labels"],
        saliency=batch["saliency"],
        sharpness=sharpness(epoch, int(options["epochs"])),
        probe=probe,
    )

    def both(backward: Backward) -> None:
        two_objectives(model, losses, probe, gamma=gamma, phi=phi, backward=backward)

    return (losses.classification + gamma * losses.weighted_contribution()).detach(), both


def dropping(model: EfficientBertForSequenceClassification, batch: Inputs) -> Tensor:
    """Logits (B, C) with tokens dropped for good."""
    policy = contribution_policy(model.contributions())
    return run(model, batch_of(model, batch), policy, execution=Execution.MASKED).logits


@torch.inference_mode()
def judged(model: EfficientBertForSequenceClassification, context: Context, policy: Policy) -> tuple[float, float]:
    """Held-out score and FLOPs speed-up (a ratio of sums) under a policy."""
    model.eval()
    logits, spent, full = [], 0, 0
    for chunk in in_order(context.heldout):
        batch = batch_of(model, collate(chunk, pad_token_id=model.config.padding))
        output = run(model, batch, policy, execution=Execution.MASKED)
        logits.append(output.logits.float().cpu())
        spent += int(trace_flops(output.trace, model.config).sum())
        full += int(full_flops(output.trace.length, model.config).sum())
    return context.score(torch.tensor([row["label"] for row in context.heldout]), torch.cat(logits)), full / spent


def train_adapler(context: Context) -> Trained:
    """Saliency maps, then everything at once; the fastest epoch that loses less than a point is kept."""
    options, tuned = context.options, context.model
    torch.nn.Module.to(tuned, context.device)
    floor = judged(tuned, context, Policy())[0] - ALLOWED_DROP
    rows = kept(context.train, context.folder / "saliency", name="saliency", compute=partial(saliency_of, tuned))

    def rank(model: EfficientBertForSequenceClassification, score: float) -> float:
        """The speed-up, or below every speed-up the score."""
        if not score > floor:
            return score - 10.0
        return judged(model, context, contribution_policy(model.contributions()))[1]

    torch.manual_seed(context.seed)
    model = with_contribution(tuned, int(options["contribution_size"]))
    rate = float(options["threshold_rate"])
    recipe = Recipe(
        descend=partial(descend, options=options),
        predict=dropping,
        collate=partial(with_saliency, pad_token_id=model.config.padding),
        rates={"contribution.eta": rate, "contribution.theta": rate},
        settle=lambda model: keep_in_bounds(model.contributions()),
        rank=rank,
    )
    return train(replace(context, model=model, train=rows), recipe)


ADAPLER = Stage(
    name="adapler",
    summary="train contribution predictors, thresholds and the fine-tuned model to drop tokens",
    train=train_adapler,
    options=(
        *with_defaults(epochs=5, learning_rate=3e-5),
        Knob("contribution_size", "inner size of the contribution predictors", 32, low=1, high=4096),
        Knob("threshold_rate", "learning rate of the thresholds", 5e-4, low=1e-8, high=1.0),
    ),
    knobs=(
        Knob("gamma", "weight of following the saliency, a mean over layers in nats", 0.4, low=0.0),
        Knob(
            "phi",
            "weight of the length, in tokens summed over the layers: higher drops more",
            0.0005,
            low=0.0,
            points=(0.0005, 0.002, 0.005, 0.02),
        ),
    ),
    after=FINETUNE,
    step_cost=lambda options: 1.4 + 0.7 / float(options["epochs"]),  # two backward passes; saliency once
)
