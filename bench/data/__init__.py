"""Data: find, read, check and encode the files of a task."""
