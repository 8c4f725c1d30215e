"""The full model: every token, every head, every layer. What everything else is compared with."""

from __future__ import annotations

from efficient_bert.engine.decisions import Policy
from efficient_bert.methods import Method

FULL = Method(
    name="full",
    summary="the fine-tuned model at full length, width and depth: the reference",
    source="Devlin et al., 2019, BERT, section 4",
    stage="finetune",
    policy=lambda model, knobs: Policy(),
    dense=True,
)
