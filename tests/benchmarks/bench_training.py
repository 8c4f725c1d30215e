"""Examples per second of our training loop, of a plain Trainer step on the same rows, and of saliency extraction.

    pytest tests/benchmarks/bench_training.py --benchmark-only -s

Nothing is asserted of time, because it depends on the machine; the ratios are printed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from transformers import BertForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

from bench.choosing import holds_up
from bench.data.loading import encode, load_split
from bench.registry import TASKS
from efficient_bert import EfficientBertForSequenceClassification
from efficient_bert.training import Context
from efficient_bert.training.adapler.saliency import saliency_of
from efficient_bert.training.finetune import FINETUNE
from efficient_bert.training.loop import native_precision
from tests.conftest import MiniLM

ROWS = {"sst2": 1600, "imdb": 160}
"""Task -> rows of an epoch: short texts, and long ones."""

BATCH = 32
TURNS = 3


def rows_of(name: str, minilm: MiniLM) -> datasets.Dataset:
    """The task's training rows where they are at hand, else as many of the demo corpus."""
    folder = os.environ.get("EFFICIENT_BERT_DATA")
    task = TASKS[name if folder else "demo"]
    table = load_split(task, "train", data_dir=Path(folder) if folder else None, seed=0, limit=ROWS[name])
    return encode(table, minilm.tokenizer, max_length=task.max_length)


def constant(labels: Tensor, logits: Tensor) -> float:
    """A score that costs nothing."""
    return 0.0


def ours(minilm: MiniLM, rows: list[dict[str, Any]], folder: Path) -> None:
    """An epoch of the fine-tuning stage."""
    options = {knob.name: knob.default for knob in FINETUNE.options}
    model: EfficientBertForSequenceClassification
    model = EfficientBertForSequenceClassification.from_pretrained(minilm.folder)
    FINETUNE.train(
        Context(
            model=model,
            train=rows,
            heldout=rows[:BATCH],
            score=constant,
            holds_up=holds_up,
            options={**options, "epochs": 1, "batch_size": BATCH, "keep_epochs": 1},
            seed=0,
            device="cpu",
            folder=folder,
            fresh=lambda: model,
        )
    )


def theirs(minilm: MiniLM, table: datasets.Dataset, folder: Path, *, bf16: bool) -> None:
    """An epoch of a plain Trainer: its own optimiser, rows in random order, padded to the longest of the batch."""
    model = BertForSequenceClassification.from_pretrained(minilm.folder)
    columns = table.rename_column("label", "labels").remove_columns(["example_id", "length"])
    Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            bf16=bf16,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=columns,
        data_collator=DataCollatorWithPadding(minilm.tokenizer),
    ).train()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ROWS)
def test_training_speed(task: str, minilm: MiniLM, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The arms take turns; medians, and ratios to our training and to the plain Trainer's."""
    table = rows_of(task, minilm)
    rows = table.to_list()
    tuned: EfficientBertForSequenceClassification
    tuned = EfficientBertForSequenceClassification.from_pretrained(minilm.folder).eval()
    precision = native_precision("cpu")
    places = iter(range(1000))
    arms: dict[str, Callable[[], object]] = {
        "fine-tuning": lambda: ours(minilm, rows, tmp_path / str(next(places))),
        "Trainer, float32": lambda: theirs(minilm, table, tmp_path / str(next(places)), bf16=False),
        "Trainer, bfloat16": lambda: theirs(minilm, table, tmp_path / str(next(places)), bf16=True),
        "saliency, three epochs": lambda: saliency_of([tuned] * 3, rows, batch_size=BATCH, precision=precision),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}

    def session() -> None:
        for _ in range(TURNS):
            for name, arm in arms.items():
                started = time.perf_counter()
                arm()
                seconds[name].append(time.perf_counter() - started)

    benchmark.pedantic(session, rounds=1, iterations=1)
    own = statistics.median(seconds["fine-tuning"])
    plain = statistics.median(seconds["Trainer, bfloat16" if precision == "bf16" else "Trainer, float32"])
    print(f"\n{len(rows)} rows of {task}, {torch.get_num_threads()} threads, {precision}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        ratios = f"{middle / own:.2f} of fine-tuning's, {middle / plain:.2f} of the Trainer's in this precision"
        print(f"  {name:22} {len(rows) / middle:6.0f} examples/s, time per example {ratios}")
        benchmark.extra_info[name] = {"of fine-tuning": middle / own, "of the Trainer": middle / plain}
