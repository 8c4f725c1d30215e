"""Rationales: explain models and compare with what people marked."""
