"""Tokens that the registry issues: bearer tokens, robot tokens and refresh tokens."""
