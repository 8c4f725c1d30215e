"""Write the answers of a trained model (`bench predict`).

A split without labels makes a file for GLUE's leaderboard, another one a plain table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.backends.runners import load_models, make_runner
from bench.data.examples import require_words
from bench.data.loading import DATA_SEED, encode, load_split
from bench.data.word_pieces import rows_without_words
from bench.errors import InputError
from bench.planning.presets import find_preset
from bench.registry import METHODS, all_knobs
from bench.runs.evaluation import evaluate
from bench.runs.train import train_all
from bench.store.folders import require_folder, require_new
from bench.store.locks import is_main_process
from bench.store.runs import write_aside

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from bench.planning.plan import Arm, Plan
    from bench.planning.settings import Settings
    from bench.progress import Watcher
    from bench.store.artifacts import Job
    from bench.tasks import Task


def one_point(settings: Settings) -> Settings:
    """Return the settings with a value for every knob of their one method, as `with_defaults`.

    Raises:
        InputError: a knob has several values.
    """
    for name, values in settings.knobs.items():
        if len(values) != 1:
            several = ", ".join(map(str, values))
            raise InputError(f"{name} is {several}, but predictions are made at one operating point; give one value")
    return with_defaults(settings)


def with_defaults(settings: Settings) -> Settings:
    """Return the settings with a value for every knob of their one method: given, else preset's, else default."""
    defaults = {knob.name: knob.default for knob in all_knobs(METHODS[settings.methods[0]])}
    chosen = find_preset(settings.preset).on(settings.task).knobs
    left = {name: (chosen.get(name, default),) for name, default in defaults.items()}
    return replace(settings, knobs={**left, **settings.knobs})


def output_files(task: Task, splits: Sequence[str], folder: Path, *, force: bool) -> dict[str, Path]:
    """Return split -> its file in `folder`; without `splits`, those without labels, or the reported one.

    Raises:
        InputError: `folder` is a file or lies below one, or one of the files is there and `force` is not given.
    """
    require_folder(folder, kind="what predictions go to")
    chosen = splits or list(task.unlabelled) or [task.evaluation]
    paths = {split: folder / task.unlabelled.get(split, f"{task.name}-{split}.tsv") for split in chosen}
    require_new(paths.values(), force=force)
    return paths


def missing_stages(plan: Plan, arm: Arm) -> list[Job]:
    """Return the stages that have to be trained before the arm can answer."""
    return [job for job in arm.job.chain if job.id not in plan.artifacts]


def predict(plan: Plan, paths: Mapping[str, Path], watcher: Watcher) -> dict[str, int]:
    """Train what is missing, answer every split with the plan's last arm, and write the files.

    Args:
        plan: whose last arm answers.
        paths: split -> its file.
        watcher: shows progress.

    Returns:
        Split -> how many of its rows have no word pieces: a leaderboard needs an answer to each row.
    """
    task, arm = plan.task, plan.arms[-1]
    tables = {split: load_encoded_split(plan, split) for split in paths}
    wordless = {split: len(rows_without_words(table, pairs=task.pair is not None)) for split, table in tables.items()}
    train_all(plan, missing_stages(plan, arm), watcher)
    if not is_main_process():
        return wordless
    runner = make_runner(plan, arm, load_models(plan, [arm]))
    for split, path in paths.items():
        rows = tables[split].to_list()
        with watcher.counting_bar(f"predict {split} by {arm.label}", len(rows)) as advance:
            table = evaluate(runner, rows, advance=advance)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, leaderboard_text(task, table) if split in task.unlabelled else table_text(task, table))
    return wordless


def load_encoded_split(plan: Plan, split: str) -> Dataset:
    """Load a split and cut it into word pieces; one with labels has no row without any."""
    task, data_dir = plan.task, plan.settings.data_dir
    table = load_split(task, split, data_dir=data_dir, seed=DATA_SEED)
    encoded = encode(table, plan.tokenizer, max_length=plan.max_length, windows=task.windows)
    if split not in task.unlabelled:
        require_words(task, split, encoded, data_dir=data_dir)
    return encoded


def leaderboard_text(task: Task, answers: pa.Table) -> str:
    """Return GLUE's file: `index` counts rows from 0; a class by name or number, as in the data; a bounded score."""
    predictions = answers["prediction"].to_pylist()
    if task.scores is not None:
        low, high = task.scores
        written = [f"{min(max(score, low), high):.3f}" for score in predictions]
    elif task.tsv is not None and task.tsv.named:
        written = [task.labels[number] for number in predictions]
    else:
        written = [str(number) for number in predictions]
    return _tsv(["index", "prediction"], enumerate(written))


def table_text(task: Task, answers: pa.Table) -> str:
    """Return a table with example_id, prediction (class name or score) and probabilities, comma-separated."""
    rows = (
        (
            row["example_id"],
            f"{row['prediction']:.6f}" if task.regression else task.labels[row["prediction"]],
            ",".join(f"{probability:.6f}" for probability in row["probabilities"]),
        )
        for row in answers.select(["example_id", "prediction", "probabilities"]).to_pylist()
    )
    return _tsv(["example_id", "prediction", "probabilities"], rows)


def _tsv(header: Sequence[str], rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
