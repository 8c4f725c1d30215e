"""A folder is a registry: every top-level object of one frozen dataclass type, under its `name`.

`METHODS`, `STAGES`, `EXPLAINERS`, `TASKS`, `BACKENDS`, `METRICS` and `PLOTS` are mappings that import their folder's
modules on first use. A new file in the folder, or in a folder of it, is a new entry; nothing else is edited.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from bench.errors import InputError

if TYPE_CHECKING:
    from analysis.plots import Plot
    from bench.backends import Backend
    from bench.metrics import Metric
    from bench.tasks import Task
    from efficient_bert.explainers import Explainer
    from efficient_bert.knobs import Knob
    from efficient_bert.methods import Method
    from efficient_bert.training import Stage


class Entry(Protocol):
    """What a registry needs of its entries."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...


T = TypeVar("T", bound=Entry)


class Registry(Mapping[str, T], Generic[T]):
    """The entries found in the modules of `package`: top-level instances of the class `type_name` defined there."""

    def __init__(self, kind: str, package: str, type_name: str) -> None:
        self.kind = kind
        self.package = package
        self.type_name = type_name

    @cached_property
    def entries(self) -> dict[str, T]:
        package = importlib.import_module(self.package)
        wanted = getattr(package, self.type_name)
        instances: dict[str, T] = {}
        origin: dict[str, str] = {}
        for info in sorted(pkgutil.walk_packages(package.__path__, f"{self.package}."), key=lambda info: info.name):
            module = importlib.import_module(info.name)
            for value in vars(module).values():
                if not isinstance(value, wanted) or instances.get(value.name) is value:
                    continue
                if value.name in instances:
                    raise InputError(
                        f"two {self.kind}s are called {value.name!r}: one in {origin[value.name]}, "
                        f"one in {module.__name__}; rename one of them"
                    )
                instances[value.name] = value
                origin[value.name] = module.__name__
        return dict(sorted(instances.items()))

    def __getitem__(self, name: str) -> T:
        if name in self.entries:
            return self.entries[name]
        close = difflib.get_close_matches(name, self.entries, n=1, cutoff=0.5)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"no {self.kind} is called {name!r}.{guess} There are: {', '.join(self.entries)}")

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


METHODS: Registry[Method] = Registry("method", "efficient_bert.methods", "Method")
STAGES: Registry[Stage] = Registry("stage", "efficient_bert.training", "Stage")
EXPLAINERS: Registry[Explainer] = Registry("explainer", "efficient_bert.explainers", "Explainer")
TASKS: Registry[Task] = Registry("task", "bench.tasks", "Task")
BACKENDS: Registry[Backend] = Registry("backend", "bench.backends", "Backend")
METRICS: Registry[Metric] = Registry("metric", "bench.metrics", "Metric")
PLOTS: Registry[Plot] = Registry("plot", "analysis.plots", "Plot")


def stages_of(method: Method) -> tuple[Stage, ...]:
    """Return the stages that train a method's model, first one first."""
    return STAGES[method.stage].chain


def all_knobs(method: Method) -> tuple[Knob, ...]:
    """Return the training knobs of a method's stages, first stage first, then its own."""
    return (*(knob for stage in stages_of(method) for knob in stage.knobs), *method.knobs)
