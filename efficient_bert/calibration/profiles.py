"""Which share of examples takes each choice of gates and exits: controls choose as often, at random.

Shapes: B examples, E exits, C classes of the answer, G gates, K classes of width, N layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.loop import run
from efficient_bert.engine.recorder import Output
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.choice_controls import Shares
from efficient_bert.policies.exit_rules import exit_rule, leaving_exit, stack_exit_logits
from efficient_bert.policies.gates import gate_policy
from efficient_bert.policies.subnets import subnet_policy, uniform_subnet
from efficient_bert.rows import Rows, chunks

STEPS = 40
"""Measured thresholds above 0; they lie closer the lower they are, where most examples' entropies lie."""


@dataclass(frozen=True)
class Profiles:
    """Which share of examples takes each choice: (G, K), (T, 1 + E) and (T, G, K) for T thresholds.

    The fields are those of `EfficientBertConfig`; a profile is empty where it was not measured.
    """

    gate_profile: tuple[Shares, ...] = ()
    exit_profile: tuple[Shares, ...] = ()
    staying_profile: tuple[tuple[Shares, ...], ...] = ()


def stored_profiles(config: EfficientBertConfig) -> Profiles:
    """Return the profiles that training has stored in a configuration."""
    return Profiles(
        tuple(map(tuple, config.gate_profile)),
        tuple(map(tuple, config.exit_profile)),
        tuple(tuple(map(tuple, shares)) for shares in config.staying_profile),
    )


def store_profiles(model: EfficientBertForSequenceClassification, rows: Rows, *, device: str | torch.device) -> None:
    """Measure the profiles of a trained model at its trained widths, and store them in its configuration.

    Args:
        device: where the passes run; the model is there afterwards.
    """
    torch.nn.Module.to(model, device)
    config, profiles = model.config, measure_profiles(model, rows)
    config.gate_profile = list(map(list, profiles.gate_profile))
    config.exit_profile = list(map(list, profiles.exit_profile))
    config.staying_profile = [list(map(list, shares)) for shares in profiles.staying_profile]


def profiles_of(
    model: EfficientBertForSequenceClassification,
    rows: Rows | None,
    *,
    widths: Sequence[float] | None = None,
    width: float = 1.0,
    threshold: float = 0.0,
) -> Profiles:
    """Measure the profiles on rows as `measure_profiles` does; without rows, return those that training has stored."""
    if rows is None:
        return stored_profiles(model.config)
    return measure_profiles(model, rows, widths=widths, width=width, threshold=threshold)


@torch.inference_mode()
def measure_profiles(
    model: EfficientBertForSequenceClassification,
    rows: Rows,
    *,
    widths: Sequence[float] | None = None,
    width: float = 1.0,
    threshold: float = 0.0,
) -> Profiles:
    """Measure which share of examples takes each choice, all from one pass in which nobody leaves.

    No label is read. A model without gates has an `exit_profile` alone.

    Args:
        widths: (K,) what each class of the gates is run at; the trained widths by default.
        width: of all layers of a model without gates.
        threshold: one more for `exit_profile`, exactly; 0 is always there.
    """
    config = model.config
    widths = config.widths if widths is None else widths
    outputs = list(run_without_leaving(model, rows, widths=widths, width=width))
    exits = measure_exits(model, outputs, threshold)
    count = len(config.exit_depths) + 1
    exit_profile = tuple((bound, *shares_of(leaving, count)[:-1]) for bound, leaving in exits.items())
    if model.gates is None:
        return Profiles(exit_profile=exit_profile)
    counts = [kept_heads(each, config.num_attention_heads) for each in widths]
    classes = torch.cat([layer_classes(output, counts)[:: model.gates.span] for output in outputs], dim=1)
    gate_profile = tuple(shares_of(gate, len(widths)) for gate in classes)
    starts = range(0, config.num_hidden_layers, model.gates.span)
    exits_before = [sum(depth <= start for depth in config.exit_depths) for start in starts]
    staying_profile = measure_staying(classes, exits_before, list(exits.values()), gate_profile)
    return Profiles(gate_profile, exit_profile, staying_profile)


def run_without_leaving(
    model: EfficientBertForSequenceClassification, rows: Rows, *, widths: Sequence[float], width: float
) -> Iterator[Output]:
    """Run all layers on all rows with every exit evaluated, at the widths that gates choose or at one width."""
    config, depths = model.config, tuple(model.config.exit_depths)
    policy = replace(subnet_policy(uniform_subnet(config, width=width)), exits=depths)
    if model.gates is not None:
        policy = gate_policy(model.gates, widths, exits=depths)
    for chunk in chunks(rows):
        yield run(model, Batch.of_rows(chunk, pad_token_id=config.padding, device=model.device), policy)


def measure_exits(
    model: EfficientBertForSequenceClassification, outputs: Sequence[Output], threshold: float
) -> dict[float, Tensor]:
    """Measure for each threshold, ascending, the exit at which each example leaves: (B,) int64, E where it stays.

    Empty for a model without exits.
    """
    if not model.config.exit_depths:
        return {}
    logits = torch.cat([stack_exit_logits(output).cpu() for output in outputs], dim=1)  # on the CPU, as traces are
    bounds = sorted({*candidate_thresholds(model, logits), threshold})
    return {bound: leaving_exit(logits, exit_rule(model.config, bound)) for bound in bounds}


def measure_staying(
    classes: Tensor, exits_before: Sequence[int], leavings: Sequence[Tensor], shares: Sequence[Shares]
) -> tuple[tuple[Shares, ...], ...]:
    """Measure each gate's shares among the examples that reach it, once for each threshold.

    A gate that nobody reaches keeps its shares of the threshold below.

    Args:
        classes: (G, B) int64, the class of width that each gate chooses.
        exits_before: (G,) how many exits an example has passed when it reaches the gate.
        leavings: for each threshold, ascending, (B,) int64, the exit at which each example leaves.
        shares: (G, K) of each gate among all examples.
    """
    profile, before = [], tuple(shares)
    for leaving in leavings:
        reached = [leaving >= exits for exits in exits_before]
        before = tuple(
            shares_of(gate[reaches], len(last)) if reaches.any() else last
            for gate, reaches, last in zip(classes, reached, before, strict=True)
        )
        profile.append(before)
    return tuple(profile)


def layer_classes(output: Output, counts: Sequence[int]) -> Tensor:
    """Return the class at which each layer ran, the first of those that keep so many heads: (N, B) int64.

    Args:
        counts: (K,) the heads that each class keeps.
    """
    heads = output.trace.heads.T
    return (heads[..., None] == heads.new_tensor(counts)).int().argmax(-1)


def candidate_thresholds(model: EfficientBertForSequenceClassification, logits: Tensor) -> list[float]:
    """Return thresholds from 0, where nobody leaves, to the largest value that exits' logits (E, B, C) can give."""
    most = math.log(model.config.classes)
    if model.config.regression:
        most = float(logits.diff(dim=0).abs().max()) if len(logits) > 1 else 0.0
    return [most * (step / STEPS) ** 2 for step in range(STEPS + 1)] if most else [0.0]


def shares_of(choices: Tensor, count: int) -> Shares:
    """Return the share of each of `count` choices among (B,) int64 choices."""
    return tuple((choices.bincount(minlength=count).double() / len(choices)).tolist())
