"""`bench rationales` from training to page: files that the scorer accepts, a table that agrees with it, safe pages."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.rationales.overview import read_points
from analysis.rationales.page import Comparison, claims, facts, write_page
from bench.backends.runners import load_models, make_runner
from bench.errors import InputError
from bench.planning.plan import Plan, make_plan
from bench.planning.settings import Settings
from bench.progress import Bars
from bench.rationales import metrics as rationale_metrics
from bench.rationales.command import (
    METHODS,
    RationaleSettings,
    compare_rationales,
    eraser_split,
    settings_of_models,
)
from bench.rationales.documents import Reader, documents_of, explanations
from bench.rationales.explained_model import model_identity
from bench.rationales.files import AVERAGE, OVERVIEW, SUMMARY, require_replaceable, summary_in
from bench.rationales.gold import read_gold
from bench.rationales.overview import pool_comparisons
from bench.rationales.parts_of_speech import parts_of_speech
from bench.runs.evaluation import evaluate
from eraser_eval.scoring import validate
from tests.support.command_line import call
from tests.support.tiny_files import write_backbone

LAYERS = 2
OFFICIAL = {
    "mean_average_precision": ("agreement", "mean_average_precision"),
    "fpr": ("agreement", "fpr_mean_over_documents"),
    "auprc": ("corrected", "token_soft_metrics", "auprc"),
    "token_f1": ("token_prf", "instance_macro", "f1"),
    "iou_f1": ("iou_scores", 0, "macro", "f1"),
    "comprehensiveness": ("classification_scores", "comprehensiveness"),
    "sufficiency": ("classification_scores", "sufficiency"),
    "comprehensiveness_aopc": ("classification_scores", "comprehensiveness_aopc"),
    "sufficiency_aopc": ("classification_scores", "sufficiency_aopc"),
}
"""Column of the table -> place in what `eraser_eval` reports."""


def lines(path: Path) -> list[Any]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A tiny model's plan, whose predictors drop some tokens: eta times 4 is nearly an equal share."""
    root = tmp_path_factory.mktemp("rationales")
    backbone = write_backbone(root / "backbone")
    knobs = {"eta_scale": (4.0,)}
    settings = Settings("demo", preset="smoke", backbone=str(backbone), store=root, max_length=40, knobs=knobs)
    return make_plan(settings_of_models(settings))


@pytest.fixture(scope="module")
def out(plan: Plan) -> Path:
    """The folder of a comparison of all methods on twelve documents, with its page."""
    folder = plan.settings.store / "out"
    compare_rationales([plan], RationaleSettings(METHODS, "test", folder, limit=12), Bars())
    write_page(folder)
    return folder


def test_every_file_is_valid_and_scored_as_the_table_says(out: Path) -> None:
    """The scorer accepts each prediction file, and the table has its numbers."""
    table = pd.read_parquet(out / "table.parquet").set_index(["method", "layer", "metric"])["value"]
    for method in METHODS:
        for layer in range(LAYERS):
            name = f"{method}-layer{layer}"
            found = validate(out / "gold", splits=["test"], predictions=out / "predictions" / f"{name}.jsonl")
            assert found["predictions"] == 12
            report = json.loads((out / "scores" / f"{name}.json").read_text(encoding="utf8"))
            for metric, place in OFFICIAL.items():
                value = report
                for step in place:
                    value = value[step]
                assert table[method, layer, metric] == pytest.approx(value, rel=1e-9, abs=1e-12), (name, metric)


def test_equal_numbers_are_selected(out: Path) -> None:
    """Every method selects as many tokens of each document as AdapLeR keeps there, and AdapLeR drops some."""
    documents = pd.read_parquet(out / "documents.parquet")
    counts = documents.pivot_table(index=["annotation_id", "layer"], columns="method", values="token_predicted")
    assert (counts.nunique(axis=1) == 1).all()
    assert 0 < counts["adapler"].sum() < documents[documents["method"] == "adapler"]["n_tokens"].sum()


