"""Periodic work on a store besides garbage collection and checks."""
