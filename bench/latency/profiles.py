"""Profiles of an adaptive model: what each layer runs on, apart from any trained weights and any texts.

With a profile the same shares of tokens, widths and exits are timed on another machine or in another size of model,
under weights of any kind. AdapLeR's predictors run, so that deciding is paid for, but what is kept is the beginning of
the text; which examples leave is drawn at random, and widths are given, so that no gate is paid for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.store.json_files import read_object

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.packs import RunReader
    from efficient_bert import EfficientBertForSequenceClassification
    from efficient_bert.engine.decisions import Decision, Policy, View

KEYS = ("layers", "tokens", "widths", "exits")
RULE = (
    'a profile is a JSON object with "layers", and any of "tokens" (falling shares of a text, one for each layer), '
    '"widths" (in (0, 1], one for each layer) and "exits" (depth -> share of examples that leaves there)'
)


@dataclass(frozen=True)
class Profile:
    """What each layer of a model runs on.

    Attributes:
        layers: of the model.
        tokens: share of the text's word pieces that each layer runs on; none where all run.
        widths: share of the heads and neurons of each layer; none where all run.
        exits: depth -> share of all examples that leaves after so many layers.
    """

    layers: int
    tokens: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()
    exits: Mapping[int, float] = field(default_factory=dict)

    def stretched(self, layers: int) -> Profile:
        """Return the profile for a model of another depth: each of its layers does as the one at its relative depth."""
        at = [int((layer + 0.5) * self.layers / layers) for layer in range(layers)]
        exits: dict[int, float] = {}
        for depth, share in self.exits.items():
            moved = min(layers - 1, max(1, round(depth * layers / self.layers)))
            exits[moved] = exits.get(moved, 0.0) + share
        tokens, widths = (tuple(each[layer] for layer in at) if each else () for each in (self.tokens, self.widths))
        return Profile(layers, tokens, widths, exits)

    def policy(self, model: EfficientBertForSequenceClassification) -> Policy:
        """Make the policy that runs the model as the profile says; the model has as many layers."""
        from efficient_bert.engine.decisions import Policy
        from efficient_bert.policies.choice_controls import random_exits
        from efficient_bert.policies.compose import compose

        policies = [Policy(widths=self.widths or None)]
        if self.exits:
            depths, shares = zip(*sorted(self.exits.items()), strict=True)
            policies = [random_exits(shares, depths, seed=0, widths=policies[0])]
        if self.tokens:
            policies.append(_keep_shares(model, self.tokens))
        return compose(policies)


def _keep_shares(model: EfficientBertForSequenceClassification, shares: tuple[float, ...]) -> Policy:
    """Make the policy that decides as AdapLeR does, at its cost, but keeps the beginning of the text: exact shares."""
    from efficient_bert.engine.decisions import Policy
    from efficient_bert.policies.contribution import contribution_policy

    decide_as_adapler: Any = contribution_policy(model.contributions(), scale=0.0).decide

    def decide(view: View) -> Decision:
        counts = (view.length * shares[view.depth]).round().clamp(min=1)
        all_kept = decide_as_adapler(view)  # every token passes a threshold of 0
        decision: Decision = replace(all_kept, keep=all_kept.keep & (view.positions < counts[:, None]))
        return decision

    return Policy(decide)


def read_profile(path: Path) -> Profile:
    """Read a profile from a JSON file.

    Raises:
        InputError: the file is missing or damaged, has another key, or a value that no layer can run on.
    """
    values = read_object(path, remedy=RULE)
    try:
        return _profile_of(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no profile: {error}; {RULE}") from error


def _profile_of(values: Mapping[str, Any]) -> Profile:
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ValueError(f"it has the key {unknown[0]!r}")
    layers = values.get("layers")
    if type(layers) is not int or layers < 1:
        raise ValueError(f"layers is {layers!r}")
    tokens, widths = (tuple(map(float, values.get(name, ()))) for name in ("tokens", "widths"))
    exits = {int(depth): float(share) for depth, share in dict(values.get("exits", {})).items()}
    for name, shares in (("tokens", tokens), ("widths", widths)):
        if shares and (len(shares) != layers or not all(0 < share <= 1 for share in shares)):
            raise ValueError(f"{name} is {list(shares)}, not {layers} shares in (0, 1]")
    if any(after > before for before, after in itertools.pairwise(tokens)):
        raise ValueError(f"tokens is {list(tokens)}, which rises")
    if not all(0 < depth < layers for depth in exits) or not all(share >= 0 for share in exits.values()):
        raise ValueError(f"exits is {exits}, not shares at depths from 1 to {layers - 1}")
    if sum(exits.values()) > 1 + 1e-9:
        raise ValueError(f"exits is {exits}, more than all examples")
    return Profile(layers, tokens, widths, exits)


def profile_of_run(runs: RunReader, run_id: str) -> Profile:
    """Measure the profile of a stored run, beside whose model the full model tells how many heads are all.

    Raises:
        InputError: there is no such run, or none of the full model with its backbone.
    """
    record = runs.record(run_id)
    others = map(runs.record, runs.ids())
    full = next((each for each in others if (each.method, each.backbone) == ("full", record.backbone)), None)
    if full is None:
        raise InputError(
            f"{runs.root} holds no run of the full model with backbone {record.backbone}, against which the widths of "
            f"run {run_id} are measured; give the --store in which it was run"
        )
    heads = max(map(max, runs.examples(full.run_id)["heads"].to_pylist()))
    return profile_of(runs.examples(run_id).to_pandas(), layers=record.layers, heads=heads)


def profile_of(examples: pd.DataFrame, *, layers: int, heads: int) -> Profile:
    """Measure the profile of a run from its table of examples: means over the examples that are still there.

    What a profile says of its first layers belongs to the layers that run, whichever they were.

    Args:
        layers, heads: of the full model, heads in its widest layer.
    """
    import numpy as np

    tokens, kept = np.array(examples["tokens"].tolist()), np.array(examples["heads"].tolist())
    order = (tokens == 0).argsort(axis=1, kind="stable")
    tokens, kept = (np.take_along_axis(each, order, axis=1) for each in (tokens, kept))
    running = tokens > 0
    shares = tokens / examples["length"].to_numpy()[:, None]
    depths = examples["exit_depth"].to_numpy()
    return Profile(
        layers,
        _falling(_means(shares, running)),
        _means(kept / heads, running),
        {int(depth): float((depths == depth).mean()) for depth in np.unique(depths) if depth < layers},
    )


def _means(values: Any, running: Any) -> tuple[float, ...]:
    """Return each layer's mean over the rows in which it runs, or of the layer before if none does; () if all are 1."""
    means: list[float] = []
    for column, rows in zip(values.T, running.T, strict=True):
        means.append(float(column[rows].mean()) if rows.any() else means[-1])
    return () if all(mean == 1 for mean in means) else tuple(means)


def _falling(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return shares of which none is larger than one before: examples that leave early may have been short."""
    return tuple(min(shares[: number + 1]) for number in range(len(shares)))
