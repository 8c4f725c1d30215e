"""Dropout on a CPU: its probability, its mean, its gradient."""

import pytest
import torch

from efficient_bert.encoder.dropout import Dropout, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_dropout_has_its_probability(dtype: torch.dtype, rate: float) -> None:
    """Of a million values that fraction goes (five standard deviations), elsewhere than before; the rest is scaled."""
    torch.manual_seed(0)
    ones = torch.ones(1001, 999, dtype=dtype)
    first, second = dropout(ones, rate), dropout(ones, rate)
    for one in (first, second):
        assert one.dtype == dtype
        assert sorted(set(one.flatten().tolist())) == [0.0, pytest.approx(1 / (1 - rate), rel=torch.finfo(dtype).eps)]
        assert float((one == 0).double().mean()) == pytest.approx(rate, abs=5e-3 * (rate * (1 - rate)) ** 0.5)
    both = float(((first == 0) & (second == 0)).double().mean())
    assert both == pytest.approx(rate**2, abs=5e-3 * (rate**2 * (1 - rate**2)) ** 0.5)


def test_neighbours_are_dropped_independently() -> None:
    """The four numbers of one draw know nothing of each other: of two neighbours both go as often as chance has it."""
    torch.manual_seed(0)
    gone = (dropout(torch.ones(1_000_000), 0.25) == 0).view(-1, 4)
    for other in (1, 2, 3):
        both = float((gone[:, 0] & gone[:, other]).double().mean())
        assert both == pytest.approx(1 / 16, abs=5 * (15 / 256 / 250_000) ** 0.5)
    assert (gone.double().mean(0) - 0.25).abs().max() < 5 * (3 / 16 / 250_000) ** 0.5


def test_gradient_flows_through_what_stays() -> None:
    """The derivative is 0 where a value went, else the factor of the others."""
    torch.manual_seed(0)
    values = torch.rand(10_000, requires_grad=True)
    left = dropout(values, 0.3)
    (gradient,) = torch.autograd.grad(left.sum(), values)
    torch.testing.assert_close(gradient, torch.where(left == 0, 0.0, 1 / 0.7))


@pytest.mark.parametrize(("rate", "left"), [(0.0, 1.0), (1e-7, 1.0), (1.0, 0.0)])
def test_rates_at_the_ends(rate: float, left: float) -> None:
    """Never and always are never and always; a rate that 16 bits cannot tell from 0 is torch's to draw."""
    torch.manual_seed(0)
    torch.testing.assert_close(dropout(torch.ones(100), rate), torch.full((100,), left))


@pytest.mark.parametrize("rate", [2**-16, 1 - 2**-16])
def test_the_smallest_steps_are_exact(rate: float) -> None:
    """One of 65,536 numbers drops a value, or keeps it: of four million 64 (five standard deviations are 40)."""
    torch.manual_seed(0)
    gone = int((dropout(torch.ones(2**22), rate) == 0).sum())
    assert min(gone, 2**22 - gone) == pytest.approx(64, abs=40)


def test_the_module_drops_only_in_training() -> None:
    """As `nn.Dropout`; the same state of the generator drops the same values."""
    module, ones = Dropout(0.5), torch.ones(1000)
    assert module.eval()(ones) is ones
    module.train()
    torch.manual_seed(3)
    first = module(ones)
    torch.manual_seed(3)
    assert torch.equal(first, module(ones))
    assert 0 < int((first == 0).sum()) < 1000
