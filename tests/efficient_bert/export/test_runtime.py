"""`bench export` and the runtime: a folder that answers as the model does, anywhere, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement

from bench.data.loading import encode
from bench.data.windows import windows
from bench.registry import METHODS, METRICS
from bench.runs.export import export as make_export
from bench.runs.export import find_source, measured_lines
from bench.store.artifacts import ArtifactStore
from bench.store.runs import RunStore
from efficient_bert import Batch, run
from efficient_bert import runtime as runtime_module
from efficient_bert.runtime import ExportError, Model, load, seal_of, spans
from tests.support.command_line import Answer, call
from tests.support.tiny_files import write_backbone, write_sst2

TEXTS = (
    "the film was fine",
    "dull [SEP] plot [CLS] [MASK] and [PAD] poor [UNK]",
    "",
    "  the\tcast  ",
    "unheard wörds ☃ " + "good bad " * 40,
)
NEEDED = ("onnxruntime", "tokenizers", "numpy")
"""What an exported folder needs, as its README says."""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that has what an exported folder needs, and what that needs, alone."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in requirements(NEEDED):
        for file in metadata.files(name) or ():
            top, source = file.parts[0], Path(str(metadata.distribution(name).locate_file("")))
            if top != ".." and not (packages / top).exists():
                (packages / top).symlink_to(source / top)
    return folder / "bin" / "python"


def requirements(names: Iterable[str]) -> set[str]:
    """The names of these distributions and of all that they require here, without extras."""
    known: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            wanted = map(Requirement, metadata.requires(name) or ())
            waiting += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return known


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with runs of an exit method on a small backbone."""
    folder = tmp_path_factory.mktemp("exports")
    write_backbone(folder / "bert")
    write_sst2(folder / "SST-2", train=60, dev=12)
    places = ("--data-dir", folder, "--backbone", folder / "bert", "--store", folder, "--report", folder / "report")
    small = ("--preset", "smoke", "--device", "cpu", "--max-length", 32)
    answer = call("run", "--task", "sst2", "--method", "entropy_exit", "--exit-threshold", 0.6, *places, *small)
    assert answer.code == 0, answer.err
    return folder


def run_id_of(store: Path, method: str) -> str:
    """The run of a method."""
    runs = RunStore(store / "runs")
    return next(run_id for run_id in runs.ids() if runs.record(run_id).method == method)


def export(store: Path, out: Path, *more: object) -> Answer:
    """`bench export` of the exit method's run."""
    return call("export", run_id_of(store, "entropy_exit"), "--store", store, "--out", out, *more)


@pytest.fixture(scope="module")
def exported(store: Path) -> Path:
    """The exported folder of the exit method's run."""
    answer = export(store, store / "exported")
    assert answer.code == 0, answer.err
    return store / "exported"


def test_the_runtime_answers_as_the_model(store: Path, exported: Path) -> None:
    """Word pieces as the harness cuts them, special tokens as text, and the same logits, exits and probabilities."""
    import datasets

    from bench.backbones.resolving import resolve, tokenizer

    record = RunStore(store / "runs").record(run_id_of(store, "entropy_exit"))
    name = list(record.artifacts.values())[-1]
    model = ArtifactStore(store / "artifacts").load(name)
    policy = METHODS["entropy_exit"].policy(model, dict(record.knobs))
    rows = datasets.Dataset.from_dict(
        {"example_id": list(map(str, range(len(TEXTS)))), "text": list(TEXTS), "label": [0] * len(TEXTS)}
    )
    encoded = encode(rows, tokenizer(resolve(str(store / "bert"))), max_length=32)
    ready = load(exported)
    for text, row in zip(TEXTS, encoded.to_list(), strict=True):
        assert ready.encode(text) == [(row["input_ids"], row["token_type_ids"])]
        ids = torch.tensor([row["input_ids"]])
        with torch.inference_mode():
            output = run(model, Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids)), policy)
        answer = ready(text)
        assert np.abs(answer.logits - output.logits[0].numpy()).max() < 1e-4
        assert answer.tokens == tuple(output.trace.tokens[0].tolist())
        assert answer.widths == tuple(output.trace.heads[0].tolist())
        assert answer.layers == int((output.trace.tokens[0] > 0).sum())
        assert list(answer.probabilities) == ["negative", "positive"]
        assert answer.label == max(answer.probabilities, key=lambda label: answer.probabilities[label])
        assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_workers_and_threads(exported: Path) -> None:
    """Several at once answer as one by one, in order; threads are those that were set."""
    ready = load(exported, threads=1)
    alone = [ready(text) for text in TEXTS]
    for workers in (1, 3):
        together = ready.batch(TEXTS * 3, workers=workers)
        assert [answer.logits.tolist() for answer in together] == [answer.logits.tolist() for answer in alone * 3]
    assert ready.threads == 1
    assert load(exported, threads=2).threads == 2
    with pytest.raises(ExportError, match="threads is 0"):
        load(exported, threads=0)
    with pytest.raises(ExportError, match="workers is 0"):
        ready.batch(TEXTS, workers=0)


