"""Stores: runs and trained stages on disk, with digests and locks."""
