"""Input-adaptive BERT: an encoder that runs any set of tokens at any width to any depth, and methods that choose.

A name's module is imported when the name is first used, so that `efficient_bert.errors` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efficient_bert.config import EfficientBertConfig
    from efficient_bert.engine.batch import Batch
    from efficient_bert.engine.loop import Execution, run
    from efficient_bert.errors import InputError
    from efficient_bert.model import EfficientBertForSequenceClassification

__all__ = [
    "Batch",
    "EfficientBertConfig",
    "EfficientBertForSequenceClassification",
    "Execution",
    "InputError",
    "run",
]

MODULES = {
    "Batch": "engine.batch",
    "EfficientBertConfig": "config",
    "EfficientBertForSequenceClassification": "model",
    "Execution": "engine.loop",
    "InputError": "errors",
    "run": "engine.loop",
}
"""Public name -> the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
