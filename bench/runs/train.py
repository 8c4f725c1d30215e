"""Train what is missing of a plan's stages. Finished stages are kept, never trained again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.backbones.files import AGAIN, one_line
from bench.choosing import holds_up
from bench.data.finite import require_weights
from bench.data.word_pieces import save_tokenizer
from bench.errors import InputError
from bench.planning.plan import Plan
from bench.progress import Watcher
from bench.registry import METRICS
from bench.runs.evaluation import answer_columns
from bench.store.artifacts import Job
from bench.store.exclusive import fresh_locks, lock_folders, require_whole_before, same_stages
from bench.store.folders import disk_errors_at
from bench.store.locks import is_main_process

if TYPE_CHECKING:
    from efficient_bert import EfficientBertForSequenceClassification
    from efficient_bert.training import Context

HEAD = "classifier."
NEW_PARTS = (HEAD, "bert.pooler.")
"""Parts that a pre-trained encoder may lack: they are made anew for the task."""


def train_missing(plan: Plan, watcher: Watcher) -> None:
    """Train every stage that is not finished, in order; a killed one resumes from its checkpoint.

    With `fresh` all stages are trained, and the later stages and runs that were made from them are deleted first.
    """
    missing = plan.missing_jobs
    with fresh_locks(plan):
        if plan.settings.fresh and is_main_process():
            delete_old(plan)
        train_all(plan, missing, watcher)


def train_all(plan: Plan, jobs: Sequence[Job], watcher: Watcher) -> None:
    """Train these stages in order, after checking that those they start from are intact."""
    require_whole_before(plan, jobs)
    for job in jobs:
        train_job(plan, job, watcher)


def delete_old(plan: Plan) -> None:
    """Delete the plan's stages and runs, and all that was made from those stages; the latest first."""
    runs, stages = plan.outdated
    for name in (*runs, *(arm.run_id for arm in plan.missing_arms)):
        plan.runs.restart(name)
    for name in (*stages, *(job.id for job in plan.missing_jobs)):
        plan.artifacts.restart(name)


def train_job(plan: Plan, job: Job, watcher: Watcher) -> None:
    """Train one stage and store its model, where no other command has done so meanwhile."""
    from accelerate import PartialState

    processes = PartialState(cpu=plan.settings.device == "cpu")
    with lock_folders(plan.artifacts, [job.id]), disk_errors_at(plan.artifacts.folder(job.id)):
        processes.wait_for_everyone()  # the main process may have waited for another command
        if job.id in plan.artifacts:
            return
        with watcher.training_bar(job.stage.name) as watch, same_stages(plan, [job.after] if job.after else []):
            context = context_of(plan, job, watch)
            with name_stage_in_errors(job):
                trained = job.stage.train(context)
        processes.wait_for_everyone()  # the others may still read what is about to be tidied away
        if is_main_process():
            save = partial(save_tokenizer, tokenizer=plan.tokenizer, max_length=plan.max_length)
            plan.artifacts.put(job, trained, save_tokenizer=save)
        processes.wait_for_everyone()


def context_of(plan: Plan, job: Job, watch: Callable[[Any], None]) -> Context:
    """Return everything that a stage trains with."""
    from efficient_bert.training import Context

    return Context(
        model=plan.artifacts.load(job.after.id) if job.after else fresh_model(plan, job.seed),
        fresh=partial(fresh_model, plan, job.seed),
        vocabulary=plan.vocabulary,
        before=plan.artifacts.folder(job.after.id) if job.after else None,
        train=plan.data.train.to_list(),
        heldout=plan.data.heldout.to_list(),
        score=make_scorer(plan),
        holds_up=holds_up,
        options=job.options,
        seed=job.seed,
        device=plan.settings.device,
        folder=plan.artifacts.partial(job.id, made_with=[each.id for each in job.chain]),
        watch=watch,
    )


@contextmanager
def name_stage_in_errors(job: Job) -> Iterator[None]:
    """Name the stage in an error about wrong input that its training raises."""
    from efficient_bert import InputError as TrainingError

    try:
        yield
    except (InputError, TrainingError) as error:
        raise InputError(f"stage {job.stage.name}: {error}") from error


def fresh_model(plan: Plan, seed: int) -> EfficientBertForSequenceClassification:
    """Return the backbone with a new classifier, equal for equal seeds; with its own, where that is of this task.

    Raises:
        InputError: the weights cannot be read, are not all there or are of other sizes.
    """
    import torch

    torch.manual_seed(seed)
    model, report = load_backbone(plan)
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


def load_backbone(plan: Plan) -> tuple[EfficientBertForSequenceClassification, dict[str, Any]]:
    """Load the backbone's weights into the model; (model, what transformers reports of missing and other tensors).

    Raises:
        InputError: they cannot be read.
    """
    import torch

    from efficient_bert import EfficientBertForSequenceClassification

    load: Any = EfficientBertForSequenceClassification.from_pretrained  # typed without its loading report
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
    return model, report


def make_scorer(plan: Plan) -> Callable[[Any, Any], float]:
    """Return a function (labels, logits) tensors -> the task's first metric, by which models are selected."""
    import pandas as pd

    metric = METRICS[plan.task.metrics[0]]

    def score(labels: Any, logits: Any) -> float:
        columns = {"label": labels.tolist(), **answer_columns(logits, regression=plan.task.regression)}
        return float(metric.compute(pd.DataFrame(columns)))

    return score
