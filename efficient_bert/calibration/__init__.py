"""Calibration: what is measured of a trained model before it runs."""
