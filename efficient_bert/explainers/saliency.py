"""Gradient times input of the predicted class."""

from __future__ import annotations

from efficient_bert.explainers import Explainer
from efficient_bert.explainers.attribution import gradient_times_input

SALIENCY = Explainer(
    name="saliency",
    summary="gradient times input: the norm over the embedding of each token",
    source="Modarressi et al., 2022, AdapLeR, section 3.2",
    explain=lambda question: gradient_times_input(question.model, question.batch, question.classes)[:, None],
    gradients=True,
)
