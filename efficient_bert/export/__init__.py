"""Export: a model with its policy as one ONNX graph, which runs one unpadded example at a time.

A policy's decision is traced, so that user-written policies export too; layers, heads and removal are built from the
weights.
"""

from efficient_bert.export.graph import OPSET
from efficient_bert.export.layers import Precision
from efficient_bert.export.network import export_graph

__all__ = ["OPSET", "Precision", "export_graph"]
