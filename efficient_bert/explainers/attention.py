"""What [CLS] looks at in each layer of the fine-tuned model."""

from __future__ import annotations

from efficient_bert.explainers import Explainer
from efficient_bert.explainers.attribution import attention

ATTENTION = Explainer(
    name="attention",
    summary="attention of [CLS] in each layer, the mean over heads",
    source="raw attention as in Abnar and Zuidema, 2020, section 3",
    explain=lambda question: attention(question.model, question.batch),
    by_layer=True,
    shares=True,
)
