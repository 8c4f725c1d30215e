"""Input-adaptive BERT: an encoder that runs any set of tokens at any width to any depth, and methods that choose."""

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine import Batch, Execution, run
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