def test_a_moved_folder_runs_without_torch(exported: Path, bare_python: Path, tmp_path: Path) -> None:
    """The example runs from another path, in an environment that has neither torch, transformers nor this project."""
    moved = tmp_path / "else where"
    shutil.copytree(exported, moved)

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(bare_python), "-E", "-s", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    for absent in ("torch", "transformers", "onnx", "efficient_bert", "bench"):
        assert f"No module named '{absent}'" in ask("-c", f"import {absent}").stderr
    done = ask(str(moved / "example.py"), "the film was fine")
    assert done.returncode == 0, done.stderr
    assert f"answer         {load(exported)('the film was fine').label}" in done.stdout


def test_what_the_folder_says(store: Path, exported: Path) -> None:
    """The manifest names method, knobs and versions; the card has the run's numbers and its machine."""
    record = RunStore(store / "runs").record(run_id_of(store, "entropy_exit"))
    manifest = load(exported).manifest
    assert (manifest["method"], manifest["knobs"]) == ("entropy_exit", dict(record.knobs))
    assert (manifest["run"], manifest["labels"], manifest["pair"]) == (record.run_id, ["negative", "positive"], False)
    assert {path.name for path in exported.iterdir()} == {*manifest["digests"], "manifest.json"}
    card = (exported / "README.md").read_text(encoding="utf8")
    assert record.environment["device_name"] in card
    assert f"| {record.metrics['accuracy'] * 100:.1f}" in card or f"| {record.metrics['accuracy']:.3f}" in card
    assert "not of this folder" in card


def test_int8_of_a_model_folder(store: Path, tmp_path: Path) -> None:
    """A trained model is exported with a method and knobs; without a run the card has no numbers; it is smaller."""
    (model,) = (store / "artifacts").glob("exits-*")
    answer = call(
        *("export", model, "--method", "patience_exit", "--knob", "patience=1", "--precision", "int8"),
        *("--out", tmp_path / "small"),
    )
    if answer.code:  # a model of two layers has one exit
        assert "nobody could leave" in answer.err
    made = call("export", model, "--method", "entropy_exit", "--precision", "int8", "--out", tmp_path / "int8")
    assert made.code == 0, made.err
    assert "Nothing: the model was exported by its folder" in (tmp_path / "int8" / "README.md").read_text("utf8")
    ready = load(tmp_path / "int8")
    assert ready.manifest["precision"] == "int8"
    assert ready("a fine film").label in ready.manifest["labels"]


def damage(folder: Path, name: str) -> None:
    """Flip a byte in the middle of a file."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content))


def rewrite(folder: Path, **changes: object) -> None:
    """Change a manifest as its maker would."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text("utf8")), **changes}
    path.write_text(json.dumps({**manifest, "seal": seal_of(manifest)}), encoding="utf8")


