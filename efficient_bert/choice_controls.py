"""Controls for width gates and exits: the same choices as often, but made by chance, or one choice for everybody.

Shapes: B examples, G gates, K classes of width, E exit depths. The shares that a control follows are typed, or lie in
the model's configuration: measured by a stage at the trained widths, and anew for the point that a control belongs to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.controls import OWN
from efficient_bert.decisions import Decision, Policy, View
from efficient_bert.draws import uniform_draws
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Value, numbers
from efficient_bert.subnets import Subnet

CLASS_RATES = Knob(
    "class_rates",
    "share of examples at each class of width, as 0.6/0.2/0.1/0.1, in every layer; own = each gate's on the same rows, "
    "among those who are still there",
    OWN,
)
EXIT_RATES = Knob(
    "exit_rates",
    "share of all examples that leaves at each exit depth, as 0.3/0.2; own = as many as of the same rows at the "
    "threshold",
    OWN,
)

Rates = Sequence[Sequence[float]]
"""(G, K): for each gate the share of each class."""


def random_widths(rates: Rates, widths: Sequence[float], *, layers: int, seed: int) -> Policy:
    """Each example draws once, and at every gate's place has the class that its draw falls on by the gate's shares.

    One draw for all places: gates are trained to run an example at one width, so its classes go together.

    Args:
        rates: (G, K).
        widths: what each class is run at.
        layers: of the model.
        seed: of the draws.
    """
    span = layers // len(rates)

    def decide(view: View) -> Decision:
        if view.depth % span:
            return Decision()
        classes = share_of(draws(view, seed=seed, turn=1), rates[view.depth // span])
        return Decision(width=torch.tensor(widths, dtype=torch.float64, device=view.hidden.device)[classes])

    return Policy(decide, draws=True)


def random_exits(rates: Sequence[float], depths: Sequence[int], *, seed: int, widths: Policy) -> Policy:
    """Each example draws once whether and where it leaves; the exits are evaluated as if they were asked.

    Args:
        rates: (E,) shares of all examples.
        depths: (E,) where they leave, ascending.
        seed: of the draws.
        widths: the policy that says how wide the layers run.
    """
    order = {depth: place for place, depth in enumerate(depths)}

    def decide(view: View) -> Decision:
        width = None if widths.decide is None else widths.decide(view).width
        if view.depth not in order:
            return Decision(width=width)
        leaves_at = share_of(draws(view, seed=seed, turn=0), [*rates, 1 - sum(rates)])
        return Decision(width=width, leave=leaves_at == order[view.depth])

    return Policy(decide, exits=tuple(depths), widths=widths.widths, draws=True)


def draws(view: View, *, seed: int, turn: int) -> Tensor:
    """(B,) uniform draws of the view's examples."""
    if view.numbers is None:
        raise ValueError("the view holds no numbers to draw by; the policy must be made with draws=True")
    return uniform_draws(view.numbers, seed=seed, turn=turn)


def share_of(points: Tensor, shares: Sequence[float]) -> Tensor:
    """Points (B,) in [0, 1) -> (B,) int64: which of the shares, laid end to end, each falls into."""
    ends = torch.tensor(list(accumulate(shares))[:-1], dtype=points.dtype, device=points.device)
    return torch.searchsorted(ends, points, right=True)


