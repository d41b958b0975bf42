"""HTTP/1.1 server engine, and a client for other services. Knows no registry."""
