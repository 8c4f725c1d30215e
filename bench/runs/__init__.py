"""Runs: train stages, evaluate arms, search, predict."""
