"""Estimate how long a plan will take from a few training steps and passes on its data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.backends.runners import EagerRunner, Runner, answer, move
from bench.data.loading import DATA_SEED
from bench.runs.train import fresh_model
from efficient_bert.memory import keep_freed_memory

if TYPE_CHECKING:
    from bench.planning.plan import Arm, Plan

WARM_UP, STEPS = 6, 10
STEP_TOKENS = 32 * 64
"""Word pieces of a measured step at most, so that long texts do not keep the plan waiting."""


def estimate_seconds(plan: Plan, arms: Sequence[Arm]) -> float:
    """Estimate the seconds for missing stages and for measuring these arms; 0.0 where nothing is missing.

    A training example costs what a few fine-tuning steps say, times the stage's own relative cost; evaluation and
    timing cost what a few single passes of the full model say, so that adaptive arms tend to take less.
    """
    from efficient_bert.engine.decisions import Policy

    jobs, timed_again = plan.missing_jobs, plan.arms_timed_again
    if not jobs and not arms and not timed_again:
        return 0.0
    model = move(fresh_model(plan, plan.settings.seed), plan.settings.device)
    keep_freed_memory()
    seconds = 0.0
    if jobs:
        per_example = seconds_per_training_example(plan, model)
        epochs = sum(int(job.options.get("epochs", 1)) * job.stage.step_cost(job.options) for job in jobs)
        seconds += epochs * len(plan.data.train) * per_example
    if arms or timed_again:
        passes = len(arms) * (len(plan.data.evaluation) + len(plan.data.heldout))
        timed_passes = min(plan.timing.examples, len(plan.data.evaluation)) * plan.timing.rounds
        runner = EagerRunner(model.eval(), Policy(), plan.config, plan.settings.device)
        rows = plan.data.evaluation.select(range(min(len(plan.data.evaluation), 8))).to_list()
        seconds += (passes + len([*arms, *timed_again]) * timed_passes) * seconds_per_pass(runner, rows)
    return seconds


def seconds_per_training_example(plan: Plan, model: Any) -> float:
    """Measure the seconds of a few fine-tuning steps per example, after a few that are not counted.

    The first steps are slow: memory is claimed, and kernels are made for every new length.
    """
    import torch

    from efficient_bert.training.batches import LengthBuckets, collate
    from efficient_bert.training.finetune import classification_loss
    from efficient_bert.training.loop import native_precision

    size = min(32, max(1, STEP_TOKENS // plan.max_length))
    rows = plan.data.train.shuffle(seed=DATA_SEED).select(range(min(len(plan.data.train), size * (WARM_UP + STEPS))))
    buckets = list(LengthBuckets(rows["length"][:], batch_size=size, seed=DATA_SEED, epoch=0))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    device = plan.settings.device
    examples, started = 0, time.perf_counter()
    model.train()
    for step, row_numbers in enumerate(buckets):
        if step == min(WARM_UP, len(buckets) - 1):
            examples, started = 0, time.perf_counter()
        inputs = collate(rows.select(row_numbers).to_list(), pad_token_id=plan.config.padding)
        batch = {name: value.to(device) for name, value in inputs.items()}
        with torch.autocast(device, torch.bfloat16, enabled=native_precision(device) == "bf16"):
            loss = classification_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        examples += len(row_numbers)
        loss.item()  # waits for the device
    return (time.perf_counter() - started) / examples


def seconds_per_pass(runner: Runner, rows: Sequence[Mapping[str, Any]]) -> float:
    """Measure the mean seconds of single passes over these rows, after one that is not counted."""
    answer(runner, rows[:1]).logits.cpu()
    started = time.perf_counter()
    for row in rows:
        answer(runner, [row]).logits.cpu()
    return (time.perf_counter() - started) / len(rows)
