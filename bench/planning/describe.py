"""A plan in words, as `bench run` prints it before it does anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.data.layouts import quote
from bench.machine.environment import crowding_line

if TYPE_CHECKING:
    from bench.data.overlap import Overlap
    from bench.data.word_pieces import Counts
    from bench.planning.plan import Arm, Plan

PARTS = {"train": "the training rows", "heldout": "the held-out rows", "evaluation": "the reported rows"}


def describe(plan: Plan, arms: Sequence[Arm] | None, seconds: float) -> Iterator[str]:
    """Yield one line per fact of a plan: task, data, backbone, device, stages, runs and time.

    Args:
        arms: what is measured; None where stages are trained and no run is stored.
        seconds: for all of that.
    """
    data, environment, settings = plan.data, plan.environment, plan.settings
    synthetic = ", synthetic data made by this project" if plan.task.synthetic else ""
    first = f", fine-tuned with seed {settings.first_seed}" if settings.first_seed != settings.seed else ""
    yield f"plan      task {plan.task.name}{synthetic}, preset {plan.preset.name}, seed {settings.seed}{first}"
    dropped = f", {data.dropped:,} dropped as their copies or phrases" if data.dropped else ""
    cut = f" (longer texts, which are cut: {data.cut:,})" if data.cut else ""
    yield (
        f"data      {len(data.train):,} training rows, {len(data.heldout):,} held out for selection{dropped}; "
        f"{len(data.evaluation):,} {plan.task.evaluation} rows, at most {plan.max_length} word pieces{cut}"
    )
    yield overlap_line(data.overlap, data.counts["evaluation"].texts)
    yield from remarks(data.counts)
    unused = f"the fields {', '.join(map(quote, plan.unknown_fields))} of its config.json" * bool(plan.unknown_fields)
    behind = "; ".join(filter(None, (unused, plan.other_head)))
    left = f", without {behind}" if behind else ""
    yield f"backbone  {plan.backbone.name}, {plan.config.num_hidden_layers} layers, {plan.backbone.identity}{left}"
    crowd = crowding_line(environment)
    threads = f"{environment['torch_threads']} threads{f', {crowd}' if crowd else ''}"
    yield f"device    {environment['device']}: {environment['device_name']}, {threads}"
    missing_jobs, missing_arms, timed_again = plan.missing_jobs, plan.missing_arms, plan.arms_timed_again
    for job in plan.jobs:
        options = ", ".join(f"{name} {value}" for name, value in job.options.items())
        yield f"stage     {job.stage.name}: {'to do' if job in missing_jobs else 'cached'} ({options})"
    runs, stages = (len(set(ids).difference(plan.names)) for ids in plan.outdated)
    if runs or stages:
        yield f"fresh     forgets {runs} stored runs and {stages} stages of other commands, which came of these stages"
    for arm in arms or ():
        state = "to do" if arm in missing_arms else "cached, timed again" if arm in timed_again else "cached"
        yield f"run       {arm.label}: {state}"
    yield from (f"left out  {each.method.name}: {each.omission}" for each in plan.points if each.omission)
    some, nothing = (" of training", "train") if arms is None else ("", "do")
    measured = f"about {duration(seconds)}{some}, measured from a few steps"
    yield f"time      {measured if seconds else f'nothing to {nothing}'}"


def overlap_line(overlap: Overlap, texts: int) -> str:
    """Say how many of the reported texts a model is trained on."""
    alike = f", {overlap.normalised:,} but for case, spaces and punctuation" if overlap.normalised else ""
    label = f"; {overlap.other_label:,} of them with another label" if overlap.other_label else ""
    return f"overlap   {overlap.exact:,} of {texts:,} reported texts are among the training rows{alike}{label}"


def remarks(counts_of: Mapping[str, Counts]) -> Iterator[str]:
    """Yield what the backbone does not know of the texts, and what it reads as text."""
    for name, counts in counts_of.items():
        part = PARTS[name]
        if counts.notable:
            yield (
                f"words     {counts.unknown / counts.pieces:.0%} of the word pieces of {part} are unknown to the "
                f"backbone's vocabulary, and {counts.lost:,} of {counts.rows:,} hold no other: is it of their language?"
            )
        if counts.typed:
            yield f"words     names of special tokens ([SEP] or so) in {counts.typed:,} of {part} are read as text"


def duration(seconds: float) -> str:
    """Format seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
