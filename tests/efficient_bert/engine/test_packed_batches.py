"""Packed batches: layouts by hand, and attention within rows against attention row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from efficient_bert.encoder import attention
from efficient_bert.encoder.attention import attend, prefers_products
from efficient_bert.encoder.layout import Layout, concatenate

#  row 7: tokens 0 and 2 of its input; row 3: tokens 1, 2, 4; row 5: token 0
LAYOUT = Layout(torch.tensor([0, 2, 1, 2, 4, 0]), (2, 3, 1), (7, 3, 5))
PACKED = torch.tensor([10, 11, 20, 21, 22, 30])


def test_padding_by_hand() -> None:
    """The padded form has each row's tokens on the left and zeros after them."""
    assert LAYOUT.mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert LAYOUT.pad(PACKED).tolist() == [[10, 11, 0], [20, 21, 22], [30, 0, 0]]
    assert LAYOUT.pad(PACKED[:, None].expand(6, 2)).shape == (3, 3, 2)
    assert LAYOUT.first(PACKED).tolist() == [10, 20, 30]
    assert not LAYOUT.unpadded


def test_live_positions_by_hand() -> None:
    """Live tokens are marked where they stood in the inputs."""
    assert [row.nonzero()[:, 0].tolist() for row in LAYOUT.live_positions(6)] == [[0, 2], [1, 2, 4], [0]]
    assert LAYOUT.live_positions(6).shape == (3, 6)


def test_dropping_tokens_by_hand() -> None:
    """Tokens go, each row's first stays in any case, and what padding cells say does not matter."""
    keep = torch.tensor([[False, False, True], [True, False, True], [False, True, True]])
    before = keep.clone()
    layout, indices = LAYOUT.keep_tokens(keep)
    assert PACKED[indices].tolist() == [10, 20, 22, 30]
    assert layout.positions.tolist() == [0, 1, 4, 0]
    assert layout.lengths == (1, 2, 1)
    assert layout.rows == (7, 3, 5)
    assert torch.equal(keep, before)


def test_dropping_rows_by_hand() -> None:
    """The wanted rows stay with all their tokens; none at all may be wanted."""
    layout, indices = LAYOUT.keep_rows([0, 2])
    assert PACKED[indices].tolist() == [10, 11, 30]
    assert (layout.positions.tolist(), layout.lengths, layout.rows) == ([0, 2, 0], (2, 1), (7, 5))
    nobody, none = LAYOUT.keep_rows([])
    assert (nobody.lengths, nobody.rows, int(none.sum())) == ((), (), 0)


def test_concatenating_by_hand() -> None:
    """Rows follow one another."""
    parts = [LAYOUT.keep_rows([1])[0], LAYOUT.keep_rows([0, 2])[0]]
    layout = concatenate(parts)
    assert layout.positions.tolist() == [1, 2, 4, 0, 2, 0]
    assert (layout.lengths, layout.rows) == ((3, 2, 1), (3, 7, 5))


def packed(lengths: list[int], inner: int) -> tuple[Layout, list[Tensor]]:
    """A layout of rows of these lengths and random query, key and value."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    generator = torch.Generator().manual_seed(len(positions))
    parts = [torch.randn(len(positions), inner, generator=generator) for _ in range(3)]
    return Layout(positions, tuple(lengths), tuple(range(len(lengths)))), parts


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=7), heads=st.integers(1, 3), eager=st.booleans())
def test_attention_stays_within_rows(lengths: list[int], heads: int, eager: bool) -> None:
    """Attention over a packed batch equals torch's fused attention on each row alone."""
    layout, parts = packed(lengths, 4 * heads)
    with torch.no_grad():
        mine = layout.attend(*parts, heads=heads, eager=eager)
    rows = zip(*([split(row, heads) for row in part.split(lengths)] for part in parts), strict=True)
    fused = torch.nn.functional.scaled_dot_product_attention
    by_row = [fused(query, key, value) for query, key, value in rows]
    expected = torch.cat([context.transpose(0, 1).flatten(1) for context in by_row])
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


def split(part: Tensor, heads: int) -> Tensor:
    """(L, h d) -> (h, L, d)."""
    return part.view(len(part), heads, -1).transpose(0, 1)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=7))
