"""Finished stages that are damaged: one line with the file and a remedy that can be taken, before anything trains."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.store.artifacts import ArtifactStore
from efficient_bert.training import Trained
from tests.bench.store.test_artifacts import EXITS_JOB, JOB
from tests.bench.store.test_stored_results import edit, flipped
from tests.support.command_line import call
from tests.support.tiny import tiny_model
from tests.support.tiny_files import write_backbone, write_sst2

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    """A store with a finished stage and one that came of it."""
    folder = tmp_path_factory.mktemp("whole")
    beside = folder / "epoch.safetensors"
    beside.write_bytes(b"an epoch")
    store = ArtifactStore(folder / "artifacts")
    for job in (JOB, EXITS_JOB):
        trained = Trained(tiny_model(), (0.5, 0.75), beside={"epochs/001.safetensors": beside})
        store.put(job, trained, save_tokenizer=lambda place: (place / "vocab.txt").write_text("[PAD]"))
    return store


def copied(whole: ArtifactStore, folder: Path, *, early: bool = False) -> ArtifactStore:
    """A store of one's own, as this version or, without digests and ids, an early one has written it."""
    shutil.copytree(whole.root, folder / "artifacts")
    store = ArtifactStore(folder / "artifacts")
    for name in store.ids() if early else ():
        edit(store.folder(name) / "manifest.json", lambda values: [values.pop("digests"), values.pop("id")])
    return store


def flip_last(path: Path) -> None:
    """Turn a bit of the last byte over."""
    flipped(path, -1)


def empty(path: Path) -> None:
    """Leave nothing in a file."""
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """Take the last bytes of a file away."""
    path.write_bytes(path.read_bytes()[:-16])


MANIFESTS: dict[str, tuple[Damage, str]] = {
    "empty": (lambda path: path.write_bytes(b""), "no JSON at line 1, column 1"),
    "latin": (lambda path: path.write_bytes(b'{"stage": "\xe4"}'), "byte 11 is not UTF-8"),
    "array": (lambda path: path.write_bytes(b"[1]"), "it holds a list of 1"),
    "deep": (lambda path: path.write_bytes(b"[" * 99_999), "nested too deeply"),
    "less": (lambda path: edit(path, lambda values: values.pop("history")), "it has no history"),
    "null": (lambda path: edit(path, lambda values: values.update(chain=None)), "chain is null"),
    "text": (lambda path: edit(path, lambda values: values.update(heldout_scores="0.5")), 'heldout_scores is "0.5"'),
    "score": (lambda path: edit(path, lambda values: values.update(heldout_scores=[None])), "heldout_scores.0 is null"),
    "after": (lambda path: edit(path, lambda values: values.update(after=7)), "after is 7"),
}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_is_damaged_names_itself(whole: ArtifactStore, tmp_path: Path, kind: str, early: bool) -> None:
    """The path and the fault are said, what else is there is still known, and --fresh can forget the stage."""
    store = copied(whole, tmp_path, early=early)
    damage, told = MANIFESTS[kind]
    path = store.folder(JOB.id) / "manifest.json"
    damage(path)
    with pytest.raises(InputError) as refused:
        store.load(JOB.id)
    assert str(refused.value).startswith(f"{path} is damaged: ")
    assert told in str(refused.value)
    assert JOB.id in store.ids_made_with([JOB.id])
    assert store.ids_made_with([EXITS_JOB.id]) == [EXITS_JOB.id]
    store.restart(JOB.id)
    assert list(store.ids()) == [EXITS_JOB.id]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt", "epochs/001.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda path: flipped(path, -1), cut, Path.unlink, lambda path: path.write_bytes(b"")]
)
def test_every_file_of_a_stage_is_checked(whole: ArtifactStore, tmp_path: Path, name: str, damage: Damage) -> None:
    """One bit, a lost end, a lost file and an empty one: no stage goes on from it."""
    store = copied(whole, tmp_path)
    damage(store.folder(JOB.id) / name)
    for check in (store.require_whole, store.load):
        with pytest.raises(InputError, match=r"is damaged|is missing") as refused:
            check(JOB.id)
        assert str(refused.value).startswith(str(store.folder(JOB.id) / name))
        assert f"delete the folder {store.folder(JOB.id)}" in str(refused.value)
    store.load(EXITS_JOB.id)


