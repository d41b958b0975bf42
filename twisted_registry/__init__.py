"""A container-image registry: the Docker and OCI distribution protocol on Twisted."""

__version__ = "0.1.0"
