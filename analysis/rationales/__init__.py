"""Pages and figures of rationales."""
