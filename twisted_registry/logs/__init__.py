"""Log lines: their formats, and where events come from."""
