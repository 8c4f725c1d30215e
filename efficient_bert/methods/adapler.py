"""Drop tokens that contribute too little, layer by layer: AdapLeR."""

from __future__ import annotations

from efficient_bert.contribution import contribution_policy
from efficient_bert.methods import Method
from efficient_bert.released_flops import released_flops
from efficient_bert.training.adapler import ADAPLER as STAGE

ADAPLER = Method(
    name="adapler",
    summary="adaptive length reduction: contribution predictors drop tokens before every layer",
    source="Modarressi et al., 2022, AdapLeR, section 3",
    stage=STAGE,
    policy=lambda model, knobs: contribution_policy(model.contributions()),
    released_flops=released_flops,
)
