"""Which tokens the adaptive model runs each layer on."""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.engine.loop import Execution, run
from efficient_bert.explainers import Explainer, Question
from efficient_bert.explainers.attribution import kept_tokens


def explain(question: Question) -> Tensor:
    """Return 1 for a token that the layer runs on and 0 for others, (B, N, L)."""
    with torch.no_grad():
        output = run(question.model, question.batch, question.policy, execution=Execution.MASKED)
    return kept_tokens(output)


KEPT = Explainer(
    name="kept",
    summary="the tokens that the adaptive model runs each layer on, all of one score",
    source="Modarressi et al., 2022, AdapLeR, section 5",
    explain=explain,
    adaptive=True,
    by_layer=True,
)