def test_false_positives_at_equal_numbers(out: Path) -> None:
    """fpr_equal is the share of unmarked tokens inside the predicted spans, counted from the files themselves."""
    gold = {row["annotation_id"]: row for row in lines(out / "gold" / "test.jsonl")}
    sizes = {row["docid"]: len(row["document"].split()) for row in lines(out / "gold" / "docs.jsonl")}
    rates = []
    for line in lines(out / "predictions" / "attention-layer0.jsonl"):
        name = line["annotation_id"]
        spans = [span for group in gold[name]["evidences"] for span in group]
        marked = {place for span in spans for place in range(span["start_token"], span["end_token"])}
        hard = line["rationales"][0]["hard_rationale_predictions"]
        chosen = {place for span in hard for place in range(span["start_token"], span["end_token"])}
        rates.append(len(chosen - marked) / (sizes[name] - len(marked)))
    table = pd.read_parquet(out / "table.parquet").set_index(["method", "layer", "metric"])["value"]
    assert table["attention", 0, "fpr_equal"] == pytest.approx(np.mean(rates))


def test_the_page_says_what_was_found(out: Path) -> None:
    """Every method, the claims, the figures and the documents are on the page, which asks for nothing outside."""
    page = (out / "index.html").read_text(encoding="utf8")
    found = Comparison.read(out)
    assert all(f'<th scope="row">{method}</th>' in page for method in METHODS)
    assert len(claims(found)) == len(METHODS) - 1
    assert page.count("<figure") == 6
    assert page.count("<li data-error=") == 12
    assert 'class="hit"' in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert page.count("<mark") > 20


def test_a_sensitive_task_shows_numbers_only(plan: Plan, out: Path, tmp_path: Path) -> None:
    """No token of a sensitive task is in any file or on the page unless it is asked for."""
    hidden = replace(plan, task=replace(plan.task, sensitive=True))
    settings = RationaleSettings(("adapler", "random"), "test", tmp_path / "out", limit=6, erased="none")
    compare_rationales([hidden], settings, Bars())
    write_page(settings.out)
    documents = [row["document"] for row in lines(out / "gold" / "docs.jsonl")]
    words = {word for text in documents for word in text.split() if len(word) > 8}
    assert words
    for path in settings.out.rglob("*"):
        if path.suffix in {".html", ".json", ".jsonl", ".csv"}:
            text = path.read_text(encoding="utf8")
            assert not [word for word in words if f" {word} " in text], path
    assert (pd.read_parquet(settings.out / "words.parquet")["word"] == "").all()
    assert not (settings.out / "gold").exists()
    assert "Numbers only" in (settings.out / "index.html").read_text(encoding="utf8")
    compare_rationales([hidden], replace(settings, show_text=True), Bars())
    write_page(settings.out)
    assert "<mark" in (settings.out / "index.html").read_text(encoding="utf8")


def test_texts_are_escaped(out: Path, tmp_path: Path) -> None:
    """A token that is HTML shows as text."""
    for path in out.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    shown = (tmp_path / "shown.jsonl").read_text(encoding="utf8").splitlines()
    first = json.loads(shown[0])
    first["tokens"][0] = "<img src=x onerror=alert(1)>"
    words = pd.read_parquet(tmp_path / "words.parquet")
    words["word"] = words["word"].replace(dict.fromkeys(words["word"].unique()[:40], "<b>bold</b>"))
    words.to_parquet(tmp_path / "words.parquet")
    (tmp_path / "shown.jsonl").write_text("\n".join([json.dumps(first), *shown[1:]]), encoding="utf8")
    with pytest.raises(InputError, match=r"words\.parquet is damaged"):
        write_page(tmp_path)
    summary = json.loads((tmp_path / SUMMARY).read_text(encoding="utf8"))
    del summary["digests"]  # as in one of an earlier version
    (tmp_path / SUMMARY).write_text(json.dumps(summary), encoding="utf8")
    page = write_page(tmp_path).read_text(encoding="utf8")
    assert "&lt;img src=x" in page
    assert "<img" not in page
    assert "<b>bold" not in page


