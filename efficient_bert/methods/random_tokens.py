"""Control: AdapLeR's model at AdapLeR's lengths, on random tokens."""

from __future__ import annotations

from efficient_bert.controls import PROFILE, check_profile, profile_policy, read_profile, shuffled
from efficient_bert.knobs import Knob
from efficient_bert.methods import Method
from efficient_bert.training.adapler import ADAPLER

RANDOM_TOKENS = Method(
    name="random_tokens",
    summary="control: as many tokens dropped in each layer as AdapLeR drops, at random",
    source="Modarressi et al., 2022, AdapLeR: the same lengths, without its predictors",
    stage=ADAPLER,
    control_of="adapler",
    policy=lambda model, knobs: profile_policy(
        read_profile(model.config, knobs["profile"]), shuffled(int(knobs["control_seed"]))
    ),
    knobs=(PROFILE, Knob("control_seed", "of the random order", 0, low=0, high=2**31)),
    check=check_profile,
)
