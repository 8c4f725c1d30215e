"""Backends: what answers examples."""
