"""Flexible BERT's stages: subnets by neural grafting, and gates."""
