"""A subnet of the jointly trained model: the same layers at the same widths for every example."""

from __future__ import annotations

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Policy
from efficient_bert.knobs import Knob, Values
from efficient_bert.methods import Method
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.subnets import Subnet, layer_widths, subnet_policy


def subnet_of(config: EfficientBertConfig, knobs: Values) -> Subnet:
    """Return the subnet of these knobs.

    Raises:
        InputError: a width or depth that leaves nothing, or not one width for each layer.
    """
    return layer_widths(knobs["width_mult"], config, depth_mult=knobs["depth_mult"])


def policy(model: EfficientBertForSequenceClassification, knobs: Values) -> Policy:
    """Make the policy under which every example runs the subnet."""
    return subnet_policy(subnet_of(model.config, knobs))


def check(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where the knobs name no subnet."""
    subnet_of(config, knobs)


STATIC_SUBNET = Method(
    name="static_subnet",
    summary="one subnet of the jointly trained model for every example: any width per layer, any depth",
    source="Hou et al., 2020, DynaBERT, section 2; Hu et al., 2023, Flexible BERT",
    stage="final",
    policy=policy,
    check=check,
    suite=False,
    knobs=(
        Knob(
            "width_mult",
            "fraction of heads and neurons, one number or one for each layer that runs, separated by commas",
            "0.5",
            points=("0.25", "0.5", "0.75", "1"),
            separator=";",
            listed=True,
        ),
        Knob(
            "depth_mult",
            "fraction of the layers that run, the first ones unless --depth-rule says otherwise",
            1.0,
            low=0.0,
            positive=True,
            high=1.0,
            points=(0.5, 0.75, 1.0),
        ),
    ),
)
