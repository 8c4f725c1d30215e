"""The encoder beside Hugging Face's BERT: logits, states, attentions, and layers cut to fewer heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer

from efficient_bert import Batch, EfficientBertForSequenceClassification, InputError, run
from efficient_bert.encoder.attention import attend
from efficient_bert.encoder.bert import Layer
from tests.conftest import MiniLM
from tests.support.tiny import SHAPES, tiny_batch, tiny_model

TOLERANCE = 1e-5
ATTENTIONS = ["eager", "sdpa"]


def twin(model: EfficientBertForSequenceClassification, attention: str = "eager") -> BertForSequenceClassification:
    """Hugging Face's model with the same weights."""
    fields = {name: value for name, value in model.config.to_dict().items() if name != "model_type"}
    theirs = BertForSequenceClassification(BertConfig(**{**fields, "attn_implementation": attention}))
    wanted = theirs.state_dict()
    theirs.load_state_dict({name: value for name, value in model.state_dict().items() if name in wanted})
    theirs.eval()
    return theirs


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """A batch as keyword arguments of a model."""
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.mask.long(),
        "token_type_ids": batch.token_type_ids,
    }


def chunks(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """A padded batch in parts of 40 rows."""
    parts = {name: part.split(40) for name, part in inputs.items()}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.inference_mode()
def test_logits_equal_hugging_face_on_real_text(
    minilm: MiniLM, texts: list[list[tuple[str, ...]]], attention: str
) -> None:
    """On 200 sentences and pairs the packaged weights give Hugging Face's logits: padded, packed, not padded."""
    ours = minilm.ours(attention)
    minilm.theirs.set_attn_implementation(attention)
    answers = []
    for kind in texts:
        padded = minilm.encoded(kind)
        expected = torch.cat([minilm.theirs(**chunk).logits for chunk in chunks(padded)])
        mine = torch.cat([ours(**chunk).logits for chunk in chunks(padded)])
        packed = torch.cat([run(ours, Batch.of(chunk)).logits for chunk in chunks(padded)])
        torch.testing.assert_close(mine, expected, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(packed, expected, atol=TOLERANCE, rtol=0)
        lengths = padded["attention_mask"].sum(1)
        for length in lengths.unique().tolist():
            same = (lengths == length).nonzero()[:8, 0]
            unpadded = ours(**{name: part[same, :length] for name, part in padded.items()}).logits
            torch.testing.assert_close(unpadded, expected[same], atol=TOLERANCE, rtol=0)
        answers.append(expected)
    assert len(torch.cat(answers)) == 200
    assert torch.cat(answers).std(0).min() > 0.2


@torch.inference_mode()
def test_states_and_attentions_equal_hugging_face(minilm: MiniLM, texts: list[list[tuple[str, ...]]]) -> None:
    """Every layer's states and attention probabilities equal Hugging Face's wherever there is a token."""
    ours = minilm.ours("eager")
    minilm.theirs.set_attn_implementation("eager")
    padded = minilm.encoded(texts[1][:16])
    mine = ours(**padded, output_hidden_states=True, output_attentions=True)
    expected = minilm.theirs(**padded, output_hidden_states=True, output_attentions=True)
    there = padded["attention_mask"].bool()
    assert len(mine.hidden_states) == len(expected.hidden_states) == 7
    for state, other in zip(mine.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state[there], other[there], atol=TOLERANCE, rtol=0)
    assert len(mine.attentions) == len(expected.attentions) == 6
    for map_, other in zip(mine.attentions, expected.attentions, strict=True):
        by_query = map_.transpose(1, 2)[there], other.transpose(1, 2)[there]
        torch.testing.assert_close(*by_query, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_every_shape_equals_hugging_face(shape: str, attention: str) -> None:
    """Tiny models of several shapes equal Hugging Face's on ragged batches."""
    model = tiny_model(shape)
    model.set_attn_implementation(attention)
    batch = tiny_batch([9, 3, 1, 6])
    expected = twin(model, attention)(**inputs_of(batch)).logits
    torch.testing.assert_close(model(**inputs_of(batch)).logits, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(run(model, batch).logits, expected, atol=TOLERANCE, rtol=0)
    assert expected.std(0).min() > 0.05


@torch.inference_mode()
def test_left_padding_classifies_the_first_token() -> None:
    """Padded on the left, the answer comes from Hugging Face's state of the first token (its own, of the padding)."""
    model = tiny_model()
    theirs, batch = twin(model), tiny_batch([9, 3, 1, 6], left=True)
    assert theirs.bert.pooler is not None
    states = theirs.bert(**inputs_of(batch)).last_hidden_state
    expected = theirs.classifier(theirs.bert.pooler(states[range(4), [0, 6, 8, 3]][:, None]))
    torch.testing.assert_close(model(**inputs_of(batch)).logits, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(run(model, batch).logits, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@torch.inference_mode()
def test_activations_equal_hugging_face(activation: str) -> None:
    """The activation that the configuration names is the one that runs."""
    model = tiny_model(hidden_act=activation)
    batch = tiny_batch([5, 2])
    expected = twin(model)(**inputs_of(batch)).logits
    torch.testing.assert_close(model(**inputs_of(batch)).logits, expected, atol=TOLERANCE, rtol=0)


def test_loss_and_gradients_equal_hugging_face() -> None:
    """With labels, the loss and the gradient of every shared parameter equal Hugging Face's."""
    model = tiny_model()
    theirs, batch = twin(model), tiny_batch([7, 4, 2])
    labels = torch.tensor([0, 2, 1])
    losses = [part(**inputs_of(batch), labels=labels).loss for part in (model, theirs)]
    torch.testing.assert_close(*losses, atol=TOLERANCE, rtol=0)
    for loss in losses:
        loss.backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, atol=TOLERANCE, rtol=1e-4, msg=name)


def test_tuples_come_without_return_dict() -> None:
    """`return_dict=False` gives a tuple that begins with the logits."""
    model, batch = tiny_model(), tiny_batch([4])
    result = model(**inputs_of(batch), return_dict=False)
    torch.testing.assert_close(result[0], model(**inputs_of(batch)).logits)


def test_missing_mask_and_segments_mean_all_present_and_zero() -> None:
    """Without a mask every token counts; without segments they are 0."""
    model = tiny_model()
    ids = tiny_batch([6, 6]).input_ids
    told = model(ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids))
    torch.testing.assert_close(model(ids).logits, told.logits)


@pytest.mark.parametrize("mask", [[[1, 1], [0, 0]], [[0, 0], [0, 0]]])
def test_an_example_without_tokens_is_refused(mask: list[list[int]]) -> None:
    """A row that is all padding has no answer; the error says so in one line."""
    with pytest.raises(InputError, match="without tokens") as caught:
        tiny_model()(torch.ones(2, 2, dtype=torch.int64), attention_mask=torch.tensor(mask))
    assert "\n" not in str(caught.value)


def cut(layer: BertLayer, heads: int, neurons: int) -> BertLayer:
    """Hugging Face's layer with its first heads and neurons only, made by copying slices of the weights."""
    inner = heads * layer.attention.self.attention_head_size
    rows = [layer.attention.self.query, layer.attention.self.key, layer.attention.self.value]
    for dense, size in [*((dense, inner) for dense in rows), (layer.intermediate.dense, neurons)]:
        dense.weight, dense.bias = torch.nn.Parameter(dense.weight[:size]), torch.nn.Parameter(dense.bias[:size])
    for dense, size in ((layer.attention.output.dense, inner), (layer.output.dense, neurons)):
        dense.weight = torch.nn.Parameter(dense.weight[:, :size])
    layer.attention.self.num_attention_heads = heads
    layer.attention.self.all_head_size = inner
    return layer


@pytest.mark.parametrize(("shape", "heads", "neurons"), [
    ("twelve_heads", 1, 16), ("twelve_heads", 7, 112), ("twelve_heads", 12, 192),
    ("four_heads", 3, 48), ("odd_inner", 1, 16), ("odd_inner", 2, 33),
])  # fmt: skip
@torch.inference_mode()
def test_a_narrow_layer_equals_a_dense_layer_of_sliced_weights(shape: str, heads: int, neurons: int) -> None:
    """A layer at n heads is Hugging Face's layer built from the weights of the first n heads and n F / H neurons."""
    model = tiny_model(shape)
    layer = model.bert.encoder.layers[1]
    assert isinstance(layer, Layer)
    assert layer.neurons(heads) == neurons
    narrow = twin(model).bert.encoder.layer[1]
    assert isinstance(narrow, BertLayer)
    dense = cut(narrow, heads, neurons)
    hidden = torch.randn(2, 5, model.config.hidden_size, generator=torch.Generator().manual_seed(3))
    mine = layer(hidden, lambda q, k, v: attend(q, k, v, heads=heads, eager=False), heads=heads)
    torch.testing.assert_close(mine, dense(hidden), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_residual_stream_stays_float32_under_autocast(minilm: MiniLM, texts: list[list[tuple[str, ...]]]) -> None:
    """In bfloat16 autocast, as in training, every state is float32 and equals Hugging Face's to a hundredth."""
    ours = minilm.ours("eager")
    minilm.theirs.set_attn_implementation("eager")
    inputs = minilm.encoded(texts[0][:20])
    with torch.autocast("cpu", torch.bfloat16):
        mine = ours(**inputs, output_hidden_states=True).hidden_states
        theirs = minilm.theirs(**inputs, output_hidden_states=True).hidden_states
    assert {state.dtype for state in mine} == {torch.float32}
    here = inputs["attention_mask"].bool()
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own[here], other[here], atol=0.01, rtol=0)
