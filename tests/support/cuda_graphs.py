"""CUDA graphs that are not there: work is recorded operation by operation and repeated on the same tensors.

Inside `cuda_graphs()` torch's own names (`torch.cuda.CUDAGraph`, `torch.cuda.graph`, ..) record. As on a GPU

- a replay reads what its inputs hold by then, and overwrites the outputs that were recorded;
- Python does not run again, and a number that Python reads while work is recorded raises;
- graphs of one pool may lie in the same memory: a replay spoils what the others left there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.item, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero}


class HostReadError(RuntimeError):
    """A number was read, or a shape depends on one, while work was recorded."""


class Pool:
    """Graphs that share memory, and those of them whose results still lie there."""

    def __init__(self) -> None:
        self.intact: list[CUDAGraph] = []


class CUDAGraph:
    """Recorded operations: (operation, its arguments, the tensors that it returned)."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], list[Tensor]]] = []
        self.pool = Pool()

    def replay(self) -> None:
        """Repeat the operations, into the same tensors."""
        for other in self.pool.intact:
            if other is not self:
                other.spoil()
        self.pool.intact = [self]
        for func, args, kwargs, results in self.calls:
            for old, new in zip(results, tensors(func(*args, **kwargs)), strict=True):
                if old is not new:
                    old.copy_(new)

    def spoil(self) -> None:
        """Overwrite what was computed, but no view of what was given."""
        for func, _, _, results in self.calls:
            if all(returned.alias_info is None for returned in func._schema.returns):
                for result in results:
                    result.fill_(torch.nan if result.is_floating_point() else 1)


def tensors(values: Any) -> list[Tensor]:
    """All tensors in a result."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Recording(TorchDispatchMode):
    """`torch.cuda.graph`."""

    def __init__(self, graph: CUDAGraph, pool: Pool) -> None:
        super().__init__()
        self.graph = graph
        graph.pool = pool
        pool.intact.append(graph)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in READS:
            raise HostReadError(f"{func} while work is recorded")
        result = func(*args, **(kwargs or {}))
        self.graph.calls.append((func, args, kwargs or {}, tensors(result)))
        return result


@contextmanager
def cuda_graphs() -> Iterator[None]:
    """Let CUDA graphs be recorded for as long as the block runs."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    names: dict[str, Any] = {
        "CUDAGraph": CUDAGraph,
        "graph": Recording,
        "graph_pool_handle": Pool,
        "Stream": lambda: stream,
        "stream": nullcontext,
        "current_stream": lambda: stream,
    }
    with mock.patch.multiple(torch.cuda, **names):
        yield
