"""The harness: tasks, training on demand, evaluation, timing and the store of runs."""

__version__ = "0.2.3"