def rewritten(change: Callable[[dict[str, Any]], object]) -> Damage:
    """A change of a model's tensors."""

    def damage(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


@pytest.mark.parametrize(("name", "damage"), [
    ("model.safetensors", cut),
    ("model.safetensors", Path.unlink),
    ("model.safetensors", rewritten(lambda tensors: tensors.pop("classifier.bias"))),
    ("model.safetensors", rewritten(lambda tensors: tensors.update(more=tensors["classifier.bias"].clone()))),
    ("model.safetensors", rewritten(lambda own: own.update({"classifier.bias": own["classifier.bias"][:1]}))),
    ("config.json", Path.unlink),
    ("config.json", lambda path: path.write_bytes(b"\xff")),
    ("config.json", lambda path: path.write_bytes(b"[]")),
    ("config.json", lambda path: edit(path, lambda values: values.update(hidden_size=None))),
    ("config.json", lambda path: edit(path, lambda values: values.update(num_hidden_layers="two"))),
    ("config.json", lambda path: edit(path, lambda values: values.update(num_hidden_layers=1))),
])  # fmt: skip
def test_an_early_stage_is_checked_as_far_as_it_can_be(
    whole: ArtifactStore, tmp_path: Path, name: str, damage: Damage
) -> None:
    """Without digests, tensors and configuration still have to fit: none is made up, none left out."""
    store = copied(whole, tmp_path, early=True)
    store.load(JOB.id)
    damage(store.folder(JOB.id) / name)
    with pytest.raises(InputError) as refused:
        store.load(JOB.id)
    assert str(store.folder(JOB.id)) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_stage_under_another_name_is_refused(whole: ArtifactStore, tmp_path: Path) -> None:
    """A folder that was renamed or copied holds another stage's weights."""
    store = copied(whole, tmp_path)
    store.folder(EXITS_JOB.id).rename(store.folder("exits-other"))
    with pytest.raises(InputError, match=f'it is that of stage "{EXITS_JOB.id}"'):
        store.load("exits-other")


def test_stages_that_name_each_other_do_not_go_round(whole: ArtifactStore, tmp_path: Path) -> None:
    """A chain that leads back to itself ends."""
    store = copied(whole, tmp_path, early=True)
    for name, after in ((JOB.id, EXITS_JOB.id), (EXITS_JOB.id, JOB.id)):
        path = store.folder(name) / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf8"))
        del manifest["chain"]
        path.write_text(json.dumps({**manifest, "after": after}), encoding="utf8")
    assert sorted(store.ids_made_with([JOB.id])) == sorted([JOB.id, EXITS_JOB.id])


def test_commands_refuse_a_damaged_stage_and_both_remedies_work(tmp_path: Path) -> None:
    """The next stage and `bench predict` are one line; the folder deleted, or --fresh given, the stage trains again."""
    write_backbone(tmp_path / "bert")
    write_sst2(tmp_path / "sst2", train=40, dev=12)
    store = tmp_path / "store"
    places = ["--backbone", tmp_path / "bert", "--data-dir", tmp_path / "sst2", "--store", store, "--device", "cpu"]
    shared = ["--task", "sst2", "--preset", "smoke", "--finetune-epochs", 1, *places]
    answers = ["predict", *shared, "--method", "full", "--split", "validation", "--out", tmp_path / "out", "--force"]
    trained = ["train", *shared, "--method", "full"]
    assert call(*trained).code == 0
    (folder,) = (store / "artifacts").iterdir()
    for remedy, damage in (("delete", flipped), ("fresh", cut)):
        damage(folder / "model.safetensors")
        for command in (answers, ["train", *shared, "--method", "entropy_exit"]):
            answer = call(*command)
            assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
            assert answer.err.startswith(f"bench: {folder / 'model.safetensors'} is damaged")
        if remedy == "delete":
            shutil.rmtree(folder)
        else:
            assert call(*trained, "--fresh").code == 0
        assert call(*answers).code == 0
    assert json.loads((folder / "manifest.json").read_text(encoding="utf8"))["id"] == folder.name
