"""The machine: its load, quotas and GPUs, and what a record says of it."""
