"""The HTTP API of the distribution specification: one module for each resource below ``/v2/``."""
