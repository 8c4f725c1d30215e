"""Controls for methods that drop tokens: as many are dropped in each layer, whatever the tokens say.

A control answers what choosing is worth, tokens and how many of each text: it runs the same model, at the lengths of a
profile, on tokens that were not chosen by anything they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.engine.fingerprints import scramble
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Value, Values, parse_numbers
from efficient_bert.policies.contribution import first_token

if TYPE_CHECKING:
    from efficient_bert.model import EfficientBertForSequenceClassification
    from efficient_bert.rows import Rows

OWN = "own"

PROFILE = Knob(
    "profile",
    "fraction of a text's tokens that each layer runs on, first layer first, as 0.9/0.5/..; own = the model's",
    OWN,
)

CONTROL_SEED = Knob("control_seed", "of the random choices", 0, low=0, high=2**31)

Order = Callable[[View], Tensor]
"""View -> (B, L) numbers; tokens with the lowest ones go first."""


def text_order(view: View) -> Tensor:
    """Return an order in which the end of the text goes first."""
    return -view.positions


def random_order(seed: int) -> Order:
    """Return a random order of positions, one for each seed and length of text: the same in every layer and batch."""

    def order(view: View) -> Tensor:
        return scramble(view.positions * 0x9E3779B1 + view.length[:, None] * 0x85EBCA77 + seed * 0xC2B2AE3D)

    return order


def profile_policy(profile: Sequence[float], order: Order) -> Policy:
    """Make the policy that keeps a rounded fraction of the text's tokens in each layer: [CLS], and at least one."""

    def decide(view: View) -> Decision:
        counts = (view.length * profile[view.depth]).round().clamp(min=1)
        rank = order(view).masked_fill(~view.mask, torch.iinfo(torch.int64).min)
        rank = rank.masked_fill(first_token(view.mask), torch.iinfo(torch.int64).max)
        return Decision(keep=rank.argsort(1, descending=True).argsort(1) < counts[:, None])

    return Policy(decide)


def calibrate(model: EfficientBertForSequenceClassification, rows: Rows | None, knobs: Values) -> Mapping[str, Any]:
    """Replace `own` by the profile that the stage has stored; AdapLeR's lengths are measured as it is trained.

    Raises:
        InputError: the model has none.
    """
    if knobs["profile"] != OWN:
        return knobs
    config = model.config
    if not config.length_profile:
        raise InputError(
            f"the model has no length profile of its own; give --profile with {config.num_hidden_layers} fractions"
        )
    return {**knobs, "profile": tuple(config.length_profile)}


def refuse_own(given: Value, *, name: str) -> None:
    """Raise InputError where a policy is asked for `own` values, which only `Method.calibrate` can know."""
    if given == OWN:
        raise InputError(f"{name} is {OWN!r}, but a policy takes numbers; give it the knobs that calibrate returns")


def read_profile(config: EfficientBertConfig, given: Value | tuple[float, ...]) -> tuple[float, ...]:
    """Return a measured profile as it is, or the typed one.

    Raises:
        InputError: typed, and not one falling fraction for each layer.
    """
    if isinstance(given, tuple):
        return given
    refuse_own(given, name="profile")
    fractions = parse_numbers(str(given), name="profile", separator="/")
    falling = all(after <= before for before, after in zip([1.0, *fractions], fractions, strict=False))
    if len(fractions) != config.num_hidden_layers or not falling or not fractions[-1] > 0:
        raise InputError(
            f"profile is {given!r}, but it takes {config.num_hidden_layers} fractions in (0, 1], none larger than the "
            f"one before, as {falling_fractions(config.num_hidden_layers)}"
        )
    return fractions


def falling_fractions(layers: int) -> str:
    """Return a profile of `layers` layers for a message to propose: from all tokens down to one of `layers`."""
    return "/".join(f"{(layers - layer) / layers:.3g}" for layer in range(layers))


def check_profile(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where a typed profile does not fit a model of this configuration."""
    if knobs["profile"] != OWN:
        read_profile(config, knobs["profile"])
