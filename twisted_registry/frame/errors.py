"""Errors that end a start or a command with one line for the operator."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class StartError(Exception):
    """The registry cannot start; the text is one line that names the key and the cause."""


class CommandFailed(Exception):
    """A command cannot continue; the text is one line for the operator.

    :cvar exit_status: of the process.
    """

    exit_status = 1


class WrongUsage(CommandFailed):
    """An argument of a command is not valid; the text names it, and what was expected."""

    exit_status = 2


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
            f"{key}: needs the package {error.name}; to install it: {install_command(extra)}"
        ) from error


def install_command(extra: str) -> str:
    """Return the shell command that installs an extra for the interpreter that runs this.

    It names what the extra requires, so that it needs neither a package index that has this package
    nor the folder or wheel from which this package was installed.
    """
    # Not at the top: it takes long to import.
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415

    try:
        wanted = [each.partition(";") for each in requires("twisted-registry") or ()]
        what = [
            requirement.strip()
            for requirement, _, marker in wanted
            if f"'{extra}'" in marker.replace('"', "'")
        ]
    except PackageNotFoundError:  # a checkout on the path of modules
        what = [f"{Path(__file__).parents[2]}[{extra}]"]
    python = sys.executable
    if find_spec("pip"):
        return shlex.join([python, "-m", "pip", "install", *what])
    return shlex.join(["uv", "pip", "install", "--python", python, *what])
