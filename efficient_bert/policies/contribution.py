"""AdapLeR (Modarressi et al., 2022): a predictor before every layer says which tokens still contribute.

Shapes: B examples, L tokens, D hidden size, P `contribution_size`, N layers. Before layer i, on the states h
entering it,

    z = w2 GELU(W1 h + b1) + b2         one number per token
    S = softmax of z over what is left  the token's share; shares of an example add up to 1
    delta = eta_i / n                   n tokens are left: eta = 1 asks for an equal share

A token whose share is below delta goes; the first one, [CLS], always stays. In training nothing goes: a token fades
by `soft_removal`, added to the attention logits, and exp(sum of its fades) of it is left.

The authors' code (`Fidelity.RELEASED`) counts padding in the softmax, divides by a sum + 1e-15 and lets a token that is
nearly gone (1e-6) fade no further; in the losses it keeps gradients through the labels and weighs layers unscaled, and
theta is not kept positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.fidelity import Fidelity

BETA = 0.1
"""How far a kept token fades, times the sharpness: enough slope for a gradient (AdapLeR, section 3.3)."""

HARD = 1e20
"""A sharpness at which soft removal is removal."""


class ContributionPredictor(nn.Module):
    """Two dense layers, D -> P -> 1, with the model's activation between them."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.contribution_size)
        self.score = nn.Linear(config.contribution_size, 1)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Score each token: (..., D) -> (...)."""
        # turned over, because the kernel for contiguous tensors takes longer to start than so few numbers take
        scores: Tensor = self.score(self.activation(self.dense(hidden).mT).mT)
        return scores.squeeze(-1)

    @property
    def macs(self) -> int:
        """Multiply-adds on one token."""
        return self.dense.weight.numel() + self.score.weight.numel()


class Contribution(nn.Module):
    """The adaptive part of the model.

    Attributes:
        predictors: N of them, under `predictors.0.dense`, `predictors.0.score` and so on.
        eta: (N,) thresholds in (0, 1], as fractions of an equal share.
        theta: (N - 1,) weight of [CLS] in the labels of layers 1..N-1; unused at inference.
    """

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        layers = config.num_hidden_layers
        self.predictors = nn.ModuleList(ContributionPredictor(config) for _ in range(layers))
        self.eta = nn.Parameter(torch.full((layers,), 0.25))
        self.theta = nn.Parameter(torch.ones(layers - 1))

    def predictor(self, layer: int) -> ContributionPredictor:
        """Return the predictor before this layer."""
        return cast(ContributionPredictor, self.predictors[layer])


def soft_removal(shares: Tensor, threshold: Tensor, *, sharpness: float) -> Tensor:
    """Return what is added to a token's attention logit: -beta / sharpness to 0 above the threshold, steep below.

    Args:
        shares: any shape, in [0, 1].
        threshold: of a shape that broadcasts.
        sharpness: the slope below the threshold, per threshold.
    """
    rest = BETA / sharpness
    steep = sharpness / (threshold + 1e-30) * (shares - threshold) - rest
    gentle = (shares - 1) * rest / (1 - threshold + 1e-7)
    return torch.minimum(steep, gentle).clamp(-10000, 0)


def first_token(mask: Tensor) -> Tensor:
    """Mark each row's first live token, [CLS]: (B, L) bool -> (B, L) bool."""
    return mask & (mask.cumsum(1) == 1)


def presence(mask: Tensor, fades: Sequence[Tensor], *, dtype: torch.dtype, fidelity: Fidelity) -> Tensor:
    """Compute how much of each token is left after these fades: (B, L) in [0, 1]; 0 on padding."""
    left = mask.to(dtype)
    if fidelity == Fidelity.CORRECTED:
        return sum(fades, start=torch.zeros_like(left)).exp() * left
    for fade in fades:
        left = torch.where(left > 1e-6, left * fade.exp(), left)
    return left


