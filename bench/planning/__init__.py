"""Plans: what a command trains and measures, checked before anything runs."""
