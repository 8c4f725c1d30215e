"""Carry out a plan: train what is missing, evaluate, time, store. Finished work is kept, never done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from bench.backends.runners import Runner, answer, load_models, make_measured_runner
from bench.latency.session import time_arms
from bench.planning.plan import Arm, Plan
from bench.progress import Watcher
from bench.registry import METRICS
from bench.runs.evaluation import evaluate
from bench.runs.train import train_missing
from bench.store.artifacts import Job
from bench.store.exclusive import fresh_locks, lock_folders, same_stages
from bench.store.locks import is_main_process
from bench.store.records import Record


@dataclass(frozen=True)
class Evaluation:
    """An arm's table of examples, and its metrics and FLOPs speed-up on the held-out training rows."""

    table: pa.Table
    heldout: Mapping[str, float]


def carry_out(plan: Plan, watcher: Watcher) -> list[str]:
    """Run every arm that is not stored yet; return the ids of all arms' runs, the full model first."""
    if plan.missing_arms or plan.arms_timed_again:
        with fresh_locks(plan):
            if plan.missing_arms:
                train_missing(plan, watcher)
            if is_main_process():
                measure_missing(plan, watcher)
    return [arm.run_id for arm in plan.arms]


def measure_missing(plan: Plan, watcher: Watcher) -> None:
    """Evaluate, time and store the arms that no command has stored by now, and time others again."""
    stored = plan.arms_timed_again
    with lock_folders(plan.runs, [arm.run_id for arm in (*plan.missing_arms, *stored)]):
        missing = [arm for arm in plan.missing_arms if arm.run_id not in plan.runs]
        if not missing and not stored:
            return
        wanted = [plan.arms[0], *missing, *stored]
        with same_stages(plan, [job for arm in wanted for job in arm.job.chain]):
            models = load_models(plan, wanted)
            runners = {arm.run_id: make_measured_runner(plan, arm, models, watcher) for arm in wanted}
            evaluations = {arm.run_id: evaluate_arm(plan, arm, runners[arm.run_id], watcher) for arm in missing}
            tables = {run_id: evaluation.table for run_id, evaluation in evaluations.items()}
            tables |= {arm.run_id: plan.runs.examples(arm.run_id) for arm in stored}
            timing, tables = time_arms(plan, runners, tables, watcher)
        for arm in missing:
            evaluation = Evaluation(tables[arm.run_id], evaluations[arm.run_id].heldout)
            record = record_of(plan, arm, runner=runners[arm.run_id], evaluation=evaluation, timing=timing[arm.run_id])
            plan.runs.put(record, evaluation.table)
        for arm in stored:
            plan.runs.put(record_with_timing(plan, arm, timing[arm.run_id]), tables[arm.run_id])


def evaluate_arm(plan: Plan, arm: Arm, runner: Runner, watcher: Watcher) -> Evaluation:
    """Evaluate an arm on the held-out rows and on the reported split.

    Finished chunks of a killed attempt are taken over.
    """
    rows, heldout = plan.data.evaluation.to_list(), plan.data.heldout.to_list()
    with watcher.counting_bar(f"evaluate {arm.label}", len(rows) + len(heldout)) as advance:
        folder = plan.partial_run(arm)
        heldout_table = evaluate(runner, heldout, folder=folder / "heldout", advance=advance)
        table = evaluate(runner, rows, folder=folder / "evaluation", advance=advance)
    return Evaluation(table, metric_values(heldout_table, [*plan.task.metrics, "flops_speedup"]))


def metric_values(table: pa.Table, names: Sequence[str]) -> dict[str, float]:
    """Return metrics of an example table by their names."""
    frame = table.to_pandas()
    return {name: float(METRICS[name].compute(frame)) for name in names}


def stage_results(plan: Plan, job: Job) -> dict[str, Any]:
    """Return the held-out scores and the history of a finished stage."""
    manifest = plan.artifacts.manifest(job.id)
    return {name: manifest[name] for name in ("heldout_scores", "history")}


def record_of(plan: Plan, arm: Arm, *, runner: Runner, evaluation: Evaluation, timing: Mapping[str, Any]) -> Record:
    """Return everything about a finished run that is not in its table."""
    return Record(
        run_id=arm.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=plan.task.name,
        method=arm.method.name,
        knobs=dict(arm.knobs),
        preset=plan.preset.name,
        backbone=plan.backbone.name,
        seed=arm.job.seed,
        options={job.stage.name: dict(job.options) for job in arm.job.chain},
        artifacts={job.stage.name: job.id for job in arm.job.chain},
        training={job.stage.name: stage_results(plan, job) for job in arm.job.chain},
        data=data_of(plan, arm),
        metrics=metric_values(evaluation.table, plan.task.metrics),
        heldout=dict(evaluation.heldout),
        timing=dict(timing),
        environment={
            **plan.environment,
            "backbone_identity": plan.backbone.identity,
            **runner.environment,
        },
        layers=plan.config.num_hidden_layers,
        backend=arm.backend.name,
        shown=() if plan.task.sensitive else shown_examples(plan, runner),
        control_of=arm.method.control_of,
    )


def data_of(plan: Plan, arm: Arm) -> dict[str, Any]:
    """Return what a record says of the data: sizes, overlap, fingerprints and seeds."""
    return {
        "split": plan.task.evaluation,
        "rows": len(plan.data.evaluation),
        "train_rows": len(plan.data.train),
        "heldout_rows": len(plan.data.heldout),
        "dropped_rows": plan.data.dropped,
        "overlap": asdict(plan.data.overlap),
        "max_length": plan.max_length,
        "fingerprints": dict(plan.data.fingerprints),
        "contents": {
            f"{job.stage.name}.{name}": digest
            for job in arm.job.chain
            for name, digest in job.decided_by.get("contents", {}).items()
        },
        "finetune_seed": arm.job.chain[0].seed,
        "synthetic": plan.task.synthetic,
    }


def record_with_timing(plan: Plan, arm: Arm, timing: Mapping[str, Any]) -> Record:
    """Return a stored run's record with a new session's timing, which names what has changed since its evaluation."""
    record = plan.runs.record(arm.run_id)
    changed = {name: value for name, value in plan.environment.items() if record.environment.get(name) != value}
    return replace(record, timing={**timing, "timed_again_with": changed})


def shown_examples(plan: Plan, runner: Runner, *, count: int = 2, pieces: int = 30) -> list[dict[str, Any]]:
    """Return how the first reported examples begin, and in how many layers each word piece was live."""
    examples = []
    for row in plan.data.evaluation.select(range(min(count, len(plan.data.evaluation)))).to_list():
        kept = answer(runner, [row]).trace.kept[0]
        words = plan.tokenizer.convert_ids_to_tokens(row["input_ids"][:pieces])
        examples.append({"pieces": words, "layers": kept.sum(0)[:pieces].tolist()})
    return examples
