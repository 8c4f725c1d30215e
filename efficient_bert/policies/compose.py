"""Make one policy of several: one drops tokens, another lets examples leave, a third chooses widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from efficient_bert.engine.decisions import Decision, Policy, View

T = TypeVar("T")


def compose(policies: Sequence[Policy]) -> Policy:
    """Make the policy that decides before each layer what all of these decide there.

    All see the same tokens and states, those before any of the decisions, and each sees the logits of its own exits.
    The exits of all are evaluated. An example that leaves is charged what the others spent on it before that layer.

    Raises:
        ValueError: two policies name layers or widths; in a pass, two answer the same question at one depth.
    """
    exits = tuple(sorted({depth for policy in policies for depth in policy.exits}))
    deciders = [(policy.decide, policy.exits) for policy in policies if policy.decide is not None]

    def decide(view: View) -> Decision:
        return merge([one(view_of_exits(view, own_exits, exits)) for one, own_exits in deciders])

    return Policy(
        decide if deciders else None,
        exits=exits,
        layers=only([policy.layers for policy in policies], "layers"),
        widths=only([policy.widths for policy in policies], "widths"),
        needs_fingerprints=any(policy.needs_fingerprints for policy in policies),
    )


def view_of_exits(view: View, wanted: Sequence[int], exits: Sequence[int]) -> View:
    """Return the view with the logits of the wanted exits, of all `exits` of the pass, ascending."""
    if tuple(wanted) == tuple(exits):
        return view
    evaluated = [depth for depth in exits if depth <= view.depth]
    return replace(view, logits=view.logits[[number for number, depth in enumerate(evaluated) if depth in wanted]])


def merge(decisions: Sequence[Decision]) -> Decision:
    """Merge decisions of one view: each answer from the one that gives it, multiply-adds added.

    Raises:
        ValueError: two give the same answer.
    """
    return Decision(
        keep=only([decision.keep for decision in decisions], "keep"),
        leave=only([decision.leave for decision in decisions], "leave"),
        width=only([decision.width for decision in decisions], "width"),
        fade=only([decision.fade for decision in decisions], "fade"),
        scores=only([decision.scores for decision in decisions], "scores"),
        macs=total([decision.macs for decision in decisions if decision.macs is not None]),
    )


def total(costs: Sequence[Tensor | int]) -> Tensor | int | None:
    """Add costs, (B,) int64 or one number for each example; None where there is none."""
    return sum(costs[1:], start=costs[0]) if costs else None


def only(values: Sequence[T | None], name: str) -> T | None:
    """Return the value that is not None, or None where all are.

    Raises:
        ValueError: several are not None.
    """
    given = [value for value in values if value is not None]
    if len(given) > 1:
        raise ValueError(f"{len(given)} of the policies say `{name}`, but at most one may; leave one of them out")
    return given[0] if given else None
