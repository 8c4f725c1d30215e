"""Integrated gradients of the predicted class, as far as they speak for it."""

from __future__ import annotations

from efficient_bert.explainers import Explainer
from efficient_bert.explainers.attribution import integrated_gradients

INTEGRATED_GRADIENTS = Explainer(
    name="integrated_gradients",
    summary="integrated gradients from [PAD]; what speaks against the answer has score 0",
    source="Sundararajan et al., 2017, section 3",
    explain=lambda question: integrated_gradients(question.model, question.batch, question.classes).clamp(min=0)[
        :, None
    ],
    gradients=True,
)
