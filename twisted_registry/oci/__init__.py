"""Grammar and documents of the OCI specifications; pure functions and values."""
