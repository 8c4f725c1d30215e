"""AdapLeR's stage: saliency once, thresholds that learn apart, a sharper removal every epoch, resume, selection."""

from __future__ import annotations

import math
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from efficient_bert import Batch, EfficientBertForSequenceClassification, InputError, run
from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.engine.decisions import Policy
from efficient_bert.explainers.attribution import gradient_times_input
from efficient_bert.fidelity import Fidelity
from efficient_bert.knobs import Value
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.rows import Rows
from efficient_bert.training import Context, Trained
from efficient_bert.training.adapler import saliency, stage
from efficient_bert.training.adapler.saliency import FILE, SALIENCY, SCHEMA, saliency_of, with_saliency
from efficient_bert.training.adapler.stage import (
    ADAPLER,
    Verdict,
    collate_maps,
    learning_rates,
    measure_heldout,
    sharpness,
    sharpness_at,
    with_contribution,
)
from efficient_bert.training.batches import collate
from efficient_bert.training.finetune import FINETUNE
from efficient_bert.training.recipe import Progress, Recipe, parameter_groups
from tests.efficient_bert.training.test_training_loop import (
    EPOCHS,
    KILLS,
    STEPS,
    KilledError,
    assert_resumes,
    assert_says_what_it_changes,
    context,
    killing,
)
from tests.support.tiny import tiny_model

OPTIONS = {"epochs": 3, "learning_rate": 1e-2, "threshold_rate": 0.3, "phi": 0.5, "gamma": 2.0, "contribution_size": 6}


def put_beside(trained: Trained, folder: Path) -> Path:
    """What a finished artifact's folder holds for the stage after."""
    for name, file in trained.beside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished saliency stage of `context`'s rows, after three epochs of fine-tuning."""
    root = tmp_path_factory.mktemp("before")
    tuned = FINETUNE.train(context(root / "finetune"))
    given = context(root / "extract", stage=SALIENCY, model=tuned.model, before=put_beside(tuned, root / "finetuned"))
    return put_beside(SALIENCY.train(given), root / "saliency")


def given_context(folder: Path, before: Path, **changes: Any) -> Context:
    """A small run of the stage."""
    return context(folder, stage=ADAPLER, options={**OPTIONS, **changes.pop("options", {})}, before=before, **changes)


def test_the_stage_learns_to_drop(tmp_path: Path, before: Path) -> None:
    """Thresholds leave their start, stay in bounds, and tokens are dropped; the fine-tuned model stays as it was."""
    given = given_context(tmp_path, before, score=lambda labels, logits: 0.9)
    states = {name: value.clone() for name, value in given.model.state_dict().items()}
    learned = ADAPLER.train(given)
    contribution = learned.model.contributions()
    assert not learned.model.training
    assert learned.model.config.contribution_size == 6
    assert (contribution.eta > 0.26).all()
    assert (contribution.eta <= 1).all()
    assert (contribution.theta != 1).any()
    for name, value in given.model.state_dict().items():
        assert torch.equal(value, states[name]), name
    batch = Batch.of(collate(given.heldout, pad_token_id=0))
    with torch.inference_mode():
        trace = run(learned.model, batch, contribution_policy(contribution)).trace
    assert (trace.tokens[:, -1] < trace.length).any()
    fractions = trace.tokens.sum(0) / trace.length.sum()
    assert learned.model.config.length_profile == pytest.approx(fractions.tolist())


