"""FLOPs: the project's closed form, two independent counters, and the authors' own counts."""
