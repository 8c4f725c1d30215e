"""The model as Hugging Face's: checkpoints in both directions, the Auto classes and the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    pipeline,
)

from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification, InputError
from tests.conftest import MiniLM
from tests.support.tiny import SHAPES, VOCABULARY, tiny_batch, tiny_config, tiny_model, tokenizer_folder

IDS = tiny_batch([8, 5]).input_ids
WORDS = ["the", "film", "was", "fine", "dull", "nobody", "laughed"]


def bert_config() -> BertConfig:
    """Hugging Face's configuration of a tiny model with four classes."""
    fields: dict[str, Any] = {**SHAPES["twelve_heads"], "vocab_size": VOCABULARY, "initializer_range": 0.2}
    return BertConfig(**{**fields, "num_labels": 4})


@torch.inference_mode()
def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    """`save_pretrained` and `from_pretrained` keep logits, exits and class names to the bit."""
    names = {0: "no", 1: "perhaps", 2: "yes"}
    model = tiny_model(id2label=names, label2id={name: number for number, name in names.items()})
    model.save_pretrained(tmp_path)
    loaded = EfficientBertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert loaded.config.exit_depths == [1, 2, 3]
    assert loaded.config.id2label == names
    assert sorted(loaded.state_dict()) == sorted(model.state_dict())
    assert not list(tmp_path.glob("*.bin"))


@torch.inference_mode()
def test_auto_classes_find_the_model(tmp_path: Path) -> None:
    """`AutoConfig` and `AutoModelForSequenceClassification` read a saved folder."""
    model = tiny_model()
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, EfficientBertConfig)
    assert config.exit_depths == [1, 2, 3]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, EfficientBertForSequenceClassification)
    assert torch.equal(loaded.eval()(IDS).logits, model(IDS).logits)
    assert isinstance(AutoModelForSequenceClassification.from_config(config), EfficientBertForSequenceClassification)


@torch.inference_mode()
def test_a_hugging_face_classifier_loads_as_ours(tmp_path: Path) -> None:
    """A checkpoint of `BertForSequenceClassification` gives the same logits and the same classes."""
    torch.manual_seed(0)
    theirs = BertForSequenceClassification(bert_config()).eval()
    theirs.save_pretrained(tmp_path)
    ours = EfficientBertForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-5, rtol=0)
    assert ours(IDS).logits.shape == (2, 4)


@torch.inference_mode()
def test_our_model_loads_as_hugging_faces(tmp_path: Path) -> None:
    """A folder of ours loads in `BertForSequenceClassification` with equal logits."""
    model = tiny_model(exit_depths=[], contribution_size=0, num_gates=0)
    model.save_pretrained(tmp_path)
    found: Any = BertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    theirs, report = found
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(theirs.eval()(IDS).logits, model(IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix", [False, True])
def test_a_headless_checkpoint_fills_the_trunk(tmp_path: Path, prefix: bool) -> None:
    """Both kinds of BERT checkpoint load, with and without `bert.` before the names; only the classifier is new."""
    torch.manual_seed(0)
    if prefix:
        whole = BertForSequenceClassification(bert_config())
        whole.save_pretrained(tmp_path)
        theirs: BertModel = whole.bert
    else:
        theirs = BertModel(bert_config())
        theirs.save_pretrained(tmp_path)
    found: Any = EfficientBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    ours, report = found
    missing = set() if prefix else {"classifier.weight", "classifier.bias"}
    assert set(report["missing_keys"]) == missing
    assert not report["unexpected_keys"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.bert.state_dict()[name], value), name


def test_parameter_names_are_hugging_faces() -> None:
    """Trunk and classifier have exactly the parameters of `BertForSequenceClassification`, of the same shapes."""
    theirs = {name: value.shape for name, value in BertForSequenceClassification(bert_config()).named_parameters()}
    ours = {name: value.shape for name, value in tiny_model(classes=4).named_parameters()}
    assert {
        name: shape for name, shape in ours.items() if not name.startswith(("exits.", "contribution.", "gates."))
    } == theirs


def test_the_packaged_weights_load_whole(minilm: MiniLM) -> None:
    """Every weight of the packaged trunk arrives to the bit."""
    ours = minilm.ours("sdpa").state_dict()
    for name, value in minilm.theirs.state_dict().items():
        assert torch.equal(ours[name], value), name


def test_a_new_model_is_initialised_as_bert() -> None:
    """Weights of a fresh model have the configured spread, biases are 0, norms 1 and the padding's embedding 0."""
    torch.manual_seed(0)
    model = EfficientBertForSequenceClassification(tiny_config(initializer_range=0.02, hidden_size=96))
    weights = torch.cat([value.flatten() for name, value in model.named_parameters() if name.endswith("dense.weight")])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert (value == 0).all(), name
        elif "LayerNorm" in name:
            assert (value == 1).all(), name
    assert (model.bert.embeddings.word_embeddings.weight[0] == 0).all()


def test_a_bert_configuration_becomes_ours() -> None:
    """Every field of a BERT configuration is kept but those that change."""
    source = bert_config()
    config = EfficientBertConfig.from_bert(source, num_labels=3, exit_depths=[2])
    assert (config.classes, config.exit_depths, config.model_type) == (3, [2], "efficient_bert")
    changed = {"model_type", "id2label", "label2id", "exit_depths", "architectures", "transformers_version"}
    mine = config.to_dict()
    for name, value in source.to_dict().items():
        assert name in changed or mine[name] == value, name
    assert EfficientBertConfig.from_bert(source).id2label == source.id2label


@pytest.mark.parametrize("depths", [[0], [4], [2, 1], [1, 1], [-1], [1, 2, 3, 4]])
def test_exit_depths_lie_within_the_layers(depths: list[int]) -> None:
    """Exits are ascending depths between the first layer and the last; the error says the range."""
    with pytest.raises(InputError, match=r"ascending depths in 1\.\.3") as caught:
        tiny_config(exit_depths=depths)
    assert "\n" not in str(caught.value)


def test_the_configuration_is_plain_json(tmp_path: Path) -> None:
    """config.json names the model type and the exits and holds no code reference."""
    tiny_model().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "efficient_bert"
    assert written["exit_depths"] == [1, 2, 3]
    assert "auto_map" not in written


def test_the_pipeline_classifies_sentences_and_pairs(tmp_path: Path) -> None:
    """`text-classification` on a saved folder answers with the class names and softmax of the model's logits."""
    names = {0: "negative", 1: "positive"}
    model = tiny_model(classes=2, id2label=names, label2id={name: number for number, name in names.items()})
    model.save_pretrained(tmp_path)
    tokenizer_folder(tmp_path, words=WORDS)
    words = AutoTokenizer.from_pretrained(tmp_path)
    classify: Any = pipeline("text-classification", model=str(tmp_path), device="cpu")
    sentence, pair = "the film was fine", {"text": "the film was dull", "text_pair": "nobody laughed"}
    for given, pieces in (
        (sentence, words(sentence, return_tensors="pt")),
        (pair, words(pair["text"], pair["text_pair"], return_tensors="pt")),
    ):
        answer = classify(given)
        answer = answer[0] if isinstance(answer, list) else answer
        with torch.inference_mode():
            probabilities = model(**pieces).logits.softmax(-1)[0]
        assert answer["label"] == names[int(probabilities.argmax())]
        assert answer["score"] == pytest.approx(float(probabilities.max()), abs=1e-5)
    both = classify([sentence, pair["text"]], top_k=None)
    assert [sum(answer["score"] for answer in answers) for answers in both] == pytest.approx([1.0, 1.0])
