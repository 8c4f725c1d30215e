"""Control: AdapLeR's model at AdapLeR's lengths, on the beginning of the text."""

from __future__ import annotations

from efficient_bert.methods import Method
from efficient_bert.policies.controls import PROFILE, calibrate, check_profile, profile_policy, read_profile, text_order

LAST_TOKENS = Method(
    name="last_tokens",
    summary="control: as many tokens dropped in each layer as AdapLeR drops, from the end of the text",
    source="Modarressi et al., 2022, AdapLeR: the same lengths, without its predictors",
    stage="adapler",
    control_of="adapler",
    policy=lambda model, knobs: profile_policy(read_profile(model.config, knobs["profile"]), text_order),
    calibrate=calibrate,
    knobs=(PROFILE,),
    check=check_profile,
)
