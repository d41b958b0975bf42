"""Bytes under paths: the driver interface and the drivers."""
