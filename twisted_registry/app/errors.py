"""Errors that end a start or a command with one line for the operator."""

from __future__ import annotations


class StartError(Exception):
    """The registry cannot start; the text is one line that names the key and the cause."""


class CommandFailed(Exception):
    """A command cannot continue; the text is one line for the operator."""
