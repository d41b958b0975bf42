"""Garbage collection while clients push; the protocol is described in ``gate.py``."""
