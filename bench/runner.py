"""Carry out a plan: train what is missing, evaluate, time, store. Everything finished is found again, never redone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bench.artifacts import Job
from bench.backbone_files import AGAIN, one_line
from bench.choosing import holds_up
from bench.errors import InputError
from bench.evaluation import Runnable, answers, evaluate
from bench.exclusive import alone, fresh_locks, require_whole_before, same_stages
from bench.finite import require_weights
from bench.folders import disk_errors_at
from bench.locks import is_main_process as is_main_process
from bench.plan import Arm, Plan
from bench.progress import Watcher
from bench.records import Record
from bench.registry import METRICS
from bench.session import single, timed
from bench.word_pieces import save_tokenizer

if TYPE_CHECKING:
    import torch

    from efficient_bert import EfficientBertForSequenceClassification
    from efficient_bert.training import Context

HEAD = "classifier."
NEW_PARTS = (HEAD, "bert.pooler.")
"""What a pre-trained encoder may lack: it is made anew for the task."""

Rows = Sequence[Mapping[str, Any]]


def carry_out(plan: Plan, watcher: Watcher) -> list[str]:
    """Run every arm that is not stored yet; the ids of all arms' runs, the reference first."""
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
    with alone(plan.runs, [arm.run_id for arm in (*plan.missing_arms, *stored)]):
        missing = [arm for arm in plan.missing_arms if arm.run_id not in plan.runs]
        if not missing and not stored:
            return
        wanted = [plan.arms[0], *missing, *stored]
        with same_stages(plan, [job for arm in wanted for job in arm.job.chain]):
            models = load_models(plan, wanted)
            ables = {arm.run_id: followed(plan, arm, models, watcher) for arm in wanted}
            results = {arm.run_id: evaluated(plan, arm, ables[arm.run_id], watcher) for arm in missing}
            tables = {run_id: table for run_id, (table, _) in results.items()}
            tables |= {arm.run_id: plan.runs.examples(arm.run_id) for arm in stored}
            timing, tables = timed(plan, ables, tables, watcher)
        for arm in missing:
            able, table, heldout = ables[arm.run_id], tables[arm.run_id], results[arm.run_id][1]
            own = timing[arm.run_id]
            plan.runs.put(record_of(plan, arm, able=able, table=table, heldout=heldout, timing=own), table)
        for arm in stored:
            plan.runs.put(timed_again(plan, arm, timing[arm.run_id]), tables[arm.run_id])


def train_missing(plan: Plan, watcher: Watcher) -> None:
    """Every stage that is not finished, in order; a killed one resumes from its checkpoint.

    With `fresh` all stages, and what came of them is forgotten: later stages, and runs.
    """
    missing = plan.missing_jobs
    with fresh_locks(plan):
        if plan.settings.fresh and is_main_process():
            forget(plan)
        train_all(plan, missing, watcher)


def train_all(plan: Plan, jobs: Sequence[Job], watcher: Watcher) -> None:
    """Train these stages in order, once it is known that those they start from are whole."""
    require_whole_before(plan, jobs)
    for job in jobs:
        train_job(plan, job, watcher)


def forget(plan: Plan) -> None:
    """The plan's stages and runs, and all that came of those stages; what came last goes first."""
    runs, stages = plan.forgotten
    for name in (*runs, *(arm.run_id for arm in plan.missing_arms)):
        plan.runs.restart(name)
    for name in (*stages, *(job.id for job in plan.missing_jobs)):
        plan.artifacts.restart(name)


def train_job(plan: Plan, job: Job, watcher: Watcher) -> None:
    """Train one stage and store its model, where no other command has done so meanwhile."""
    from accelerate import PartialState

    processes = PartialState(cpu=plan.settings.device == "cpu")
    with alone(plan.artifacts, [job.id]), disk_errors_at(plan.artifacts.folder(job.id)):
        processes.wait_for_everyone()  # the main process may have waited for another command
        if job.id in plan.artifacts:
            return
        with watcher.training(job.stage.name) as watch, same_stages(plan, [job.after] if job.after else []):
            context = context_of(plan, job, watch)
            with during(job):
                trained = job.stage.train(context)
        processes.wait_for_everyone()  # the others may still read what is about to be tidied away
        if is_main_process():
            saved = partial(save_tokenizer, tokenizer=plan.tokenizer, max_length=plan.max_length)
            plan.artifacts.put(job, trained, save_tokenizer=saved)
        processes.wait_for_everyone()