def test_the_command_finds_what_is_trained(plan: Plan, out: Path, tmp_path: Path) -> None:
    """`bench rationales` trains nothing anew, prints the table and names the page."""
    answer = call(
        *("rationales", "--task", "demo", "--preset", "smoke", "--backbone", plan.settings.backbone),
        *("--store", plan.settings.store, "--max-length", 40, "--eta-scale", 4.0, "--limit", 3),
        *("--methods", "adapler,saliency", "--faithfulness", "none", "--precision", "bf16", "--out", tmp_path / "out"),
    )
    assert answer.code == 0, answer.err
    assert "bfloat16 for gradients and erased texts" in " ".join(answer.out.split())
    assert "stage     adapler: cached" in answer.out
    assert "time      nothing to train" in answer.out.splitlines()
    assert "Against saliency" in answer.out
    assert str(tmp_path / "out" / "index.html") in answer.out.replace("\n", "")
    assert "train" not in answer.err
    assert "comprehensiveness" not in (tmp_path / "out" / "table.csv").read_text(encoding="utf8")
    page = (tmp_path / "out" / "index.html").read_bytes()
    report = call("report", tmp_path / "out", "--out", tmp_path / "report", "--markdown")
    assert report.code == 0, report.err
    assert "Against saliency" in report.out
    refused = call("report", tmp_path / "out", "--out", tmp_path / "out")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert (tmp_path / "out" / "index.html").read_bytes() == page


def test_the_last_layer_alone_may_be_erased(plan: Plan, out: Path, tmp_path: Path) -> None:
    """Faithfulness is then of the last layer, as in a comparison that erases in all of them, and the page says so."""
    settings = RationaleSettings(METHODS, "test", tmp_path / "out", limit=12, erased="last")
    compare_rationales([plan], settings, Bars())
    write_page(settings.out)
    own, whole = (pd.read_parquet(folder / "table.parquet") for folder in (settings.out, out))
    erased = {"comprehensiveness", "sufficiency", "comprehensiveness_aopc", "sufficiency_aopc"}
    found = own[own["metric"].isin(erased) & own["value"].notna()]
    last = whole["layer"].max()
    assert set(found["metric"]) == erased
    assert set(found["layer"]) == {last, AVERAGE}
    expected = whole[whole["metric"].isin(erased) & (whole["layer"] == last)]
    pd.testing.assert_frame_equal(found[found["layer"] == last].reset_index(drop=True), expected.reset_index(drop=True))
    average = found[found["layer"] == AVERAGE].set_index(["metric", "method"])["value"]
    pd.testing.assert_series_equal(average, expected.set_index(["metric", "method"])["value"], check_like=True)
    page = (settings.out / "index.html").read_text(encoding="utf8")
    assert "the rationales of the last layer alone" in page
    assert "bfloat16" not in page


def test_points_are_put_together(plan: Plan, out: Path, tmp_path: Path) -> None:
    """Two operating points have a folder each and one page; the slower is first; a second call explains nothing.

    What the folder held of one comparison, its texts among it, is gone.
    """
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    assert (folder / "shown.jsonl").is_file()
    command = (
        *("rationales", "--task", "demo", "--preset", "smoke", "--backbone", plan.settings.backbone),
        *("--store", plan.settings.store, "--max-length", 40, "--eta-scale", "4.0,1.0", "--limit", 3),
        *("--methods", "adapler,saliency,human", "--faithfulness", "none", "--out", folder),
    )
    answer = call(*command)
    assert answer.code == 0, answer.err
    assert not {path.name for path in folder.iterdir()} & {"summary.json", "shown.jsonl", "gold", "words.parquet"}
    points = read_points(folder)
    assert [point.agreement.summary["knobs"]["eta_scale"] for point in points] == [1.0, 4.0]
    slow, fast = (point.agreement for point in points)
    assert slow.summary["speedup"] < fast.summary["speedup"]
    for point in points:
        (name,) = point.agreement.summary["folders"]
        own = pd.read_csv(folder / name / "table.csv")
        pd.testing.assert_frame_equal(point.agreement.table.reset_index(drop=True), own)
    page = (folder / "index.html").read_text(encoding="utf8")
    assert "Rationale quality against speed-up" in page
    assert page.count("<figure") == 3 * 4
    assert all(f'href="{point.agreement.summary["folders"][0]}/index.html"' in page for point in points)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")}
    again = call(*command)
    assert (again.code, again.out) == (0, answer.out)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")} == written
    assert call(*command, "--fresh").code == 0
    assert all(path.stat().st_mtime_ns > then for path, then in written.items())
    (tmp_path / "stored").mkdir()
    for name in ("overview.json", "points.parquet"):
        (tmp_path / "stored" / name).write_bytes((folder / name).read_bytes())
    report = call("report", tmp_path / "stored", "--out", tmp_path / "report", "--markdown")
    assert report.code == 0, report.err
    assert "| point | method | mean\\_average\\_precision |" in report.out
    assert "- -" not in report.out
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf8")
    links = [link for link in re.findall(r'href="([^"#]+)"', page) if not link.startswith("data:")]
    assert links
    assert all((tmp_path / "report" / link).is_file() for link in links)
    redrawn = call("report", tmp_path / "stored", "--out", tmp_path / "report")
    assert redrawn.code == 0, redrawn.err
    for options, message in (
        (("--task", "sst2", "--out", tmp_path / "report"), "leave it out"),
        (("--out", plan.settings.store), "report"),
    ):
        refused = call("report", tmp_path / "stored", *options)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert message in refused.err


