"""Every task that the registry finds, whatever there is."""

from __future__ import annotations

import pytest

from bench.registry import METRICS, TASKS
from bench.tasks import Task

NAMES = list(TASKS)


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    """One after the other, every registered task."""
    return TASKS[request.param]


def test_the_published_tasks_and_the_synthetic_one_are_there() -> None:
    """The tasks of the two papers' shared ground, and one that needs no download, are found."""
    assert {"sst2", "mrpc", "rte", "imdb", "demo"} <= set(NAMES)


def test_a_task_is_complete(task: Task) -> None:
    """A task names at least two distinct classes, a metric, a length that fits BERT, and its source."""
    assert len(set(task.labels)) == len(task.labels) >= 2
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


def test_a_task_is_scored_by_metrics_that_exist(task: Task) -> None:
    """Every metric that a task declares is in the registry of metrics."""
    assert set(task.metrics) <= set(METRICS)
