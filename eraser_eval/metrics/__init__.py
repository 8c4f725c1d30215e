"""ERASER's metrics."""
