"""Artifacts: names that cover everything that decides a model, and folders that are whole or are not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.planning.plan import make_plan
from bench.planning.settings import Settings
from bench.store.artifacts import ArtifactStore, Job, content_hash
from efficient_bert.training import Trained
from efficient_bert.training.exits import EXITS
from efficient_bert.training.finetune import FINETUNE
from tests.support.tiny import tiny_model
from tests.support.tiny_files import write_backbone, write_sst2

OPTIONS: Mapping[str, Any] = {"epochs": 2, "learning_rate": 2e-5}
DECIDED_BY: Mapping[str, Any] = {"backbone": "sha256:1", "train": "2", "seed": 0}
JOB = Job(FINETUNE, OPTIONS, DECIDED_BY)
EXITS_JOB = Job(EXITS, {"epochs": 1}, DECIDED_BY, after=JOB)


def put(store: ArtifactStore, job: Job, *, seed: int = 0) -> Trained:
    """A finished stage in the store."""
    trained = Trained(tiny_model(seed=seed), (0.5, 0.75))
    store.put(job, trained, save_tokenizer=lambda folder: (folder / "vocab.txt").write_text("[PAD]"))
    return trained


def test_the_hash_is_of_the_canonical_json() -> None:
    """The hash is the start of SHA-256 over JSON with sorted keys; the digits are those of `sha256sum`."""
    # printf '{"a": 1, "b": [2, "ä"]}' | sha256sum
    assert content_hash({"b": [2, "ä"], "a": 1}) == "cb4be802ca6b"
    assert content_hash({"a": 1, "b": [2, "ä"]}) == "cb4be802ca6b"


def test_what_is_no_number_has_no_hash() -> None:
    """NaN equals nothing, so it names nothing."""
    with pytest.raises(ValueError, match="JSON"):
        content_hash({"a": float("nan")})


def test_the_order_of_keys_does_not_matter() -> None:
    """Options and facts in another order make the same artifact."""
    other = Job(FINETUNE, dict(reversed(list(OPTIONS.items()))), dict(reversed(list(DECIDED_BY.items()))))
    assert other.id == JOB.id


@pytest.mark.parametrize("other", [
    replace(JOB, options={**OPTIONS, "epochs": 3}),
    replace(JOB, options={**OPTIONS, "learning_rate": 3e-5}),
    replace(JOB, options={**OPTIONS, "more": 0}),
    replace(JOB, decided_by={**DECIDED_BY, "seed": 1}),
    replace(JOB, decided_by={**DECIDED_BY, "backbone": "sha256:2"}),
    replace(JOB, decided_by={**DECIDED_BY, "train": "3"}),
    replace(JOB, stage=EXITS),
    replace(JOB, after=EXITS_JOB),
])  # fmt: skip
def test_everything_that_decides_changes_the_name(other: Job) -> None:
    """Each option, each fact, the stage and the stage before are part of the name."""
    assert other.id != JOB.id


def test_an_option_that_came_later_leaves_older_names_alone() -> None:
    """A stage that is not asked for what came later is named as before it existed; asked for it, it is another."""
    assert replace(JOB, options={**OPTIONS, "adversarial": 0.0}).id == JOB.id
    assert replace(JOB, options={**OPTIONS, "adversarial": 1.0}).id != JOB.id


def test_a_change_in_an_earlier_stage_reaches_the_later_ones() -> None:
    """The name of a stage covers the options of those before it."""
    assert replace(EXITS_JOB, after=replace(JOB, options={**OPTIONS, "epochs": 9})).id != EXITS_JOB.id
    assert EXITS_JOB.chain == (JOB, EXITS_JOB)


def test_what_was_put_is_loaded(tmp_path: Path) -> None:
    """The model comes back to the bit, in evaluation mode, and the manifest says how it was made."""
    store = ArtifactStore(tmp_path)
    assert JOB.id not in store
    trained = put(store, JOB)
    assert JOB.id in store
    loaded = store.load(JOB.id)
    assert not loaded.training
    assert loaded.config.exit_depths == trained.model.config.exit_depths
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    manifest = json.loads((store.folder(JOB.id) / "manifest.json").read_text())
    assert manifest.pop("digests").keys() == {path.name for path in store.folder(JOB.id).iterdir()}
    assert manifest == {
        "id": JOB.id, "stage": "finetune", "options": OPTIONS, "decided_by": DECIDED_BY, "after": None, "chain": [],
        "heldout_scores": [0.5, 0.75], "history": {},
    }  # fmt: skip
    assert (store.folder(JOB.id) / "vocab.txt").is_file()


def test_nothing_is_pickled_and_nothing_is_left(tmp_path: Path) -> None:
    """An artifact is JSON, text and safetensors; the folder of the stage under way is gone."""
    store = ArtifactStore(tmp_path)
    (store.partial(JOB.id) / "checkpoint.safetensors").write_bytes(b"x")
    put(store, JOB)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".txt", ".safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == [JOB.id]


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    """The manifest makes an artifact; without it the stage is done again and replaces what is there."""
    store = ArtifactStore(tmp_path)
    put(store, JOB)
    (store.folder(JOB.id) / "manifest.json").unlink()
    assert JOB.id not in store
    again = put(store, JOB, seed=1)
    assert JOB.id in store
    assert torch.equal(store.load(JOB.id).classifier.weight, again.model.classifier.weight)


def test_a_stage_killed_while_it_is_stored_is_not_there(tmp_path: Path) -> None:
    """The manifest is written last: a failure before it leaves no artifact, and the checkpoints stay."""
    store = ArtifactStore(tmp_path)
    checkpoint = store.partial(JOB.id) / "checkpoint.safetensors"
    checkpoint.write_bytes(b"x")

    def killed(folder: Path) -> None:
        assert not (folder / "manifest.json").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(JOB, Trained(tiny_model(), ()), save_tokenizer=killed)
    assert JOB.id not in store
    assert checkpoint.exists()
    put(store, JOB)
    assert JOB.id in store


def test_restarting_forgets_the_result_and_the_checkpoints(tmp_path: Path) -> None:
    """`restart` removes both, and is free to find nothing."""
    store = ArtifactStore(tmp_path)
    store.restart(JOB.id)
    put(store, JOB)
    checkpoint = store.partial(JOB.id) / "checkpoint.safetensors"
    checkpoint.write_bytes(b"x")
    store.restart(JOB.id)
    assert JOB.id not in store
    assert list(tmp_path.iterdir()) == []


def test_what_came_of_a_stage_is_known(tmp_path: Path) -> None:
    """Later stages are found, finished or under way, the latest first, and where one between is gone."""
    store = ArtifactStore(tmp_path)
    rewire, width, depth = (Job(EXITS, {"epochs": epochs}, DECIDED_BY) for epochs in (3, 4, 5))
    rewire = replace(rewire, after=JOB)
    width = replace(width, after=rewire)
    for job in (JOB, EXITS_JOB, rewire, width):
        put(store, job)
    depth = replace(depth, after=width)
    store.partial(depth.id, made_with=[job.id for job in depth.chain])
    store.partial("other")
    store.restart(rewire.id)
    found = store.ids_made_with([JOB.id])
    assert (found[0], found[-1]) == (width.id, depth.id)
    assert sorted(found) == sorted([JOB.id, EXITS_JOB.id, width.id, depth.id])
    assert store.ids_made_with([EXITS_JOB.id]) == [EXITS_JOB.id]
    path = store.folder(EXITS_JOB.id) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["chain"]
    path.write_text(json.dumps(manifest))
    assert EXITS_JOB.id in store.ids_made_with([JOB.id])


def test_what_an_option_names_counts_by_its_content(tmp_path: Path) -> None:
    """Another file of word vectors under the same name is another training of the widths, not of what was before."""
    vectors = tmp_path / "vectors.txt"
    settings = Settings(
        "sst2",
        methods=("static_subnet",),
        backbone=str(write_backbone(tmp_path / "bert")),
        data_dir=write_sst2(tmp_path / "sst2", train=40, dev=8),
        store=tmp_path,
        options={"width.augment_vectors": str(vectors), "width.list": "0.5,1", "depth.list": "0.5,1"},
    )
    found = []
    for content in ("film 1 0", "film 0 1", "film 1 0"):
        vectors.write_text(content, encoding="utf8")
        found.append({job.stage.name: job.id for job in make_plan(settings).jobs})
    assert found[0] == found[2]
    assert found[0]["width"] != found[1]["width"]
    assert found[0]["rewire"] == found[1]["rewire"]


def test_seeds_may_share_what_is_fine_tuned(tmp_path: Path) -> None:
    """With one seed of fine-tuning, seeds share the held-out rows, that model and what draws nothing, and no more."""
    settings = Settings(
        "sst2",
        methods=("adapler", "static_subnet"),
        backbone=str(write_backbone(tmp_path / "bert")),
        data_dir=write_sst2(tmp_path / "sst2", train=40, dev=8),
        store=tmp_path,
        options={"width.list": "0.5,1", "depth.list": "0.5,1"},
    )
    alone, shared, other = (
        make_plan(replace(settings, seed=seed, finetune_seed=first)) for seed, first in ((0, None), (1, 0), (1, None))
    )
    names = [{job.stage.name: job.id for job in plan.jobs} for plan in (alone, shared, other)]
    same = {stage for stage in names[0] if names[0][stage] == names[1][stage]}
    assert same == {"finetune", "saliency", "rewire"}
    assert not set(names[1].values()) & set(names[2].values())
    assert shared.data.fingerprints == alone.data.fingerprints != other.data.fingerprints
    assert {job.stage.name: job.seed for job in shared.jobs if job.seed} == {
        stage: 1 for stage in names[0] if stage not in same
    }
    assert shared.arms[0].run_id == alone.arms[0].run_id
