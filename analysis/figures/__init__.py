"""Figures: curves, labels and one look for each method."""