def test_folders_that_are_refused(exported: Path, tmp_path: Path) -> None:
    """A wrong folder, a damaged or missing file and another version are one line each."""

    def refusal() -> str:
        with pytest.raises(ExportError) as caught:
            load(tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(exported, tmp_path / "copy")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "holds no manifest.json; give a folder that bench export wrote" in refusal()
    for name in ("model.onnx", "tokenizer.json", "README.md"):
        damage(tmp_path / "copy", name)
        assert f"{name} is damaged" in refusal()
    (tmp_path / "copy" / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refusal()
    (tmp_path / "copy" / "manifest.json").write_text("{", encoding="utf8")
    assert "it is no JSON" in refusal()
    (tmp_path / "copy" / "manifest.json").write_text("[]", encoding="utf8")
    assert "not that of an exported model" in refusal()
    text = (tmp_path / "copy" / "manifest.json").read_text("utf8")
    (tmp_path / "copy" / "manifest.json").write_text(text.replace("negative", "positive"), encoding="utf8")
    assert "its content is not what its seal is of" in refusal()
    rewrite(tmp_path / "copy", format=99)
    assert "has format 99, but this runtime reads format 1" in refusal()


def test_another_opset_is_refused(exported: Path, tmp_path: Path) -> None:
    """A graph that this onnxruntime cannot run is one line with both versions."""
    import hashlib

    import onnx

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    graph = onnx.load(copy / "model.onnx")
    graph.opset_import[0].version = 999
    onnx.save(graph, copy / "model.onnx")
    digests = json.loads((copy / "manifest.json").read_text("utf8"))["digests"]
    digests["model.onnx"] = hashlib.sha256((copy / "model.onnx").read_bytes()).hexdigest()
    rewrite(copy, digests=digests, opset=999)
    with pytest.raises(ExportError, match=r"cannot run .*opset 999.*install that version") as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_texts_that_are_refused(exported: Path) -> None:
    """A list, a number and a pair for a model of single texts are one line each."""
    ready = load(exported)
    for wrong in (["a", "b"], 3, ("a", 2)):
        with pytest.raises(ExportError, match="an example is a text or a pair"):
            ready(wrong)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="trained on single texts"):
        ready(("a", "b"))


def test_pairs_and_windows_are_cut_as_in_the_harness(exported: Path, store: Path) -> None:
    """A pair loses pieces of its longer text; a text in windows is cut between words; its answer is the mean."""
    from bench.backbones.resolving import resolve, tokenizer

    cutter = tokenizer(resolve(str(store / "bert")))
    plain = load(exported)
    pair = Model(plain._session, plain._tokenizer, {**plain.manifest, "pair": True})
    texts = ("the film " * 30, "was fine")
    pieces = cutter(*texts, max_length=32, truncation="longest_first", return_token_type_ids=True)
    assert pair.encode(texts) == [(pieces["input_ids"], pieces["token_type_ids"])]
    reader = Model(plain._session, plain._tokenizer, {**plain.manifest, "windows": True, "max_length": 10})
    text = "the film unheard wördily good " * 6
    wanted = windows({"example_id": ["x"], "text": [text], "label": [0]}, cutter, max_length=10)
    assert reader.encode(text) == [(row["input_ids"], row["token_type_ids"]) for row in wanted]
    answer = reader(text)
    shares = [part.probabilities["positive"] for part in answer.windows]
    assert len(shares) > 1
    assert answer.probabilities["positive"] == pytest.approx(np.mean(shares))
    assert answer.tokens[0] == sum(part.tokens[0] for part in answer.windows)
    assert spans([], 4) == [(0, 0)]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nothing",), "is no run in"),
        ((), "takes the id of a run"),
        (("RUN", "--method", "full"), "has its method and knobs"),
        (("entropy_exit-typo",), "no folder of a trained model"),
        (("PACK",), "is a pack, and packs hold no models"),
        (("RUN_IN_PACK", "--store", "PACK"), "is a pack, and packs hold no models"),
        (("MODEL",), "give --method"),
        (("MODEL", "--method", "full", "--knob", "x=1"), "full has no knob 'x'"),
        (("MODEL", "--method", "full", "--knob", "x"), "takes NAME=VALUE"),
        (("MODEL", "--method", "adapler"), "no contribution predictors"),
    ],
)
def test_what_cannot_be_exported_is_refused(store: Path, tmp_path: Path, arguments: tuple[str, ...], part: str) -> None:
    """One line, exit code 2, and nothing is left behind."""
    (model,) = (store / "artifacts").glob("finetune-*")
    known = {"RUN": run_id_of(store, "full"), "MODEL": model, "PACK": store / "pack", "RUN_IN_PACK": "full"}
    if "PACK" in arguments:
        assert call("pack", store, "--out", store / "pack").code == 0
    answer = call("export", "--store", store, *(known.get(word, word) for word in arguments), "--out", tmp_path / "x")
    assert (answer.code, answer.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, []), answer.err
    assert part in answer.err