def contribution_shares(logits: Tensor, mask: Tensor, fades: Sequence[Tensor], *, fidelity: Fidelity) -> Tensor:
    """Turn the predictor's (B, L) numbers into shares of what is left after these fades; 0 on padding."""
    if fidelity == Fidelity.CORRECTED:
        return sum(fades, start=logits).masked_fill(~mask, -math.inf).softmax(-1)
    left = logits.softmax(-1) * presence(mask, fades, dtype=logits.dtype, fidelity=fidelity)
    return left / (left.sum(-1, keepdim=True) + 1e-15)


def with_probe(shares: Tensor, first: Tensor, probe: Tensor) -> Tensor:
    """Multiply the share of [CLS] by the probe and normalise all shares again; a probe of 1 changes nothing."""
    scaled = torch.where(first, shares * probe.clamp(min=0.001), shares)
    return scaled / (scaled.sum(-1, keepdim=True) + 1e-15)


def predict_live(predictor: ContributionPredictor, view: View) -> Tensor:
    """Compute the predictor's numbers (B, L), on live tokens only where that saves work; other cells hold any value."""
    if view.fades is not None or view.unpadded:
        logits: Tensor = predictor(view.hidden)
        return logits
    packed: Tensor = predictor(view.hidden[view.mask])
    return packed.new_zeros(view.mask.shape).masked_scatter(view.mask, packed)


def contribution_policy(
    contribution: Contribution,
    *,
    scale: float = 1.0,
    sharpness: float = HARD,
    probe: Tensor | None = None,
    fidelity: Fidelity = Fidelity.CORRECTED,
) -> Policy:
    """Make the policy that drops tokens with too small a share before every layer; in `soft` execution they fade.

    Args:
        contribution: the model's predictors and thresholds. Hard decisions know the thresholds as they are now, soft
            ones as they are when they are taken.
        scale: factor on the thresholds: higher drops more than the model was trained to.
        sharpness: of the soft removal; hard decisions do not depend on it.
        probe: (N - 1,) ones whose gradient stands in for that of theta (`efficient_bert.training.adapler.objectives`).
        fidelity: whose arithmetic, in `soft` execution; hard decisions are the same.
    """
    predictors = [contribution.predictor(layer) for layer in range(len(contribution.predictors))]
    # numbers: for one short text an operation on a tensor of one costs as much as any
    etas = (contribution.eta.detach() * scale).tolist()

    def fade(view: View, logits: Tensor, eta: Tensor) -> Decision:
        fades, first = view.fades or (), first_token(view.mask)
        shares = contribution_shares(logits, view.mask, fades, fidelity=fidelity)
        left = presence(view.mask, fades, dtype=logits.dtype, fidelity=fidelity)
        threshold = eta / left.sum(1, keepdim=True)
        probed = with_probe(shares, first, probe[view.depth - 1]) if probe is not None and view.depth else shares
        removal = soft_removal(probed, threshold, sharpness=sharpness)
        return Decision(fade=removal * left.masked_fill(first, 0.0), scores=shares)

    def decide(view: View) -> Decision:
        predictor, eta = predictors[view.depth], etas[view.depth]
        # shares need more digits than half precision has
        logits = predict_live(predictor, view).to(contribution.eta.dtype)
        if view.unpadded:
            length, shares = logits.shape[1], logits.softmax(-1)
            return Decision(keep=shares >= eta / length, macs=length * predictor.macs, scores=shares)
        lengths = view.mask.sum(1)
        macs = lengths * predictor.macs
        if view.fades is not None:
            return replace(fade(view, logits, contribution.eta[view.depth] * scale), macs=macs)
        shares = contribution_shares(logits, view.mask, (), fidelity=Fidelity.CORRECTED)
        # the same quotient, rounded as often, as of one length above
        thresholds = (torch.tensor(eta, dtype=torch.float64, device=lengths.device) / lengths).to(shares.dtype)
        return Decision(keep=shares >= thresholds[:, None], macs=macs, scores=shares)

    return Policy(decide)
