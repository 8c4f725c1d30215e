"""ERASER's files: read, checked and written."""
