"""Rationales in ERASER's format (DeYoung et al., 2020)."""

from eraser_eval.errors import InputError
from eraser_eval.schema import Annotation, EraserDataset, Evidence, read_dataset, write_dataset

__all__ = ["Annotation", "EraserDataset", "Evidence", "InputError", "read_dataset", "write_dataset"]