def test_seeds_are_put_together(plan: Plan, tmp_path: Path) -> None:
    """Two seeds of one point are one row whose numbers are their means; an unfinished comparison is refused."""
    other = make_plan(replace(plan.settings, seed=1))
    settings = RationaleSettings(("adapler", "random"), "test", tmp_path / "out", limit=3, erased="none")
    folders = compare_rationales([plan, other], settings, Bars())
    assert [folder.name.rpartition("-")[2] for folder in folders] == ["0", "1"]
    pool_comparisons(folders, settings.out)
    ((point,), summaries) = read_points(settings.out), [summary_in(folder) for folder in folders]
    pooled = point.agreement.summary
    assert pooled["seeds"] == [0, 1]
    assert pooled["speedup"] == pytest.approx(np.mean([own["speedup"] for own in summaries]))
    assert pooled["kept"] == pytest.approx(np.mean([own["kept"] for own in summaries], axis=0))
    for name in ("fine-tuned", "adapler"):
        assert pooled["accuracy"][name] == pytest.approx(np.mean([own["accuracy"][name] for own in summaries]))
    values = [pd.read_csv(folder / "table.csv")["value"] for folder in folders]
    np.testing.assert_allclose(point.agreement.table["value"], sum(values) / 2, rtol=1e-9)
    compare_rationales([plan], settings, Bars())
    assert not (settings.out / OVERVIEW).exists()
    with pytest.raises(InputError, match="no finished comparison"):
        pool_comparisons([tmp_path], tmp_path)
    with pytest.raises(InputError, match="several seeds or points"):
        read_points(tmp_path)


