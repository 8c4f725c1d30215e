"""How much of each token attention carries to [CLS], layer upon layer."""

from __future__ import annotations

from efficient_bert.explainers import Explainer
from efficient_bert.explainers.attribution import attention_rollout

ROLLOUT = Explainer(
    name="rollout",
    summary="attention rollout to [CLS] through the layers up to each",
    source="Abnar and Zuidema, 2020, section 3",
    explain=lambda question: attention_rollout(question.model, question.batch),
    by_layer=True,
    shares=True,
)
