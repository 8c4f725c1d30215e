"""The upper bound of agreement word by word: what people marked, given as a model's reason."""

from __future__ import annotations

from torch import Tensor

from efficient_bert.explainers import Explainer, Question


def explain(question: Question) -> Tensor:
    """Return 1 for a marked token and 0 for others, (B, 1, L)."""
    return question.marked[:, None].float()


HUMAN = Explainer(
    name="human",
    summary="upper bound of precision and token F1: the tokens that people marked, all of one score",
    source="DeYoung et al., 2020, section 4",
    explain=explain,
    control=True,
)