def test_a_mistyped_run_is_told_the_nearest(store: Path, tmp_path: Path) -> None:
    """The run that was meant goes first; without --store it is told of none."""
    wanted = run_id_of(store, "entropy_exit")
    answer = call("export", f"{wanted[:-1]}?", "--store", store, "--out", tmp_path / "x")
    assert (answer.code, f"the nearest runs there are: {wanted}, " in answer.err) == (2, True)
    assert "there are: none yet" in call("export", wanted, "--store", tmp_path, "--out", tmp_path / "x").err


def test_the_folder_of_a_run_is_the_run(store: Path) -> None:
    """By its path a run is known with its store, wherever the command is given."""
    wanted = run_id_of(store, "entropy_exit")
    by_folder = find_source(str(store / "runs" / wanted), store=Path("elsewhere"), method=None, knobs={})
    assert by_folder == find_source(wanted, store=store, method=None, knobs={})


def test_what_the_card_and_the_example_say_in_python(exported: Path, tmp_path: Path) -> None:
    """The card's lines run anywhere and answer; the example tells of damage in one line and exits with 2."""
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    lines = (copy / "README.md").read_text("utf8").partition("```python\n")[2].partition("```")[0]
    program = [sys.executable, "-c", lines.replace("FOLDER", str(copy))]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split()[0] == load(exported)("a film that is a joy from start to end").label
    damage(copy, "tokenizer.json")
    done = subprocess.run([sys.executable, copy / "example.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "tokenizer.json is damaged" in done.stderr


def test_the_card_marks_times_of_a_busy_machine_and_tells_of_a_trial(store: Path) -> None:
    """Times of a marked session have the star and one line why, others nothing; a smoke run says that it is one."""
    source = find_source(run_id_of(store, "entropy_exit"), store=store, method=None, knobs={})
    assert source.record is not None
    for reasons in ([], ["others used 0.9 cores"]):
        timing = {**source.record.timing, "disturbed_by": reasons}
        card = list(measured_lines(replace(source, record=replace(source.record, timing=timing)), "fp32"))
        starred = {line.split("|")[1] for line in card if line.endswith(r"\* |")}
        assert starred == {f" {m.summary} " for m in METRICS.values() if m.timed and m.headline and reasons}
        assert [line for line in card if line.startswith(r"\* ")] == [
            rf"\* of a busy or unsteady machine, not to be trusted: {reason}." for reason in reasons
        ]
        assert card[0] == "Preset smoke trains on a few dozen rows, to try the commands: its numbers mean nothing."
    quick = list(measured_lines(replace(source, record=replace(source.record, preset="quick")), "fp32"))
    assert quick[0].startswith("Run ")


def test_a_folder_that_is_there_is_kept(store: Path, exported: Path) -> None:
    """An export replaces nothing."""
    before = (exported / "manifest.json").read_bytes()
    answer = export(store, exported)
    assert (answer.code, "is already there" in answer.err) == (2, True)
    assert (exported / "manifest.json").read_bytes() == before


def test_a_failure_leaves_nothing(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that could not be finished is not there, and no part of it."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("bench.runs.export.write_manifest", fail)
    assert export(store, tmp_path / "out").code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_imports_nothing_of_ours() -> None:
    """The file that is copied stands alone."""
    assert runtime_module.__file__ is not None
    source = Path(runtime_module.__file__).read_text(encoding="utf8")
    assert "from efficient_bert" not in source
    assert "import torch" not in source


def test_a_run_of_the_graph_is_exported_as_it_was_measured(store: Path, tmp_path: Path) -> None:
    """The precision is the run's where none is given, and the card says that its numbers are the graph's."""
    source = find_source(run_id_of(store, "entropy_exit"), store=store, method=None, knobs={})
    assert source.record is not None
    in_int8 = replace(source, record=replace(source.record, backend="onnxruntime-int8"))
    for given, precision, whose in ((None, "int8", "of this graph on"), ("fp32", "fp32", "not of this folder")):
        folder = make_export(in_int8, tmp_path / precision, precision=given)
        assert load(folder).manifest["precision"] == precision
        card = (folder / "README.md").read_text(encoding="utf8")
        assert whose in card
        assert ("7 bits" in card) == (precision == "int8")
