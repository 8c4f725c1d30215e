"""A GPU that is not there: tensors moved to "cuda" are labelled, computed on the CPU, and refuse to meet CPU tensors.

Inside `accelerator()` code that is told to use "cuda" runs to its end, with right numbers, on a machine without a GPU.
A labelled tensor says that it is on `cuda:0`. As on a GPU, an operation on it and on a CPU tensor raises, except that

- a CPU tensor of no dimension counts as a number, but not where tensors are joined;
- a CPU tensor may index it;
- a copy goes anywhere (`to`, `cpu`, `copy_`, `item`, `tolist`), but `numpy` wants a copy on the CPU first;
- random numbers for it are drawn by a generator on its device, or by the default one.

Inside torch a labelled tensor is on the meta device, which every build has and whose gradients need no thread of their
own. Memory layout, streams, autocast and the numerics of GPU kernels are not imitated.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
META = torch.device("meta")
CPU = torch.device("cpu")

aten = torch.ops.aten
COPIES = {aten._to_copy, aten.to, aten.copy, aten.copy_, aten._foreach_copy_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
JOINS = {aten.cat, aten.stack, aten.concat, aten.hstack, aten.vstack}


class MixedDevicesError(RuntimeError):
    """An operation that a GPU refuses."""


class Labelled(Tensor):
    """A tensor on the accelerator; its numbers lie in `on_cpu`."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Labelled:
        with torch.inference_mode(values.is_inference()):  # a view of a normal tensor is one in any mode
            made: Labelled = Tensor._make_wrapper_subclass(
                cls,
                values.shape,
                strides=values.stride(),
                storage_offset=values.storage_offset(),
                dtype=values.dtype,
                device=META,
            )
        made.on_cpu = values
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where user code believes that it is."""
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """As `device`."""
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        """As `device`."""
        return False

    def tolist(self) -> Any:
        """Copy to the CPU, and list."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as a GPU does, unless a copy is asked for.

        Raises:
            TypeError: no copy is asked for.
        """
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; copy the tensor to the CPU first")
        return self.detach().cpu().numpy()

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"on cuda: {self.on_cpu!r}"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry out an operation on the CPU; its results are labelled where a GPU's would be on the GPU."""
    leaves = tree_leaves((args, kwargs))
    targets = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    there = any(isinstance(leaf, Labelled) for leaf in leaves)
    if not there and META not in targets:
        return func(*args, **kwargs)
    require_one_device(func, args, kwargs)
    result = func(*tree_map(inside, args), **tree_map(inside, dict(kwargs)))
    if targets and there == (META not in targets) and any(result is inside(leaf) for leaf in leaves):
        result = result.clone()  # the CPU, which is already where the copy goes, made none
    if targets and META not in targets:
        return result
    known: dict[int, Tensor] = {id(leaf.on_cpu): leaf for leaf in leaves if isinstance(leaf, Labelled)}
    if func._schema.is_mutable:  # a CPU tensor that is copied to stays one
        known |= {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
    return tree_map(lambda value: known[id(value)] if id(value) in known else label(value), result)


def inside(value: Any) -> Any:
    """What the CPU computes with: the numbers of a labelled tensor; the CPU for the accelerator."""
    if isinstance(value, Labelled):
        return value.on_cpu
    return CPU if value == META and isinstance(value, torch.device) else value


def label(value: Any) -> Any:
    """Put a label on a tensor that has none."""
    return Labelled(value) if isinstance(value, Tensor) and not isinstance(value, Labelled) else value


def require_one_device(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise MixedDevicesError where a GPU refuses to take these arguments together."""
    operation = func.overloadpacket
    if operation in COPIES:
        return
    if operation in INDEXED and isinstance(args[0], Labelled):
        indices = [index for index in args[1] if isinstance(index, Labelled)]
        args = (args[0], indices, *args[2:])
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    strangers = [each for each in tensors if not isinstance(each, Labelled) and (each.ndim or operation in JOINS)]
    if strangers and len(strangers) < len(tensors):
        shapes = ", ".join(f"{tuple(each.shape)} on {each.device}" for each in tensors)
        raise MixedDevicesError(f"{func} takes tensors of one device, but these are {shapes}")
    generators = [leaf for leaf in leaves if isinstance(leaf, torch.Generator)]
    if any(generator.device.type == "cpu" for generator in generators):
        raise MixedDevicesError(f"{func} draws numbers on cuda by a generator on the cpu")


class _Compute(TorchDispatchMode):
    """Sees also operations that name the accelerator and take no labelled tensor."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return compute(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """Translates the name "cuda", for which a build without CUDA raises."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = {name: translate(value) for name, value in (kwargs or {}).items()}
        if func in (torch.tensor, torch.as_tensor) and named.get("device") == META:
            return func(*args, **{**named, "device": CPU}).to(META)
        if func is Tensor.new_tensor and isinstance(args[0], Labelled):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **named}).to(META)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], index_tensors(args[1]), *args[2:])
        if func == Tensor.data.__set__ and isinstance(args[0], Labelled):  # type: ignore[attr-defined]
            args[0].on_cpu = args[1].on_cpu
        return func(*map(translate, args), **named)


def index_tensors(index: Any) -> Any:
    """Make tensors of the lists in an index, of which torch makes tensors without values on the meta device."""
    if isinstance(index, tuple):
        return tuple(map(index_tensors, index))
    return torch.tensor(index, dtype=None if index else torch.int64) if isinstance(index, list) else index


def translate(value: Any) -> Any:
    """Replace the accelerator's name by that of the device that stands for it; leave anything else."""
    if isinstance(value, str) and value.split(":")[0] == "cuda":
        return META
    return META if isinstance(value, torch.device) and value.type == "cuda" else value


@contextmanager
def accelerator() -> Iterator[None]:
    """Let "cuda" be a device for as long as the block runs, and accelerate's choice where it may choose."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="User provided device_type of 'cuda'")  # autocast, which is off
        AcceleratorState._reset_state(reset_partial_state=True)
        stack.callback(AcceleratorState._reset_state, reset_partial_state=True)
        stack.enter_context(mock.patch.object(PartialState, "default_device", CUDA))
        stack.enter_context(_Compute())
        stack.enter_context(_Names())
        yield
