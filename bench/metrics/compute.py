"""Metrics of computation: FLOPs, layers and tokens. The same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.ratio import columns, ratio_metric

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def _flops_against_reference(examples: pd.DataFrame) -> NDArray[np.float64]:
    return columns(examples["reference_flops"], examples["flops"])


def _released_against_reference(examples: pd.DataFrame) -> NDArray[np.float64]:
    return columns(examples["released_reference_flops"], examples["released_flops"])


def _gflops(examples: pd.DataFrame) -> NDArray[np.float64]:
    return columns(examples["flops"].to_numpy() / 1e9, 1.0)


def _exit_depth(examples: pd.DataFrame) -> NDArray[np.float64]:
    return columns(examples["exit_depth"], 1.0)


def _tokens_kept(examples: pd.DataFrame) -> NDArray[np.float64]:
    pairs = zip(examples["tokens"], examples["length"], strict=True)
    return columns([sum(tokens) / (length * len(tokens)) for tokens, length in pairs], 1.0)


FLOPS_SPEEDUP = ratio_metric(
    "flops_speedup",
    "full model's FLOPs over this run's FLOPs: analytic, unpadded lengths, ratio of sums over examples",
    terms=_flops_against_reference,
    higher_is_better=True,
    headline=True,
    format="{:z.2f}".format,
)
RELEASED_FLOPS_SPEEDUP = ratio_metric(
    "released_flops_speedup",
    "the same as the method's authors count, their omissions included: for comparison with published figures only",
    terms=_released_against_reference,
    higher_is_better=True,
    format="{:z.2f}".format,
)
GFLOPS = ratio_metric(
    "gflops",
    "mean over examples of 1e9 FLOPs (a multiply-add is 2), analytic, unpadded lengths",
    terms=_gflops,
    higher_is_better=False,
    format="{:z.2f}".format,
)
MEAN_EXIT_DEPTH = ratio_metric(
    "mean_exit_depth",
    "mean number of layers run before the answer",
    terms=_exit_depth,
    higher_is_better=False,
    headline=True,
    format="{:z.2f}".format,
)
TOKENS_KEPT = ratio_metric(
    "tokens_kept",
    "mean over examples of live tokens summed over layers / (length x layers); a layer not run keeps none",
    terms=_tokens_kept,
    higher_is_better=False,
)
