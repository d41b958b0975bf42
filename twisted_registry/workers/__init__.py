"""Worker processes that accept from one listening socket and share one store."""
