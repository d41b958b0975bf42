"""Tokens that the registry itself gives: short-lived ones, robots', those of CI systems."""
