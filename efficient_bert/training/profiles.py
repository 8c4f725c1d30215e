"""How often gates and exits choose what, on held-out rows: controls choose as often, by chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from efficient_bert.decisions import Policy
from efficient_bert.engine import Execution, Output, run
from efficient_bert.exits import exit_rule
from efficient_bert.gates import gate_policy
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.training import Rows
from efficient_bert.training.batches import batch_of, collate, in_order

STEPS = 40
"""Measured thresholds above 0; they lie closer the lower they are, where most examples' entropies lie."""


@torch.inference_mode()
def measure_profiles(model: EfficientBertForSequenceClassification, rows: Rows) -> None:
    """Write `exit_profile`, and of a model with gates `gate_profile`, into the model's configuration, from one pass.

    Widths are those of the gates, or full; nobody leaves, so every exit answers every row.
    """
    depths = tuple(model.config.exit_depths)
    policy = Policy(exits=depths)
    if model.gates is not None:
        policy = gate_policy(model.gates, model.config.widths, exits=depths)
    outputs = []
    for chunk in in_order(rows):
        batch = batch_of(model, collate(chunk, pad_token_id=model.config.padding))
        outputs.append(run(model, batch, policy, execution=Execution.MASKED, record=True))
    if model.gates is not None:
        chosen = torch.cat([widths(output) for output in outputs], dim=1)
        model.config.gate_profile = [
            [float((gate == width).double().mean()) for width in model.config.widths] for gate in chosen
        ]
    model.config.exit_profile = exit_curve(model, outputs) if depths else []


def widths(output: Output) -> Tensor:
    """(G, B): the width that each gate chose."""
    return torch.stack([decision.width for decision in output.decisions if decision.width is not None])


def exit_curve(model: EfficientBertForSequenceClassification, outputs: list[Output]) -> list[list[float]]:
    """Rows of a threshold and the shares (E,) of examples that leave at each exit under it."""
    logits = torch.cat([torch.stack(list(output.exit_logits.values())) for output in outputs], dim=1)
    most = math.log(model.config.classes)
    if model.config.regression:
        most = float(logits.diff(dim=0).abs().max()) if len(logits) > 1 else 0.0
    thresholds = [most * (step / STEPS) ** 2 for step in range(STEPS + 1)] if most else [0.0]
    return [[bound, *leaving(logits, exit_rule(model.config, bound))] for bound in thresholds]


def leaving(logits: Tensor, done: Callable[[Tensor], Tensor]) -> list[float]:
    """Exits' logits (E, B, C) -> (E,): the share of examples whose first exit that says so is this one."""
    staying, rates = torch.ones_like(logits[0, :, 0], dtype=torch.bool), []
    for exits in range(1, len(logits) + 1):
        leaves = staying & done(logits[:exits])
        rates.append(float(leaves.double().mean()))
        staying = staying & ~leaves
    return rates
