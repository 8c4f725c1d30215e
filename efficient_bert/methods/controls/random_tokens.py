"""Control: AdapLeR's model at AdapLeR's lengths, on random tokens."""

from __future__ import annotations

from efficient_bert.methods import Method
from efficient_bert.policies.controls import (
    CONTROL_SEED,
    PROFILE,
    calibrate,
    check_profile,
    profile_policy,
    random_order,
    read_profile,
)

RANDOM_TOKENS = Method(
    name="random_tokens",
    summary="control: as many tokens dropped in each layer as AdapLeR drops, at random",
    source="Modarressi et al., 2022, AdapLeR: the same lengths, without its predictors",
    stage="adapler",
    control_of="adapler",
    policy=lambda model, knobs: profile_policy(
        read_profile(model.config, knobs["profile"]), random_order(knobs["control_seed"])
    ),
    calibrate=calibrate,
    knobs=(PROFILE, CONTROL_SEED),
    check=check_profile,
)
