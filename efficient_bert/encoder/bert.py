"""The encoder: BERT (Devlin et al., 2019) whose layers run on any set of tokens, at any width.

Parameter names equal Hugging Face's `BertModel`, so a BERT checkpoint loads with no conversion.
Shapes: `...` is either (B, L), a padded batch, or (T,), the tokens of all examples one after the other;
D hidden size, F inner size, H heads, d = D / H.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from efficient_bert.config import EfficientBertConfig
from efficient_bert.encoder.dropout import Dropout

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(query, key, value), each (..., heads * d) -> context (..., heads * d); knows which tokens see which."""


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, positions: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed tokens: three (...) int64 tensors -> (..., D)."""
        words = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        embedded: Tensor = self.LayerNorm(words + self.position_embeddings(positions))
        return self.dropout(embedded) if self.training else embedded


class Dense(nn.Linear):
    """A dense layer of which a part runs: its first outputs, from its first inputs."""

    def part(self, inputs: Tensor, outputs: int) -> Tensor:
        """Compute the first `outputs` outputs from the first n inputs, and only those: (..., n) -> (..., outputs)."""
        width = inputs.shape[-1]
        weight = self.weight if width == self.in_features else self.weight[:, :width]
        if outputs == self.out_features:
            return F.linear(inputs, weight, self.bias)
        return F.linear(inputs, weight[:outputs], self.bias[:outputs])


class Projection(nn.Module):
    """Dense, dropout, residual, layer norm: the end of both halves of a layer."""

    def __init__(self, inputs: int, config: EfficientBertConfig) -> None:
        super().__init__()
        self.dense = Dense(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, inputs: Tensor, residual: Tensor) -> Tensor:
        """Project inputs through their first n columns and add the residual: (..., n), (..., D) -> (..., D)."""
        projected = self.dense.part(inputs, self.dense.out_features)
        if self.training:
            projected = self.dropout(projected)
        # In place, and the norm written out: for one short sequence an allocation or a module call costs as much.
        # Not under autocast, where the dense output is bfloat16 and the residual stream must stay float32.
        in_place = projected.dtype == residual.dtype
        total = projected.add_(residual) if in_place else projected + residual
        norm = self.LayerNorm
        return F.layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class SelfAttention(nn.Module):
    """Query, key and value projections."""

    def __init__(self, config: EfficientBertConfig, inner: int) -> None:
        super().__init__()
        self.query = Dense(config.hidden_size, inner)
        self.key = Dense(config.hidden_size, inner)
        self.value = Dense(config.hidden_size, inner)


class Attention(nn.Module):
    """Self-attention and its output projection (Hugging Face's grouping, for the parameter names)."""

    def __init__(self, config: EfficientBertConfig, inner: int) -> None:
        super().__init__()
        self.self = SelfAttention(config, inner)
        self.output = Projection(inner, config)


class Intermediate(nn.Module):
    """The widening half of the feed-forward network."""

    def __init__(self, config: EfficientBertConfig, neurons: int) -> None:
        super().__init__()
        self.dense = Dense(config.hidden_size, neurons)


class Layer(nn.Module):
    """One transformer layer of so many heads that runs at any width: its first heads, the same share of neurons."""

    def __init__(self, config: EfficientBertConfig, heads: int) -> None:
        super().__init__()
        neurons = config.neurons(heads)
        self.attention = Attention(config, heads * config.head_size)
        self.intermediate = Intermediate(config, neurons)
        self.output = Projection(neurons, config)
        self.activation = ACT2FN[config.hidden_act]
        self.gelu = config.hidden_act == "gelu"
        self.heads = heads
        self.head_size = config.head_size
        self.neurons = config.neurons

    def forward(self, hidden: Tensor, attend: Attend, *, heads: int, queries: Tensor | None = None) -> Tensor:
        """Run the layer: (..., D) -> (..., D); `attend` decides which tokens see which.

        Args:
            queries: the states whose outputs are wanted; all of `hidden` by default.
        """
        inner = heads * self.head_size
        projections = self.attention.self
        queries = hidden if queries is None else queries
        query = projections.query.part(queries, inner)
        key, value = (dense.part(hidden, inner) for dense in (projections.key, projections.value))
        hidden = self.attention.output(attend(query, key, value), queries)
        widened = self.intermediate.dense.part(hidden, self.neurons(heads))
        # in place where no gradient will ask for the input: a fresh (..., F) tensor is the layer's largest
        in_place = self.gelu and not torch.is_grad_enabled()
        activated = torch.ops.aten.gelu_(widened) if in_place else self.activation(widened)
        narrowed: Tensor = self.output(activated, hidden)
        return narrowed


class Encoder(nn.Module):
    """The stack of layers; the engine runs them one by one."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, heads) for heads in config.heads_by_layer)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order."""
        return cast(tuple[Layer, ...], tuple(self.layer))


class Pooler(nn.Module):
    """tanh(W h_[CLS] + b)."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """Pool [CLS] states: (B, D) -> (B, D)."""
        return torch.tanh(self.dense(first))


class Bert(nn.Module):
    """Embeddings, encoder and pooler under Hugging Face's names."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
