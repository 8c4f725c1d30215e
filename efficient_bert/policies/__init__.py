"""Policies: pure functions that decide which tokens stay, which examples leave and how wide layers run."""
