"""Every task that the registry finds, whatever there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.errors import InputError
from bench.registry import METRICS, TASKS
from bench.tasks import Task

NAMES = list(TASKS)


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    """One after the other, every registered task."""
    return TASKS[request.param]


def test_the_published_tasks_and_the_synthetic_one_are_there() -> None:
    """GLUE's tasks but one, those that AdapLeR adds, and one that needs no download, are found."""
    assert {"sst2", "mrpc", "rte", "qnli", "mnli", "qqp", "cola", "stsb"} <= set(NAMES)
    assert {"imdb", "ag_news", "dbpedia", "hatexplain", "movies", "demo"} <= set(NAMES)


def test_a_task_is_complete(task: Task) -> None:
    """A task names at least two distinct classes or a score, a metric, a length that fits BERT, and its source."""
    assert len(set(task.labels)) == len(task.labels)
    assert len(task.labels) == 1 if task.regression else len(task.labels) >= 2
    assert task.metrics
    assert 8 <= task.max_length <= 512
    assert task.summary
    assert task.source


def test_a_task_has_data_to_load(task: Task) -> None:
    """A task is generated, or has both a folder and a hub repository with the same kind of texts."""
    if task.synthetic:
        assert task.generate is not None
        assert "synthetic" in task.summary
        assert {"train", task.evaluation} <= set(task.generate(0))
    else:
        assert task.hub is not None
        assert task.folder
    if task.tsv is not None:
        assert {"train", task.evaluation} <= set(task.tsv.files)
        assert (task.tsv.pair is None) == (task.pair is None)


def test_splits_without_labels_can_be_found(task: Task) -> None:
    """A split without labels has a GLUE file of its own, and is neither trained nor reported on."""
    assert len(set(task.unlabelled.values())) == len(task.unlabelled)
    assert not {"train", task.evaluation} & set(task.unlabelled)
    for split, name in task.unlabelled.items():
        source, part = task.elsewhere.get(split, (task, split))
        assert source.tsv is not None
        assert part in source.tsv.files
        assert part in source.unlabelled
        assert source.labels == task.labels
        assert name.endswith(".tsv")


def test_labels_are_numbered_as_on_the_hub() -> None:
    """Where the hub stores class numbers, ours are the same."""
    assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")
    assert TASKS["qnli"].labels == ("entailment", "not_entailment")
    assert TASKS["ag_news"].labels == ("World", "Sports", "Business", "Sci/Tech")
    assert TASKS["hatexplain"].labels == ("hatespeech", "normal", "offensive")
    assert len(TASKS["dbpedia"].labels) == 14


def test_a_task_that_makes_no_sense_is_refused() -> None:
    """One class, several names for one score, and windows of pairs are each answered with the rule."""
    sst2, stsb, movies = (TASKS[name] for name in ("sst2", "stsb", "movies"))
    with pytest.raises(InputError, match=r"'sst2' has the classes \['good'\].*two or more.*scores=\(lowest, highest\)"):
        replace(sst2, labels=("good",))
    with pytest.raises(InputError, match="one name, not"):
        replace(stsb, labels=("low", "high"))
    with pytest.raises(InputError, match="windows are cut from single texts"):
        replace(movies, pair="other")


def test_a_task_is_scored_by_metrics_that_exist(task: Task) -> None:
    """Every metric that a task declares is in the registry of metrics."""
    assert set(task.metrics) <= set(METRICS)
