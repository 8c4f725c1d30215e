"""A truncated model, fine-tuned: the static answer to early exits. Every example runs the same few layers."""

from __future__ import annotations

from efficient_bert.engine.decisions import Policy
from efficient_bert.methods import Method

STATIC_DEPTH = Method(
    name="static_depth",
    summary="the first layers of the backbone, fine-tuned: one depth for every example",
    source="Sajjad et al., 2023, On the effect of dropping layers of pre-trained transformer models, section 2.1",
    stage="truncate",
    policy=lambda model, knobs: Policy(),
    dense=True,
)
