"""Pages: reports for a browser."""