def context_of(plan: Plan, job: Job, watch: Callable[[Any], None]) -> Context:
    """What a stage is given."""
    from efficient_bert.training import Context

    return Context(
        model=plan.artifacts.load(job.after.id) if job.after else fresh_model(plan, job.seed),
        fresh=partial(fresh_model, plan, job.seed),
        vocabulary=plan.vocabulary,
        before=plan.artifacts.folder(job.after.id) if job.after else None,
        train=plan.data.train.to_list(),
        heldout=plan.data.heldout.to_list(),
        score=scorer(plan),
        holds_up=holds_up,
        options=job.options,
        seed=job.seed,
        device=plan.settings.device,
        folder=plan.artifacts.partial(job.id, made_with=[each.id for each in job.chain]),
        watch=watch,
    )


@contextmanager
def during(job: Job) -> Iterator[None]:
    """Name the stage in what is refused while it is trained."""
    from efficient_bert import InputError as TrainingError

    try:
        yield
    except (InputError, TrainingError) as error:
        raise InputError(f"stage {job.stage.name}: {error}") from error


def fresh_model(plan: Plan, seed: int) -> EfficientBertForSequenceClassification:
    """The backbone with a new classifier, the same one for the same seed; with its own, where that is of this task.

    Raises:
        InputError: the weights cannot be read, are not all there or are of other sizes.
    """
    import torch

    from efficient_bert import EfficientBertForSequenceClassification

    torch.manual_seed(seed)
    load: Any = EfficientBertForSequenceClassification.from_pretrained  # typed without its loading report
    model: EfficientBertForSequenceClassification
    try:
        model, report = load(
            plan.backbone.folder,
            config=plan.config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise InputError(
            f"the weights of backbone {plan.backbone.name!r} cannot be read: {one_line(error)}; {AGAIN}"
        ) from error
    lacking = sorted(name for name in report["missing_keys"] if not name.startswith(NEW_PARTS))
    if lacking:
        raise InputError(
            f"the weights of backbone {plan.backbone.name!r} lack {len(lacking)} tensors that its config.json asks "
            f"for, {lacking[0]} among them; pass a complete checkpoint"
        )
    resized = sorted(name for name, *_ in report["mismatched_keys"])
    if plan.other_head:
        resized = [name for name in resized if not name.startswith(HEAD)]
        torch.nn.init.normal_(model.classifier.weight, std=plan.config.initializer_range)
        torch.nn.init.zeros_(model.classifier.bias)
    if resized:
        raise InputError(
            f"the weights of backbone {plan.backbone.name!r} hold {len(resized)} tensors of other sizes than its "
            f"config.json asks for, {resized[0]} among them; pass a checkpoint whose parts belong together"
        )
    require_weights(plan, model)
    return model


def scorer(plan: Plan) -> Callable[[Any, Any], float]:
    """(labels, logits) tensors -> the task's first metric, as models are selected by."""
    import pandas as pd

    metric = METRICS[plan.task.metrics[0]]

    def score(labels: Any, logits: Any) -> float:
        columns = {"label": labels.tolist(), **answers(logits, regression=plan.task.regression)}
        return float(metric.compute(pd.DataFrame(columns)))

    return score


def load_models(plan: Plan, arms: Sequence[Arm]) -> dict[str, EfficientBertForSequenceClassification]:
    """Each distinct model of the arms, once, on the device."""
    jobs = {arm.job.id: arm.job for arm in arms}
    return {name: on_device(plan.artifacts.load(job.id), plan.settings.device) for name, job in jobs.items()}


def on_device(model: EfficientBertForSequenceClassification, device: str) -> EfficientBertForSequenceClassification:
    """The model, moved."""
    module: torch.nn.Module = model  # whose `to` is typed; transformers' is not
    module.to(device)
    return model


def runnable(plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification]) -> Runnable:
    """The arm's model with its policy."""
    model = models[arm.job.id]
    policy = arm.method.policy(model, arm.knobs)
    counted = arm.method.published_flops
    released = (lambda model, output: counted(model, output, arm.knobs)) if counted else None
    return Runnable(model, policy, plan.config, plan.settings.device, released)


