"""What a run shows of its data: how two texts begin, and of a sensitive task nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.planning.plan import make_plan
from bench.planning.settings import Settings
from bench.progress import Bars
from bench.runs.run import carry_out
from tests.support.tiny_files import write_backbone, write_sst2


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_sensitive_task_shows_nothing(tmp_path: Path, sensitive: bool) -> None:
    """The beginnings lie beside the record, and no text at all lies there where the task is sensitive."""
    backbone, data = write_backbone(tmp_path / "bert"), write_sst2(tmp_path / "sst2", train=40, dev=8)
    asked = Settings(
        "sst2",
        methods=("full",),
        backbone=str(backbone),
        data_dir=data,
        store=tmp_path,
        options={"finetune.epochs": 1},
        latency_examples=0,
    )
    plan = make_plan(asked)
    plan = replace(plan, task=replace(plan.task, sensitive=sensitive))
    (run_id,) = carry_out(plan, Bars())
    shown = plan.runs.record(run_id).shown
    texts = [row["input_ids"] for row in plan.data.evaluation.to_list()]
    expected = [plan.tokenizer.convert_ids_to_tokens(text) for text in texts[:2]]
    assert [example["pieces"] for example in shown] == ([] if sensitive else expected)
    assert (plan.runs.folder(run_id) / "shown.json").exists() == (not sensitive)
