"""Control: scores that know nothing but where a token stands."""

from __future__ import annotations

from torch import Tensor

from efficient_bert.explainers import Explainer, Question


def explain(question: Question) -> Tensor:
    """Return scores that fall evenly from 1 at the beginning of the document towards 0 at its end, (B, 1, L)."""
    return ((1 - question.before) * question.batch.mask)[:, None]


POSITION = Explainer(
    name="position",
    summary="control: the earlier a token stands, the higher",
    source="DeYoung et al., 2020, section 5",
    explain=explain,
    control=True,
)