def followed(
    plan: Plan, arm: Arm, models: Mapping[str, EfficientBertForSequenceClassification], watcher: Watcher
) -> Runnable:
    """As `runnable`; a control chooses as often as its method does on the reported rows, whose labels are not read."""
    from efficient_bert.controls import OWN

    if arm.method.measure is not None and OWN in arm.knobs.values():
        rows = plan.data.evaluation.to_list()
        with watcher.counting(f"count the choices that {arm.label} follows", len(rows)) as advance:
            arm.method.measure(models[arm.job.id], rows, arm.knobs)
            advance(len(rows))
    return runnable(plan, arm, models)


def evaluated(plan: Plan, arm: Arm, able: Runnable, watcher: Watcher) -> tuple[pa.Table, dict[str, float]]:
    """The arm over the evaluation split, and its metrics and FLOPs speed-up on the held-out training rows.

    Finished chunks of a killed attempt are taken over.
    """
    rows, heldout = plan.data.evaluation.to_list(), plan.data.heldout.to_list()
    with watcher.counting(f"evaluate {arm.label}", len(rows) + len(heldout)) as advance:
        folder = plan.partial_run(arm)
        seen = evaluate(able, heldout, folder=folder / "heldout", advance=advance)
        table = evaluate(able, rows, folder=folder / "evaluation", advance=advance)
    return table, values(seen, [*plan.task.metrics, "flops_speedup"])


def values(table: pa.Table, names: Sequence[str]) -> dict[str, float]:
    """Metrics of an example table."""
    frame = table.to_pandas()
    return {name: float(METRICS[name].compute(frame)) for name in names}


def learned(plan: Plan, job: Job) -> dict[str, Any]:
    """Held-out scores and history of a finished stage."""
    manifest = plan.artifacts.manifest(job.id)
    return {name: manifest[name] for name in ("heldout_scores", "history")}


def record_of(
    plan: Plan,
    arm: Arm,
    *,
    able: Runnable,
    table: pa.Table,
    heldout: Mapping[str, float],
    timing: Mapping[str, Any],
) -> Record:
    """Everything about a finished run that is not in its table."""
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
        training={job.stage.name: learned(plan, job) for job in arm.job.chain},
        data={
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
        },
        metrics=values(table, plan.task.metrics),
        heldout=dict(heldout),
        timing=dict(timing),
        environment={
            **plan.environment,
            "backbone_identity": plan.backbone.identity,
            "attention": able.model.config._attn_implementation,
            "dtype": str(able.model.dtype),
        },
        layers=plan.config.num_hidden_layers,
        shown=() if plan.task.sensitive else shown(plan, able),
        control_of=arm.method.control_of,
    )


def timed_again(plan: Plan, arm: Arm, timing: Mapping[str, Any]) -> Record:
    """A stored run's record with a new session's timing, which names what has changed since the run was evaluated."""
    record = plan.runs.record(arm.run_id)
    changed = {name: value for name, value in plan.environment.items() if record.environment.get(name) != value}
    return replace(record, timing={**timing, "timed_again_with": changed})


def shown(plan: Plan, able: Runnable, *, count: int = 2, pieces: int = 30) -> list[dict[str, Any]]:
    """How the first examples of the evaluation split begin, and how many layers each word piece was live in."""
    from efficient_bert import run

    found = []
    for row in plan.data.evaluation.select(range(min(count, len(plan.data.evaluation)))).to_list():
        kept = run(able.model, single(plan, row), able.policy).trace.kept[0]
        words = plan.tokenizer.convert_ids_to_tokens(row["input_ids"][:pieces])
        found.append({"pieces": words, "layers": kept.sum(0)[:pieces].tolist()})
    return found