def constant_widths(rates: Rates, widths: Sequence[float], config: EfficientBertConfig) -> Subnet:
    """One width for each layer: the heads that the shares expect.

    They are rounded; what rounding adds to a layer is taken from the next, so that the whole model is within half a
    head in one layer.
    """
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    counts = [kept_heads(width, heads) for width in widths]
    expected = [sum(share * count for share, count in zip(shares, counts, strict=True)) for shares in rates]
    totals = accumulate(expected[layer * len(rates) // layers] for layer in range(layers))
    chosen = [after - before for before, after in pairwise([0, *map(round, totals)])]
    return Subnet(tuple(range(layers)), tuple(max(1, count) / heads for count in chosen))


def class_rates(config: EfficientBertConfig, given: Value) -> Rates:
    """The shares that were typed, for one gate before every layer, or each gate's own.

    Raises:
        InputError: not a share for each class, or none was given and none was measured.
    """
    if given != OWN:
        return [shares(given, len(config.widths), name="class_rates", whole=True)] * config.num_hidden_layers
    if len(config.gate_profile) != config.num_gates or not config.gate_profile:
        raise InputError(
            f"the model has no gate profile of its own; give --class-rates with {len(config.widths)} shares, or train "
            "stage 'gates' again"
        )
    return config.gate_profile


def staying_rates(config: EfficientBertConfig, given: Value, threshold: float) -> Rates:
    """As `class_rates`, but each gate's shares of those who are still there at an exit threshold.

    Raises:
        InputError: as `class_rates`.
    """
    rates = class_rates(config, given)
    if given != OWN:
        return rates
    if len(config.staying_profile) != len(config.exit_profile) or not config.exit_profile:
        raise InputError(
            f"the model has no profile of those who stay; give --class-rates with {len(config.widths)} shares, or "
            "train stage 'gates' again"
        )
    found: Rates = measured(config, config.staying_profile, threshold).tolist()
    return found


def measured(config: EfficientBertConfig, profile: Sequence[Any], threshold: float) -> Tensor:
    """What was measured at each threshold of `exit_profile`, (T, ...), at another: by proportion between two, (...)."""
    bounds, rows = [row[0] for row in config.exit_profile], torch.tensor(profile, dtype=torch.float64)
    at = min(bisect_right(bounds, threshold), len(bounds) - 1)
    if not at:
        return rows[0]
    part = (threshold - bounds[at - 1]) / (bounds[at] - bounds[at - 1])
    return torch.lerp(rows[at - 1], rows[at], min(1.0, part))


def exit_rates(config: EfficientBertConfig, given: Value, threshold: float) -> list[float]:
    """The shares that were typed, or the model's own at a threshold, between two measured ones by proportion.

    Raises:
        InputError: not a share for each exit depth, or none was given and none was measured.
    """
    exits = len(config.exit_depths)
    if given != OWN:
        return shares(given, exits, name="exit_rates", whole=False)
    if not config.exit_profile or len(config.exit_profile[0]) != exits + 1:
        raise InputError(
            f"the model has no exit profile of its own; give --exit-rates with {exits} shares, or train stage 'final' "
            "again"
        )
    found: list[float] = measured(config, config.exit_profile, threshold)[1:].tolist()
    return found


def shares(given: Value, count: int, *, name: str, whole: bool) -> list[float]:
    """The shares of a list such as 0.3/0.2; `whole` ones add up to 1, others to no more.

    Raises:
        InputError: another number of them, a negative one, or another sum.
    """
    found = list(numbers(str(given), name=name, separator="/"))
    fits = min(found) >= 0 and (abs(sum(found) - 1) < 1e-6 if whole else sum(found) <= 1 + 1e-9)
    if not fits or len(found) != count:
        total = "to 1" if whole else "to at most 1"
        raise InputError(
            f"{name} is {given!r}, but it takes {count} shares of 0 or more that add up {total}, as "
            f"{example_shares(count)}"
        )
    return found


def example_shares(count: int) -> str:
    """So many shares that add up to 1, for a message to propose: halves of what is left."""
    halves = [2.0 ** -min(place, count - 1) for place in range(1, count + 1)]
    return "/".join(map(repr, halves))


def check_rates(config: EfficientBertConfig, knobs: Mapping[str, Value]) -> None:
    """Raise InputError where typed shares do not fit a model of this configuration."""
    if knobs.get("class_rates", OWN) != OWN:
        shares(knobs["class_rates"], len(config.widths), name="class_rates", whole=True)
    if knobs.get("exit_rates", OWN) != OWN:
        shares(knobs["exit_rates"], len(config.exit_depths), name="exit_rates", whole=False)
