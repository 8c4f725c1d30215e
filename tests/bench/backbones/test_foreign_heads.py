"""What a foreign model was for before: its task, its head and its other fields stay behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, pipeline

from bench.planning.describe import describe
from bench.runs.train import fresh_model
from tests.support.backbone_folders import (
    copy_sound,
    planned,
    set_fields,
)


def saved(folder: Path, kind: Any = BertForSequenceClassification, **changes: Any) -> Path:
    """A backbone with a head of another task."""
    copy_sound(folder)
    kind(BertConfig.from_pretrained(folder, **changes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (BertForSequenceClassification, {"problem_type": "multi_label_classification"}),
        (BertForSequenceClassification, {"problem_type": "regression", "num_labels": 2}),
        (BertForSequenceClassification, {"problem_type": "regression", "num_labels": 1}),
        (BertForTokenClassification, {"num_labels": 2}),
    ],
)
def test_the_task_decides_what_the_answers_are(kind: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    """Whatever a backbone's head was for, the artifact classifies: it is named in the plan, and scores add up to 1."""
    folder = saved(tmp_path / "bert", kind, **changes)
    plan = planned(folder)
    assert plan.config.problem_type == "single_label_classification"
    line = next(line for line in describe(plan, (), 0.0) if line.startswith("backbone"))
    assert re.search("without its classifier, which (was trained for|is of)", line)
    model = fresh_model(plan, 0)
    model.save_pretrained(tmp_path / "artifact")
    plan.tokenizer.save_pretrained(tmp_path / "artifact")
    classify = pipeline("text-classification", str(tmp_path / "artifact"), top_k=None)
    answers: Any = classify(["the film was fine"])
    assert sum(each["score"] for each in answers[0]) == pytest.approx(1.0, abs=1e-5)


def test_nothing_but_the_encoder_is_inherited(tmp_path: Path) -> None:
    """Fields of saving, generating and other tasks stay with the backbone."""
    folder = copy_sound(tmp_path / "bert")
    set_fields(
        folder, {"output_hidden_states": True, "return_dict": False, "torchscript": True, "num_beams": 3,
                 "finetuning_task": "ner", "chunk_size_feed_forward": 4, "classifier_dropout": 0.3},
    )  # fmt: skip
    config = planned(folder).config
    assert (config.output_hidden_states, config.return_dict, config.chunk_size_feed_forward) == (False, True, 0)
    assert not {"torchscript", "num_beams", "finetuning_task"} & set(config.to_dict())
    assert config.classifier_dropout == 0.3
