"""How often gates and exits choose what: controls choose as often, by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from efficient_bert.config import kept_heads
from efficient_bert.engine import Output, run
from efficient_bert.exits import exit_logits, exit_rule, left_at
from efficient_bert.gates import gate_policy
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.subnets import subnet_policy, uniform
from efficient_bert.training import Rows
from efficient_bert.training.batches import batch_of, collate, in_order

STEPS = 40
"""Measured thresholds above 0; they lie closer the lower they are, where most examples' entropies lie."""


@torch.inference_mode()
def measure_profiles(
    model: EfficientBertForSequenceClassification,
    rows: Rows,
    *,
    device: str | torch.device,
    widths: Sequence[float] | None = None,
    width: float = 1.0,
    threshold: float = 0.0,
) -> None:
    """Write into the model's configuration, from one pass in which nobody leaves, how often what is chosen.

    `exit_profile`, and of gates `gate_profile` and `staying_profile`, in which a gate that nobody reaches keeps the
    shares of the threshold below. No label is read.

    Args:
        device: where the passes run; the model is there afterwards.
        widths: what each class of the gates is run at; the trained widths where the model has gates.
        width: of all layers of a model without gates.
        threshold: one more for `exit_profile`, exactly; 0 is always there.
    """
    torch.nn.Module.to(model, device)
    config = model.config
    depths = tuple(config.exit_depths)
    widths = config.widths if widths is None else widths
    policy = replace(subnet_policy(uniform(config, width=width)), exits=depths)
    if model.gates is not None:
        policy = gate_policy(model.gates, widths, exits=depths)
    outputs = []
    for chunk in in_order(rows):
        batch = batch_of(model, collate(chunk, pad_token_id=config.padding))
        outputs.append(run(model, batch, policy))
    logits = torch.cat([exit_logits(output).cpu() for output in outputs], dim=1) if depths else None  # as traces are
    bounds = [] if logits is None else sorted({*thresholds(model, logits), threshold})
    left = [] if logits is None else [left_at(logits, exit_rule(config, bound)) for bound in bounds]
    config.exit_profile = [
        [bound, *frequencies(at, len(depths) + 1)[:-1]] for bound, at in zip(bounds, left, strict=True)
    ]
    if model.gates is not None:
        counts = [kept_heads(each, config.num_attention_heads) for each in widths]
        chosen = torch.cat([classes(output, counts)[:: model.gates.span] for output in outputs], dim=1)
        passed = [sum(depth <= gate * model.gates.span for depth in depths) for gate in range(len(chosen))]
        config.gate_profile = [frequencies(gate, len(widths)) for gate in chosen]
        config.staying_profile = []
        for at in left:
            before = config.staying_profile[-1] if config.staying_profile else config.gate_profile
            there = [at >= exits for exits in passed]
            config.staying_profile.append(
                [
                    frequencies(gate[stays], len(widths)) if stays.any() else shares
                    for gate, stays, shares in zip(chosen, there, before, strict=True)
                ]
            )


def classes(output: Output, counts: Sequence[int]) -> Tensor:
    """(N, B) int64: the class at which each layer ran, the first of those that keep so many heads."""
    heads = output.trace.heads.T
    return (heads[..., None] == heads.new_tensor(counts)).int().argmax(-1)


def thresholds(model: EfficientBertForSequenceClassification, logits: Tensor) -> list[float]:
    """From 0, where nobody leaves, to the largest value that the exits' logits (E, B, C) may be held against."""
    most = math.log(model.config.classes)
    if model.config.regression:
        most = float(logits.diff(dim=0).abs().max()) if len(logits) > 1 else 0.0
    return [most * (step / STEPS) ** 2 for step in range(STEPS + 1)] if most else [0.0]


def frequencies(choices: Tensor, count: int) -> list[float]:
    """(B,) int64 below `count` -> how large a share each number has."""
    return (choices.bincount(minlength=count).double() / len(choices)).tolist()
