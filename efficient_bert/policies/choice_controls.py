"""Controls for width gates and exits: every choice as often, but made at random, or one choice for all examples.

Shapes: B examples, G gates, K classes of width, E exit depths. The shares that a control follows are typed, or
read off measured profiles, as its method's `calibrate` does; its policy takes them as values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.engine.fingerprints import uniform_draws
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Value, Values, parse_numbers
from efficient_bert.policies.controls import OWN, refuse_own
from efficient_bert.policies.subnets import Subnet

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

Shares = tuple[float, ...]
"""The share of each choice; they add up to 1, or to less where nothing is a choice too."""

ClassShares = Sequence[Sequence[float]]
"""(G, K): for each gate the share of examples at each class of width."""


def random_widths(shares: ClassShares, widths: Sequence[float], *, layers: int, seed: int) -> Policy:
    """Make the policy that gives each example one random number, which picks its class at every gate by the shares.

    One number for all gates: they are trained to run an example at one width, so its classes belong together.

    Args:
        shares: (G, K).
        widths: (K,) the width that each class is run at.
        layers: of the model.
        seed: of the random numbers.
    """
    span = layers // len(shares)

    def decide(view: View) -> Decision:
        if view.depth % span:
            return Decision()
        classes = pick_by_share(draw(view, seed=seed, turn=1), shares[view.depth // span])
        return Decision(width=torch.tensor(widths, dtype=torch.float64, device=view.hidden.device)[classes])

    return Policy(decide, needs_fingerprints=True)


def random_exits(shares: Sequence[float], depths: Sequence[int], *, seed: int, widths: Policy) -> Policy:
    """Make the policy that gives each example one random number, which picks where it leaves; exits are evaluated.

    Args:
        shares: (E,) of all examples.
        depths: (E,) where they leave, ascending.
        seed: of the random numbers.
        widths: the policy that says how wide the layers run.
    """
    exit_at = {depth: number for number, depth in enumerate(depths)}

    def decide(view: View) -> Decision:
        width = None if widths.decide is None else widths.decide(view).width
        if view.depth not in exit_at:
            return Decision(width=width)
        leaves_at = pick_by_share(draw(view, seed=seed, turn=0), [*shares, 1 - sum(shares)])
        return Decision(width=width, leave=leaves_at == exit_at[view.depth])

    return Policy(decide, exits=tuple(depths), widths=widths.widths, needs_fingerprints=True)


def draw(view: View, *, seed: int, turn: int) -> Tensor:
    """Draw (B,) uniform numbers for the view's examples; another `turn` draws others."""
    if view.fingerprints is None:
        raise ValueError("the view holds no fingerprints to draw by; make the policy with needs_fingerprints=True")
    return uniform_draws(view.fingerprints, seed=seed, turn=turn)


def pick_by_share(points: Tensor, shares: Sequence[float]) -> Tensor:
    """Pick the share into which each point falls when shares lie end to end: (B,) in [0, 1) -> (B,) int64."""
    ends = torch.tensor(list(accumulate(shares))[:-1], dtype=points.dtype, device=points.device)
    return (points[:, None] >= ends).sum(1)  # an export can hold this, and not searchsorted


def constant_widths(shares: ClassShares, widths: Sequence[float], config: EfficientBertConfig) -> Subnet:
    """Return the subnet with one width for each layer: the heads that the shares expect.

    They are rounded; what rounding adds to a layer is taken from the next, so that the model as a whole is within half
    a head in one layer.
    """
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    counts = [kept_heads(width, heads) for width in widths]
    expected = [sum(share * count for share, count in zip(gate, counts, strict=True)) for gate in shares]
    totals = accumulate(expected[layer * len(shares) // layers] for layer in range(layers))
    chosen = [after - before for before, after in pairwise([0, *map(round, totals)])]
    return Subnet(tuple(range(layers)), tuple(max(1, count) / heads for count in chosen))


def class_shares(config: EfficientBertConfig, given: Value | tuple[Shares, ...]) -> ClassShares:
    """Return measured shares of each gate as they are, or the typed ones for one gate before every layer.

    Raises:
        InputError: typed, and not a share for each class.
    """
    if isinstance(given, tuple):
        return given
    return (parse_shares(given, len(config.widths), name="class_rates", complete=True),) * config.num_hidden_layers


def exit_shares(config: EfficientBertConfig, given: Value | Shares) -> Shares:
    """Return measured shares of all examples as they are, or the typed ones.

    Raises:
        InputError: typed, and not a share for each exit depth.
    """
    if isinstance(given, tuple):
        return given
    return parse_shares(given, len(config.exit_depths), name="exit_rates", complete=False)


def parse_shares(given: Value, count: int, *, name: str, complete: bool) -> Shares:
    """Parse shares such as 0.3/0.2; `complete` ones add up to 1, others to at most 1.

    Raises:
        InputError: another number of them, a negative one, another sum, or `own`, which is no share yet.
    """
    refuse_own(given, name=name)
    shares = parse_numbers(str(given), name=name, separator="/")
    fits = min(shares) >= 0 and (abs(sum(shares) - 1) < 1e-6 if complete else sum(shares) <= 1 + 1e-9)
    if not fits or len(shares) != count:
        total = "to 1" if complete else "to at most 1"
        raise InputError(
            f"{name} is {given!r}, but it takes {count} shares of 0 or more that add up {total}, as "
            f"{example_shares(count)}"
        )
    return shares


def example_shares(count: int) -> str:
    """Return `count` shares that add up to 1, for a message to propose: halves of what is left."""
    halves = [2.0 ** -min(number, count - 1) for number in range(1, count + 1)]
    return "/".join(map(repr, halves))


def check_shares(config: EfficientBertConfig, knobs: Values) -> None:
    """Raise InputError where typed shares do not fit a model of this configuration."""
    if knobs.get("class_rates", OWN) != OWN:
        parse_shares(knobs["class_rates"], len(config.widths), name="class_rates", complete=True)
    if knobs.get("exit_rates", OWN) != OWN:
        parse_shares(knobs["exit_rates"], len(config.exit_depths), name="exit_rates", complete=False)
