"""The command line's flags and help."""
