"""Runners: the shares that a control follows are its own, whichever arms of the plan come before it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from bench.backends.runners import make_measured_runner, make_runner
from bench.planning.plan import Arm, Plan, make_plan
from bench.planning.settings import Settings
from bench.progress import Bars
from bench.runs.evaluation import evaluate
from efficient_bert import EfficientBertForSequenceClassification, InputError
from efficient_bert.policies.controls import OWN
from tests.support.tiny import tiny_model
from tests.support.tiny_files import write_backbone, write_sst2

CONTROLS = ("random_flexible", "random_widths", "constant_widths", "random_exits", "random_tokens")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Controls at two lists of widths and two thresholds; nothing is trained."""
    folder = tmp_path_factory.mktemp("plan")
    settings = Settings(
        "sst2",
        methods=CONTROLS,
        knobs={"width_mult_list": ("0.5,1", "1,0.5"), "exit_threshold": (0.6, 0.69), "exit_width": (0.5, 1.0)},
        options={"width.list": "0.5,1", "depth.list": "0.5,1", "gates.class_weights": "1,2"},
        backbone=str(write_backbone(folder / "bert")),
        data_dir=write_sst2(folder / "sst2", train=40, dev=40),
        store=folder,
    )
    return make_plan(settings)


def shared_model(**changes: Any) -> EfficientBertForSequenceClassification:
    """A random model of two layers with gates, exits and predictors, for every stage of the plan."""
    return tiny_model("four_heads", classes=2, widths=[0.5, 1.0], shared_head=True, seed=2, **changes)


def tables(plan: Plan, arms: Sequence[Arm]) -> dict[str, pa.Table]:
    """Each arm's table of examples: all runners are made in this order, on one model, before any of them answers."""
    models = dict.fromkeys((arm.job.id for arm in arms), shared_model())
    runners = {arm.run_id: make_measured_runner(plan, arm, models, Bars()) for arm in arms}
    rows = plan.data.evaluation.to_list()
    return {run_id: evaluate(runner, rows) for run_id, runner in runners.items()}


def test_the_order_of_arms_changes_no_table(plan: Plan) -> None:
    """Backwards and in random orders, each arm answers and spends as in the order of the plan."""
    expected = tables(plan, plan.arms)
    assert len(expected) == len(plan.arms) == 1 + 4 + 2 + 2 + 4 + 1
    heads = {name: str(table["heads"].to_pylist()) for name, table in expected.items()}
    assert len(set(heads.values())) > 8, "points that do the same could not be told apart"
    shuffled = [random.Random(seed).sample(plan.arms, len(plan.arms)) for seed in range(2)]  # noqa: S311 - an order
    for order in (plan.arms[::-1], *shuffled):
        found = tables(plan, order)
        for name, table in expected.items():
            assert found[name].equals(table), name


def test_a_control_without_rows_follows_what_training_stored(plan: Plan) -> None:
    """It runs at the shares of the model's configuration, and says so in one line where there are none."""
    arm = next(arm for arm in plan.arms if arm.method.name == "constant_widths")
    assert arm.knobs["class_rates"] == OWN
    for shares, heads in (([1.0, 0.0], 2), ([0.0, 1.0], 4)):
        runner = make_runner(plan, arm, {arm.job.id: shared_model(gate_profile=[shares] * 2)})
        found = evaluate(runner, plan.data.evaluation.to_list()[:3])
        assert found["heads"].to_pylist() == [[heads, heads]] * 3
    with pytest.raises(InputError, match="no gate profile of its own; give --class-rates with 2 shares"):
        make_runner(plan, arm, {arm.job.id: shared_model(gate_profile=[])})