def test_padding_and_packing_are_inverse(lengths: list[int]) -> None:
    """What was padded is found again under the mask, in order."""
    layout, (values, _, _) = packed(lengths, 3)
    assert torch.equal(layout.pad(values)[layout.mask], values)


@torch.no_grad()
@pytest.mark.parametrize("bias", [torch.tensor([0.0, -0.5, -9.0]), torch.tensor([True, True, False])])
def test_eager_and_fused_attention_take_the_same_bias(bias: Tensor) -> None:
    """A float bias is added and a bool one hides, with either kernel; probabilities are handed out and sum to 1."""
    _, parts = packed([3], 8)
    attentions: list[Tensor] = []
    cells = bias[None, None, None]
    eager = attend(*(part[None] for part in parts), heads=2, eager=True, bias=cells, attentions=attentions)
    fused = attend(*(part[None] for part in parts), heads=2, eager=False, bias=cells)
    torch.testing.assert_close(eager, fused, atol=1e-5, rtol=0)
    assert attentions[0].shape == (1, 2, 3, 3)
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(1, 2, 3))
    if bias.dtype == torch.bool:
        assert (attentions[0][..., 2] == 0).all()


@pytest.mark.parametrize("together", [1, 2 * 3 * 49, 10_000], ids=["one by one", "in twos", "whole"])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("bias", [None, "mask", "fades"])
def test_products_have_the_fused_kernels_gradients(
    monkeypatch: pytest.MonkeyPatch, bias: str | None, dtype: torch.dtype, digits: float, together: int
) -> None:
    """Where a CPU learns, context and gradients are those of torch's fused attention in float64, whatever the parts."""
    monkeypatch.setattr(attention, "CACHED_PROBABILITIES", together)
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(3, 7, 12, generator=generator) for _ in range(3)]
    fades = torch.randn(3, 1, 1, 7, generator=generator)
    seen = {None: None, "mask": fades < 1, "fades": fades}[bias]

    def learnt(own: list[Tensor], given: Tensor | None, context: Tensor) -> list[Tensor]:
        wanted = [*own, given] if given is not None and given.requires_grad else own
        gradients = torch.autograd.grad(context.double().square().sum(), [each for each in wanted if each is not None])
        return [context.detach(), *gradients]

    def leaves(kind: torch.dtype) -> tuple[list[Tensor], Tensor | None]:
        own = [part.to(kind, copy=True).requires_grad_() for part in parts]
        return own, seen.to(kind, copy=True).requires_grad_() if bias == "fades" and seen is not None else seen

    whole, given = leaves(torch.float64)
    heads = [part.view(3, 7, 3, 4).transpose(1, 2) for part in whole]
    fused = torch.nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=given)
    expected = learnt(whole, given, fused.transpose(1, 2).flatten(2))
    own, given = leaves(dtype)
    monkeypatch.setattr(attention, "prefers_products", lambda *asked: True)
    found = learnt(own, given, attend(own[0], own[1], own[2], heads=3, eager=False, bias=given))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=3 * digits, rtol=digits)


@pytest.mark.parametrize(
    ("dtype", "bias", "rate", "products"),
    [
        (torch.float32, None, 0.0, False),
        (torch.bfloat16, None, 0.0, True),
        (torch.float32, None, 0.1, True),
        (torch.float32, torch.zeros(1, 1, 1, 5), 0.0, False),
        (torch.float32, torch.zeros(1, 1, 1, 5, requires_grad=True), 0.0, True),
    ],
)
def test_products_are_for_learning_alone(dtype: torch.dtype, bias: Tensor | None, rate: float, products: bool) -> None:
    """What the fused kernels lack, or are slow at, asks for products where gradients are; elsewhere dropout alone."""
    query = torch.zeros(1, 1, 5, 4, dtype=dtype)
    assert prefers_products(query, bias, rate) is products
    with torch.no_grad():
        assert prefers_products(query, bias, rate) is (rate > 0)


def test_dropout_keeps_the_mean() -> None:
    """With equal values everywhere the context varies around that value, as what is left counts for more."""
    torch.manual_seed(0)
    flat = torch.ones(50, 40, 12, dtype=torch.bfloat16, requires_grad=True)
    context = attend(flat, flat, flat, heads=3, eager=False, rate=0.25).detach().float()
    assert abs(float(context.mean()) - 1) < 0.01
    assert context.std() == pytest.approx((0.25 / 0.75 / 40) ** 0.5, rel=0.05)
