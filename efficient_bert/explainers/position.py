"""Control: scores that know nothing but where a token stands."""

from __future__ import annotations

from torch import Tensor

from efficient_bert.explainers import Explainer, Question


def explain(question: Question) -> Tensor:
    """(B, 1, L): 1 for the first token, falling evenly towards the last."""
    mask = question.batch.mask
    place = mask.cumsum(1) - 1
    return ((1 - place / mask.sum(1, keepdim=True)) * mask)[:, None]


POSITION = Explainer(
    name="position",
    summary="control: the earlier a token stands, the higher",
    source="DeYoung et al., 2020, section 5",
    explain=explain,
    control=True,
)