@pytest.mark.parametrize("step", KILLS)
def test_a_killed_stage_ends_as_one_that_was_not(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Killed anywhere and started again: the same parameters, thresholds included, scores and history."""
    assert_resumes(ADAPLER, step, tmp_path, monkeypatch, before=before, options={"distill": 0.5})


def test_the_stage_says_what_it_changes(tmp_path: Path, before: Path) -> None:
    """What is planned with is the configuration that training leaves."""
    assert_says_what_it_changes(given_context(tmp_path, before), stage.ADAPLER)


def test_thresholds_are_watched(tmp_path: Path, before: Path) -> None:
    """The history has eta and theta at each of the few steps, the last one that of the last epoch's model."""
    history = ADAPLER.train(given_context(tmp_path, before)).history
    assert history["step"] == list(range(3 * STEPS))
    assert {len(eta) for eta in history["eta"]} == {2}
    assert {len(theta) for theta in history["theta"]} == {1}
    assert history["eta"][0] != history["eta"][-1]


def test_learning_starts_where_it_is_told(tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fine-tuned model, or from the backbone with a fresh classifier; thresholds at the given start."""
    starts: dict[str, EfficientBertForSequenceClassification] = {}

    def note(context: Context, recipe: Recipe) -> Trained:
        starts[str(context.options["start"])] = context.model
        return Trained(context.model)

    monkeypatch.setattr(stage, "train", note)
    backbone = tiny_model("four_heads", classes=2, exit_depths=[], seed=9)
    for start in ("finetuned", "backbone"):
        given = given_context(tmp_path, before, options={"start": start, "initial_eta": 0.5}, fresh=lambda: backbone)
        ADAPLER.train(given)
    weights = {name: model.classifier.weight for name, model in starts.items()}
    assert torch.equal(weights["backbone"], backbone.classifier.weight)
    assert torch.equal(weights["finetuned"], given.model.classifier.weight)
    assert torch.equal(starts["backbone"].contributions().eta, torch.full((2,), 0.5))


def test_saliency_is_each_rows_own(tmp_path: Path, before: Path) -> None:
    """A row's map is the mean over the best epochs' models of what each says of the row alone, by the row's id."""
    tuned = before.parent / "finetuned"
    models = []
    for path in sorted((tuned / "epochs").iterdir()):
        models.append(tiny_model("four_heads", classes=2, exit_depths=[]))
        models[-1].load_state_dict(load_file(path))
    assert len(models) == EPOCHS
    rows = context(tmp_path).train
    for row in with_saliency(rows[::-1], before / FILE):
        alone = collate([row], pad_token_id=0)
        expected = torch.stack([gradient_times_input(model, Batch.of(alone), alone["labels"])[0] for model in models])
        torch.testing.assert_close(row["saliency"], expected.mean(0), atol=1e-5, rtol=1e-4)


def test_maps_are_collated_with_zeros(tmp_path: Path) -> None:
    """A batch's maps are as wide as its word pieces; rows without maps make the usual batch."""
    rows = context(tmp_path).train[:3]
    batch = collate_maps([{**row, "saliency": torch.ones(len(row["input_ids"]))} for row in rows], pad_token_id=0)
    assert torch.equal(batch["saliency"], batch["attention_mask"].float())
    assert set(collate_maps(rows, pad_token_id=0)) == set(batch) - {"saliency"}


def test_the_fine_tuned_model_teaches(tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to distil, every row brings the fine-tuned model's logits of it; otherwise none does."""
    given, met = given_context(tmp_path, before, options={"distill": 0.5}), []

    def note(context: Context, recipe: Recipe) -> Trained:
        assert recipe.collate is not None
        met.append(recipe.collate(context.train[:5]))
        return Trained(context.model)

    monkeypatch.setattr(stage, "train", note)
    ADAPLER.train(given)
    ADAPLER.train(given_context(tmp_path, before))
    with torch.inference_mode():
        logits = [run(given.model, Batch.of(collate([row], pad_token_id=0))).logits[0] for row in given.train[:5]]
    torch.testing.assert_close(met[0]["teacher"], torch.stack(logits), atol=1e-5, rtol=1e-5)
    assert set(met[0]) - set(met[1]) == {"teacher"}


@pytest.mark.parametrize("shards", [1, 2])
def test_saliency_resumes_shard_by_shard(
    tmp_path: Path, before: Path, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a shard, the stage computes only the others, and the file is that of a run never killed."""
    monkeypatch.setattr(saliency, "SHARD", 16)
    given = context(tmp_path, stage=SALIENCY, before=before.parent / "finetuned")
    computed: list[int] = []

    def counted(models: object, rows: Rows, **options: Any) -> list[list[float]]:
        computed.append(len(rows))
        return saliency_of(cast(Any, models), rows, **options)

    monkeypatch.setattr(saliency, "saliency_of", counted)
    with pytest.raises(KilledError):
        SALIENCY.train(replace(given, watch=killing(16 * shards)))
    done = len(computed)
    path = SALIENCY.train(given).beside[FILE]
    assert computed[done:] == [16, 16, 8][done:]
    assert pq.read_table(path)["example_id"].to_pylist() == [row["example_id"] for row in given.train]
    for own, whole in zip(with_saliency(given.train, path), with_saliency(given.train, before / FILE), strict=True):
        torch.testing.assert_close(own["saliency"], whole["saliency"])


def test_foreign_saliency_is_refused(tmp_path: Path, before: Path) -> None:
    """Maps that lack an example, are of other word pieces or another label, or are torn: one line with what to do."""
    rows = context(tmp_path).train
    with pytest.raises(InputError, match="no saliency map of example 'other-1'; extract saliency again, with --fresh"):
        with_saliency([{**rows[0], "example_id": "other-1"}], before / FILE)
    longer = {**rows[0], "input_ids": [*rows[0]["input_ids"], 5]}
    revised = {**rows[0], "input_ids": [*rows[0]["input_ids"][:-1], 5]}
    for other in (longer, revised, {**rows[0], "label": 1 - rows[0]["label"]}):
        with pytest.raises(InputError, match="'train-0' is of other word pieces or another label, so of another token"):
            with_saliency([other], before / FILE)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes((before / FILE).read_bytes()[:100])
    for path in (torn, tmp_path / "gone.parquet"):
        with pytest.raises(InputError, match=rf"{path.name} cannot be read \(\w+\); extract saliency again, with --fr"):
            with_saliency(rows, path)
    twice = tmp_path / FILE
    pq.write_table(pa.concat_tables([pq.read_table(before / FILE, schema=SCHEMA)] * 2), twice)
    with pytest.raises(InputError, match="several saliency maps of one example; give the training rows ids"):
        with_saliency(rows, twice)


def test_saliency_needs_the_epochs_that_were_kept(tmp_path: Path) -> None:
    """A fine-tuned model whose kept epochs are gone is one line."""
    (tmp_path / "finetuned" / "epochs").mkdir(parents=True)
    given = context(tmp_path / "extract", stage=SALIENCY, before=tmp_path / "finetuned")
    with pytest.raises(InputError, match="epochs has lost the epochs that fine-tuning kept; fine-tune again, with"):
        SALIENCY.train(given)


def test_extraction_keeps_its_memory(tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the rows, in as large shards, take no more memory at the peak: a shard's maps are let go."""

    def some(models: object, rows: Rows, **options: Any) -> list[list[float]]:
        return [torch.rand(512).tolist() for _ in rows]

    monkeypatch.setattr(saliency, "saliency_of", some)
    monkeypatch.setattr(saliency, "SHARD", 20)
    given = context(tmp_path, stage=SALIENCY, before=before.parent / "finetuned")
    peaks: list[int] = []
    for times in (1, 1, 4):  # the first one also imports and fills caches
        rows = [{**row, "example_id": f"{row['example_id']}-{n}"} for n in range(times) for row in given.train]
        tracemalloc.start()
        SALIENCY.train(replace(given, train=rows, folder=tmp_path / f"{len(peaks)}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]
    assert peaks[1] > 20 * 512 * 24  # of a shard: one float of each number of the maps


def test_the_released_sharpness_grows_tenfold() -> None:
    """In other numbers of epochs the release ends wherever tenfold steps lead, the correction at 100,000."""
    assert [sharpness(epoch, 4, Fidelity.RELEASED) for epoch in range(4)] == [10, 100, 1000, 10_000]
    assert [sharpness(epoch, 4) for epoch in range(4)] == pytest.approx([10, 215.443469, 4641.58883, 100_000])


@pytest.mark.parametrize(
    ("epochs", "by_hand"),
    [
        (5, [10, 100, 1000, 10_000, 100_000]),
        (3, [50, 2500, 125_000]),
        (10, [10, 30, 90, 270, 810, 2430, 7290, 21_870, 65_610, 196_830]),
        (1, [10]),
    ],
)
def test_removal_grows_sharper(epochs: int, by_hand: list[float]) -> None:
    """The released schedules for 3, 5 and 10 epochs."""
    assert [sharpness(epoch, epochs) for epoch in range(epochs)] == pytest.approx(by_hand)


def test_the_released_sharpness_lags() -> None:
    """As released, an epoch's first step has the sharpness of the epoch before, the very first one 1000."""
    options: dict[str, Value] = {"epochs": 5, "fidelity": "released"}
    moments = [Progress(epoch=0), Progress(epoch=0, batch=1), Progress(epoch=1), Progress(epoch=1, batch=1)]
    assert [sharpness_at(moment, options) for moment in moments] == pytest.approx([1000, 10, 10, 100])
    corrected = [sharpness_at(moment, {**options, "fidelity": "corrected"}) for moment in moments]
    assert corrected == pytest.approx([10, 10, 100, 100])


def test_thresholds_have_their_own_rate(tmp_path: Path) -> None:
    """eta and theta are in groups of their own, without decay, and every parameter is in one group."""
    model = with_contribution(context(tmp_path, stage=ADAPLER).model, 6)
    rates = {"contribution.eta": 0.5, "contribution.theta": 0.25}
    groups = parameter_groups(model, 0.01, rates)
    assert [group.get("lr") for group in groups] == [None, None, 0.5, 0.25]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.0, 0.0]
    places = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(places) == sorted(id(parameter) for parameter in model.parameters())
    assert groups[2]["params"][0] is model.contributions().eta


@pytest.mark.parametrize("rate", [0.0, 0.125])
def test_predictors_may_have_their_own_rate(tmp_path: Path, rate: float) -> None:
    """Asked for, every parameter of a predictor has it and nothing else does; thresholds keep theirs."""
    model = with_contribution(context(tmp_path, stage=ADAPLER).model, 6)
    rates = learning_rates(model, {"threshold_rate": 0.5, "predictor_rate": rate})
    predictors = {
        name for name, _ in model.contributions().predictors.named_parameters(prefix="contribution.predictors")
    }
    assert len(predictors) == 8
    assert {name for name, own in rates.items() if own == 0.5} == {"contribution.eta", "contribution.theta"}
    assert {name for name, own in rates.items() if own != 0.5} == (predictors if rate else set())
    assert set(rates) <= {name for name, _ in model.named_parameters()}


def test_epochs_are_ranked_by_speed_within_a_point(
    tmp_path: Path, before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing less than a point ranks by speed-up; below that every epoch ranks behind, by its score; NaN last."""
    given = given_context(tmp_path, before)
    ranks: list[float] = []

    scores = iter([0.9, 0.95, 0.891, 0.889, 0.5, math.nan])  # the fine-tuned model's, then the epochs'

    def judged_by_hand(model: object, context: Context, policy: Policy) -> Verdict:
        return Verdict(score=next(scores, 0.0), speedup=1.5, profile=(1.0, 0.5))

    def note(context: Context, recipe: Recipe) -> Trained:
        ranks.extend(recipe.rank(context.model, 0.0) for _ in range(5))
        return Trained(context.model)

    monkeypatch.setattr(stage, "measure_heldout", judged_by_hand)
    monkeypatch.setattr(stage, "train", note)
    model = ADAPLER.train(given).model
    assert ranks[:4] == [1.5, 1.5, 0.889 - 10, 0.5 - 10]
    assert math.isnan(ranks[4])
    assert model.config.length_profile == [1.0, 0.5]


def test_judging_is_a_ratio_of_sums(tmp_path: Path) -> None:
    """Without a policy the speed-up is 1; with one it is the ratio of summed FLOPs, beside score and kept tokens."""
    given = context(tmp_path, stage=ADAPLER)
    model = tiny_model("four_heads", classes=2)
    assert measure_heldout(model, given, Policy()).speedup == 1.0
    found = measure_heldout(model, given, contribution_policy(model.contributions()))
    batch = Batch.of(collate(given.heldout, pad_token_id=0))
    with torch.inference_mode():
        output = run(model, batch, contribution_policy(model.contributions()))
    trace = output.trace
    spent = trace_flops(trace, model.config).sum() / full_flops(trace.length, model.config).sum()
    assert found.speedup == pytest.approx(1 / float(spent))
    assert found.profile == pytest.approx((trace.tokens.sum(0) / trace.length.sum()).tolist())
    labels = torch.tensor([row["label"] for row in given.heldout])
    assert found.score == given.score(labels, output.logits)
