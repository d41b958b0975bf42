"""Builds the registry from its configuration, and runs it."""
