"""Several processes that serve one listening socket over one store."""