def test_seeds_that_share_a_fine_tuned_model_ask_it_once(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a method says of one fine-tuned model holds for every seed that starts from it; the page names its seed."""
    settings = RationaleSettings(("adapler", "saliency"), "test", tmp_path / "out", limit=3, erased="last")
    plans = [make_plan(replace(plan.settings, seed=seed, finetune_seed=0, store=tmp_path)) for seed in (0, 1)]
    explained: list[str] = []

    def counted(explainer: Any, *given: Any, **more: Any) -> Any:
        explained.append(explainer.name)
        return explanations(explainer, *given, **more)

    monkeypatch.setattr("bench.rationales.explained_model.explanations", counted)
    folders = compare_rationales(plans, settings, Bars())
    assert sorted(explained) == ["adapler", "adapler", "kept", "kept", "saliency"]
    found = [pd.read_parquet(folder / "documents.parquet").query("method == 'saliency'") for folder in folders]
    assert found[0]["average_precision"].tolist() == found[1]["average_precision"].tolist()
    (folders[1] / SUMMARY).unlink()
    compare_rationales(plans, settings, Bars())
    assert len(explained) == 5
    pool_comparisons(folders, settings.out)
    (point,) = read_points(settings.out)
    assert "seeds 0, 1, fine-tuned with seed 0" in dict(facts(point.agreement))["model"]


def test_a_model_that_was_trained_again_is_explained_again(plan: Plan, tmp_path: Path) -> None:
    """What is kept belongs to the weights: other weights under the same name are another model."""
    gold = read_gold(plan.task, "test", data_dir=None, limit=3)
    own = make_plan(replace(plan.settings, store=tmp_path))
    settings = RationaleSettings(("adapler", "saliency"), "test", tmp_path / "out", limit=3, erased="none")
    compare_rationales([own], settings, Bars())
    arm = own.arms[0]
    before = model_identity(own, arm, gold)
    model = own.artifacts.load(arm.job.id)
    torch.nn.init.zeros_(model.classifier.weight)
    model.save_pretrained(own.artifacts.folder(arm.job.id))
    path = own.artifacts.folder(arm.job.id) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf8"))
    del manifest["digests"]  # which are of the weights before
    path.write_text(json.dumps(manifest), encoding="utf8")
    assert model_identity(own, arm, gold) != before
    shelves = set((tmp_path / "explained").iterdir())
    (tmp_path / "out" / SUMMARY).unlink()
    compare_rationales([own], settings, Bars())
    assert len(set((tmp_path / "explained").iterdir()) - shelves) == 1


def test_the_speed_up_is_that_of_the_passes(plan: Plan, out: Path) -> None:
    """The FLOPs speed-up of a comparison is the ratio of the sums over its documents, each read by itself."""
    documents = documents_of(read_gold(plan.task, "test", data_dir=None, limit=12), plan.tokenizer)
    cls, sep = plan.tokenizer("")["input_ids"]
    reader = Reader(cls, sep, plan.max_length, plan.task.windows)
    models, spent = load_models(plan, plan.arms), []
    for arm in (plan.arms[0], plan.arms[-1]):
        runner = make_runner(plan, arm, models)
        rows = [
            {"example_id": each.docid, "input_ids": ids, "token_type_ids": [0] * len(ids), "label": 0}
            for each in documents
            for ids in reader.inputs(each)
        ]
        spent.append(sum(evaluate(runner, rows)["flops"].to_pylist()))
    summary = json.loads((out / "summary.json").read_text(encoding="utf8"))
    assert summary["speedup"] == pytest.approx(spent[0] / spent[1], rel=1e-12)
    assert summary["speedup"] > 1.01


def test_what_people_marked_is_the_upper_bound(out: Path) -> None:
    """With people's own marks as scores, no method ranks better or keeps fewer unmarked tokens of as many."""
    table = pd.read_parquet(out / "table.parquet").set_index(["method", "layer", "metric"])["value"]
    for layer in range(LAYERS):
        assert table["human", layer, "mean_average_precision"] == 1.0
        assert table["human", layer, "fpr"] == 0.0
        for method in METHODS:
            assert table["human", layer, "token_f1"] >= table[method, layer, "token_f1"]
            assert table["human", layer, "fpr_equal"] <= table[method, layer, "fpr_equal"]


def test_wrong_requests_are_one_line(tmp_path: Path) -> None:
    """An unknown method, a file in the way and a folder without results are refused."""
    with pytest.raises(InputError, match=r"no explainer is called 'salience'\. Did you mean 'saliency'"):
        RationaleSettings(("salience",), "test", tmp_path)
    (tmp_path / "file").write_text("", encoding="utf8")
    with pytest.raises(InputError, match="is a file"):
        RationaleSettings(("saliency",), "test", tmp_path / "file")
    with pytest.raises(InputError, match="no finished comparison"):
        write_page(tmp_path)
    assert eraser_split("demo", None) == "test"
    for options, message in (
        (("--task", "mnli"), "task 'mnli' carries no rationales"),
        (("--task", "demo", "--split", "validation"), "rationales come in the splits train, val, test"),
    ):
        answer = call("rationales", *options, "--out", tmp_path / "out")
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert message in answer.err


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "summary.json", "predictions/mine.csv", "scores/mine.txt", "gold/test.jsonl", "gold/mine.jsonl"),
        *("other/table.csv", "my-seed-1/notes.txt", "my-seed-1/summary.json"),
    ],
)
def test_a_folder_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    """One line before anything is trained, and nothing in the folder is touched."""
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("{}", encoding="utf8")
    settings = ("--task", "demo", "--preset", "smoke", "--store", tmp_path / "store")
    answer = call("rationales", *settings, "--out", out)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "name an empty or new folder" in answer.err
    assert (out / name).read_text(encoding="utf8") == "{}"
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("folder", [".", "gamma-0.1-seed-12"])
def test_an_earlier_comparison_is_replaced(folder: str, out: Path, tmp_path: Path) -> None:
    """A new or empty folder will do, and a comparison, alone or beside others, finished or killed at any file."""
    require_replaceable(tmp_path / "new")
    require_replaceable(tmp_path)
    place = tmp_path / "old" / folder
    shutil.copytree(out, place)
    (place / ".table.csv.71.part").touch()
    (place / "scores" / ".random-layer0.jsonl").touch()
    require_replaceable(tmp_path / "old")
    for name in ("summary.json", "shown.jsonl", "table.csv", "words.parquet", "predictions/random-layer1.jsonl"):
        (place / name).unlink()
        require_replaceable(tmp_path / "old")
    (place / "gold" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"gold holds 'mine.txt', which is no part of a comparison"):
        require_replaceable(tmp_path / "old")


