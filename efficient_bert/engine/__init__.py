"""The engine: one loop that carries out what a policy decides; it knows no model class."""

from efficient_bert.engine.loop import Batch, Execution, Output, run

__all__ = ["Batch", "Execution", "Output", "run"]
