"""Errors that end a start or a command with one line for the operator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class StartError(Exception):
    """The registry cannot start; the text is one line that names the key and the cause."""


class CommandFailed(Exception):
    """A command cannot continue; the text is one line for the operator."""


@contextmanager
def require_extra(extra: str, key: str) -> Iterator[None]:
    """Import modules that need an extra of the package.

    :param key: the key of the configuration that needs them.
    :raises StartError: if the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise StartError(
            f"{key}: needs the package {error.name}: install twisted-registry[{extra}]"
        ) from error
