"""Drop tokens that contribute too little, layer by layer: AdapLeR."""

from __future__ import annotations

from efficient_bert.cost.adapler_published import published_flops
from efficient_bert.knobs import Knob
from efficient_bert.methods import Method
from efficient_bert.policies.contribution import contribution_policy

ADAPLER = Method(
    name="adapler",
    summary="adaptive length reduction: contribution predictors drop tokens before every layer",
    source="Modarressi et al., 2022, AdapLeR, section 3",
    stage="adapler",
    policy=lambda model, knobs: contribution_policy(model.contributions(), scale=knobs["eta_scale"]),
    knobs=(
        Knob("eta_scale", "factor on the trained thresholds: higher drops more, untrained", 1.0, low=0.0, high=100.0),
    ),
    published_flops=published_flops,
)
