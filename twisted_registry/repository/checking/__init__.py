"""Looks for what is damaged in a store, and takes it out of the way."""
