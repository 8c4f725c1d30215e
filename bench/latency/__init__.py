"""Single-instance latency: the protocol and its session."""
