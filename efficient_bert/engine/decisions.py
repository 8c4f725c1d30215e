"""One question between two layers, asked with a `View`, answered with a `Decision` by a `Policy`.

Legend of shapes, here and in every policy: B live examples, L tokens, D hidden size, F inner size, H heads,
C classes, N layers, E exits evaluated so far. Masks are bool, true = present.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """What a policy may look at between two layers.

    Attributes:
        depth: layers run so far, 0..N-1.
        hidden: (B, L, D) states about to enter the next layer; meaningless where mask is false.
        mask: (B, L) bool, live tokens.
        positions: (B, L) int64, where each live token stood in its input.
        length: (B,) int64, tokens that entered layer 0.
        logits: (E, B, C) from the exits so far: the history lives here, so policies carry no state.
        fades: in `soft` execution the fades decided so far, each (B, L), oldest first; None where decisions are hard.
        fingerprints: (B,) int64 that each example's word pieces make, the same in any batch; for policies that choose
            at random.
        unpadded: every cell of `mask` is known to be true, so that nothing needs to read it.
    """

    depth: int
    hidden: Tensor
    mask: Tensor
    positions: Tensor
    length: Tensor
    logits: Tensor
    fades: tuple[Tensor, ...] | None = None
    fingerprints: Tensor | None = None
    unpadded: bool = False

    def first(self) -> Tensor:
        """Return (B, D): the state of each example's first token, [CLS]."""
        return first_states(self.hidden, self.mask)


@dataclass(frozen=True)
class Decision:
    """A policy's answer; None changes nothing.

    Attributes:
        keep: (B, L) bool, tokens that stay; the first token stays in any case.
        leave: (B,) bool, examples that are done: their answer is the newest exit's.
        width: (B,) float in (0, 1], the fraction of heads and neurons of the next layer, and of those after it until
            the next answer; n = round(width * H) heads and n F / H neurons (DynaBERT, Hou et al., 2020, section 2.1).
        fade: (B, L) float <= 0, added to the attention logits of these tokens from here on (`soft` only).
        macs: multiply-adds that the policy's own modules spent on this decision: (B,) int64, or one number for each.
        scores: (B, L) float, how much each token contributes in the policy's eyes; recorded, never acted on.
    """

    keep: Tensor | None = None
    leave: Tensor | None = None
    width: Tensor | None = None
    fade: Tensor | None = None
    macs: Tensor | int | None = None
    scores: Tensor | None = None


@dataclass(frozen=True)
class Policy:
    """A method with its knobs set.

    Attributes:
        decide: the decision before each layer, a pure tensor function; None decides nothing and costs nothing.
        exits: depths at which an exit head is evaluated.
        layers: indices of the layers that run, ascending; None runs all.
        widths: of each of the layers that run, for examples whose width no decision names; None for the full width.
        needs_fingerprints: it reads the view's `fingerprints`.
    """

    decide: Callable[[View], Decision] | None = None
    exits: tuple[int, ...] = ()
    layers: tuple[int, ...] | None = None
    widths: tuple[float, ...] | None = None
    needs_fingerprints: bool = False


def first_states(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each row's first live token, [CLS]: states (B, L, D) and mask (B, L) -> (B, D)."""
    return states[torch.arange(len(mask), device=mask.device), mask.int().argmax(1)]
