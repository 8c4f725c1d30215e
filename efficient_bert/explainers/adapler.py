"""What AdapLeR's predictors say of each token before each layer."""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.engine.loop import Execution, run
from efficient_bert.explainers import Explainer, Question
from efficient_bert.explainers.attribution import decision_scores


def explain(question: Question) -> Tensor:
    """Return the predictors' shares of what is left, (B, N, L); 0 for dropped tokens."""
    with torch.no_grad():
        output = run(question.model, question.batch, question.policy, execution=Execution.MASKED, record=True)
    return decision_scores(output) * question.batch.mask[:, None]


ADAPLER = Explainer(
    name="adapler",
    summary="AdapLeR's contribution predictors before each layer, on the tokens that are left",
    source="Modarressi et al., 2022, AdapLeR, sections 3.1 and 5",
    explain=explain,
    adaptive=True,
    by_layer=True,
    shares=True,
)
