"""Backbones: find, check and load a pre-trained encoder."""