def frame(method: str, rates: list[float]) -> pd.DataFrame:
    """Documents of one layer with these false-positive rates, and nothing else of interest."""
    columns = {"average_precision": np.nan, "auprc": np.nan, "n_tokens": 10, "n_rationale": 0, "reached_0": 0}
    columns |= dict.fromkeys(("token_predicted", "token_both", "token_gold", "span_gold", "span_predicted"), 0)
    names = [f"d{number}" for number in range(len(rates))]
    return pd.DataFrame({"method": method, "layer": 0, "annotation_id": names, "fpr": rates, **columns})


def test_differences_are_paired() -> None:
    """Documents that differ much among themselves, but alike between methods, give a narrow difference."""
    rates = np.linspace(0, 0.9, 40)
    documents = pd.concat([frame("adapler", rates.tolist()), frame("saliency", (rates + 0.05).tolist())[::-1]])
    table = rationale_metrics.metrics_table([documents], against="adapler")
    cells = {(row["method"], row["layer"], row["metric"]): row for row in table.to_dict("records")}
    cell = cells["saliency", 0, "fpr"]
    assert cell["value"] == pytest.approx(rates.mean() + 0.05)
    assert cell["high"] - cell["low"] > 0.1
    assert [cell["difference"], cell["difference_low"], cell["difference_high"]] == pytest.approx([0.05] * 3)
    assert cells["saliency", AVERAGE, "fpr"]["value"] == pytest.approx(cell["value"])
    assert np.isnan(cells["adapler", 0, "fpr"]["difference"])
    assert np.isnan(cells["adapler", 0, "mean_average_precision"]["value"])


def test_seeds_are_pooled() -> None:
    """A value is the mean over seeds; a difference that every document has in the mean has no width."""
    rates = np.linspace(0, 0.8, 40)
    seeds = [
        pd.concat([frame("adapler", rates.tolist()), frame("saliency", (rates + shift).tolist())])
        for shift in (0.1 * rates, 0.2 - 0.1 * rates)
    ]
    table = rationale_metrics.metrics_table(seeds, against="adapler")
    cells = {(row["method"], row["layer"], row["metric"]): row for row in table.to_dict("records")}
    cell = cells["saliency", 0, "fpr"]
    assert cell["value"] == pytest.approx(rates.mean() + 0.1)
    assert [cell["difference"], cell["difference_low"], cell["difference_high"]] == pytest.approx([0.1] * 3)
    assert cells["adapler", 0, "fpr"]["high"] - cells["adapler", 0, "fpr"]["low"] > 0.1


def test_intervals_are_those_of_the_mean() -> None:
    """The interval of a mean is close to the normal one."""
    rates = np.random.default_rng(0).random(200)
    table = rationale_metrics.metrics_table([frame("adapler", rates.tolist())], against="adapler")
    (cell,) = (row for row in table.to_dict("records") if (row["metric"], row["layer"]) == ("fpr", 0))
    half = 1.96 * rates.std() / np.sqrt(200)
    assert cell["low"] == pytest.approx(rates.mean() - half, abs=0.006)
    assert cell["high"] == pytest.approx(rates.mean() + half, abs=0.006)


def test_parts_of_speech() -> None:
    """A plain sentence is tagged as a reader would, capitals or not; what has no letter or digit is punctuation."""
    words = ["The", "film", "is", "n't", "about", "two", "funny", "brothers", "and", "--"]
    by_hand = ["determiner", "noun", "verb", "adverb", "preposition", "number", "adjective", "noun", "conjunction"]
    assert parts_of_speech(words) == [*by_hand, "punctuation"]
    assert parts_of_speech([]) == []
