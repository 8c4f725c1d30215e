"""Tables: runs as frames, statistics and summaries."""
