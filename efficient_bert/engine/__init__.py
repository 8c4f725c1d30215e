"""The engine: one loop that carries out what a policy decides; it knows no model class."""

from efficient_bert.engine.batch import Batch
from efficient_bert.engine.loop import Execution, run
from efficient_bert.engine.recorder import Output

__all__ = ["Batch", "Execution", "Output", "run"]
