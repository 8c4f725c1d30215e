"""What AdapLeR is trained on: three losses of one soft pass, and two objectives over disjoint parameters.

    weights      minimise  CE + gamma CP      CP: the predictors' shares follow the saliency of a fine-tuned model
    thresholds   minimise  CE + phi LEN       LEN: tokens that are left, summed over the layers

Shapes: B examples, L tokens, C classes, N layers. AdapLeR, Modarressi et al., 2022, sections 3.2 to 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from efficient_bert.engine.batch import Batch
from efficient_bert.engine.loop import Execution, run
from efficient_bert.fidelity import Fidelity
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.contribution import Contribution, contribution_policy, first_token, presence
from efficient_bert.training.distillation import soft_cross_entropy

PUBLISHED_WEIGHTS = 78
"""12 + 11 + .. + 1."""

SMALLEST_SHARE = 1e-7
"""Shares are clipped to this before their logarithm is taken."""


@dataclass(frozen=True)
class Losses:
    """Of one batch, as means over its examples.

    Attributes:
        classification: () the task's loss, cross-entropy in nats; with a teacher, partly with its probabilities.
        contribution: (N,) divergence of the predictors' shares from the labels before each layer, in nats.
        length: () tokens left for each layer, summed over the layers.
    """

    classification: Tensor
    contribution: Tensor
    length: Tensor

    def weighted_contribution(self, fidelity: Fidelity = Fidelity.CORRECTED) -> Tensor:
        """Sum the layers' divergences, weighted by N, N - 1, .., 1: ().

        Corrected, the weights are scaled to the sum that twelve layers have, so that the published gamma weighs as
        much in a model of any depth.
        """
        weights = torch.arange(len(self.contribution), 0, -1).to(self.contribution)
        total = (weights * self.contribution).sum()
        return total if fidelity == Fidelity.RELEASED else total * PUBLISHED_WEIGHTS / weights.sum()


def soft_losses(
    model: EfficientBertForSequenceClassification,
    batch: Batch,
    *,
    classes: Tensor,
    saliency: Tensor,
    sharpness: float,
    teacher: Tensor | None = None,
    distill: float = 0.0,
    probe: Tensor | None = None,
    fidelity: Fidelity = Fidelity.CORRECTED,
) -> Losses:
    """Compute the losses of a soft pass.

    Args:
        classes: (B,) int64 gold classes; scores in a regression.
        saliency: (B, L) >= 0, the labels of the shares, of any scale.
        sharpness: of the soft removal.
        teacher: (B, C) logits that are followed, and `distill` the part of the classification loss that does.
        probe: (N - 1,) ones; what `two_objectives` derives theta's gradient from.
    """
    contribution = model.contributions()
    policy = contribution_policy(contribution, sharpness=sharpness, probe=probe, fidelity=fidelity)
    output = run(model, batch, policy, execution=Execution.SOFT, record=True, all_tokens=False)
    shares = [decision.scores for decision in output.decisions if decision.scores is not None]
    fades = [decision.fade for decision in output.decisions if decision.fade is not None]
    left = [
        presence(batch.mask, fades[:layer], dtype=shares[0].dtype, fidelity=fidelity) for layer in range(len(fades) + 1)
    ]
    logits = output.logits.to(shares[0].dtype)
    classification = model.loss(logits, classes)
    if teacher is not None:
        classification = (1 - distill) * classification + distill * soft_cross_entropy(logits, teacher)
    return Losses(
        classification=classification,
        contribution=divergences(
            shares, left[:-1], saliency=saliency, first=first_token(batch.mask), theta=contribution.theta,
            fidelity=fidelity,
        ),
        length=torch.stack(left[1:]).sum((0, 2)).mean(),
    )  # fmt: skip


def divergences(
    shares: Sequence[Tensor],
    left: Sequence[Tensor],
    *,
    saliency: Tensor,
    first: Tensor,
    theta: Tensor,
    fidelity: Fidelity,
) -> Tensor:
    """Compute before each layer the mean over examples of KL(label || shares), in nats: (N,).

    The label is one saliency map for all layers, of which only what is `left` (B, L) of each token counts, and [CLS]
    theta times. An example's term shrinks as its last token beside [CLS] goes.
    """
    means = []
    for layer, (predicted, present) in enumerate(zip(shares, left, strict=True)):
        label = normalise(saliency * present)
        if layer:
            label = normalise(torch.where(first, label * theta[layer - 1], label))
        if fidelity == Fidelity.CORRECTED:
            label = label.detach()
        target, share = label.clamp(SMALLEST_SHARE, 1), predicted.clamp(SMALLEST_SHARE, 1)
        divergence = (target * (target / share).log()).sum(1)
        means.append((divergence * present.masked_fill(first, 0.0).amax(1).detach()).mean())
    return torch.stack(means)


def normalise(weights: Tensor) -> Tensor:
    """Divide each row by its sum: (B, L) -> (B, L)."""
    return weights / (weights.sum(1, keepdim=True) + 1e-15)


def new_probe(contribution: Contribution) -> Tensor:
    """Return (N - 1,) ones that want a gradient."""
    return torch.ones_like(contribution.theta, requires_grad=True)


def two_objectives(
    model: EfficientBertForSequenceClassification,
    losses: Losses,
    probe: Tensor,
    *,
    gamma: float,
    phi: float,
    backward: Callable[..., None] = Tensor.backward,
    fidelity: Fidelity = Fidelity.CORRECTED,
) -> None:
    """Add both objectives' gradients to `grad` of the parameters that each of them owns.

    `backward` is called as `Tensor.backward` is.

    theta does not act in the forward pass; its gradient is that of the probe, which scales [CLS]'s share, divided by
    theta: as if theta were the probe (AdapLeR's code).
    """
    contribution = model.contributions()
    eta, theta = contribution.eta, contribution.theta
    weights = [
        parameter
        for parameter in model.parameters()
        if parameter.requires_grad and parameter is not eta and parameter is not theta
    ]
    first = losses.classification + gamma * losses.weighted_contribution(fidelity)
    second = losses.classification + phi * losses.length
    backward(first, inputs=weights, retain_graph=True)
    backward(second, inputs=[eta, probe])
    if probe.grad is not None:
        surrogate = probe.grad / (theta.detach() + 1e-7)
        theta.grad = surrogate if theta.grad is None else theta.grad + surrogate


@torch.no_grad()
def keep_in_bounds(contribution: Contribution, fidelity: Fidelity = Fidelity.CORRECTED) -> None:
    """Clamp eta to [0.01, 1] and theta to positive values, which the authors' code forgets, after an optimiser step."""
    contribution.eta.clamp_(0.01, 1.0)
    if fidelity == Fidelity.CORRECTED:
        contribution.theta.clamp_(min=0.001)
