"""The ``twisted-registry`` command, also installed as ``registry``.

``serve`` takes what ``registry serve`` of Distribution takes, so that scripts and units go on.
Each command imports what it needs, and no more: a version is printed at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from twisted_registry import __version__
from twisted_registry.heap import permanent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.config.loading import Loaded

_WITHOUT_FILE = (
    "without FILE: REGISTRY_CONFIGURATION_PATH, /etc/distribution/config.yml, "
    "/etc/docker/registry/config.yml, or a built-in default"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: those of the process if None.
    :returns: the exit status: 0, 1 for what is wrong with configuration or start, 2 for usage.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command in (None, "help"):
        parser.print_help()
        return 0 if options.command else 2
    with permanent():
        from twisted_registry.config.faults import ConfigurationError  # noqa: PLC0415 - see above
        from twisted_registry.config.loading import load  # noqa: PLC0415 - see above
    try:
        loaded = load(options.file, os.environ)
    except ConfigurationError as error:
        for line in error.lines():
            _say(line)
        return 1
    return _check(loaded) if options.command == "check" else _serve(loaded)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twisted-registry",
        description="A container-image registry (OCI and Docker distribution protocol).",
    )
    version = f"twisted-registry {__version__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the registry", epilog=_WITHOUT_FILE)
    check = commands.add_parser(
        "check",
        help="validate a configuration and print what holds, secrets masked",
        epilog=_WITHOUT_FILE,
    )
    for command in (serve, check):
        command.add_argument("file", nargs="?", metavar="FILE", help="the configuration (YAML)")
    commands.add_parser("help", help="print this text")
    return parser


def _check(loaded: Loaded) -> int:
    from twisted_registry.config.effective import effective_yaml  # noqa: PLC0415 - see above

    _say(f"configuration: {loaded.source}")
    for warning in loaded.warnings:
        _say(f"warning: {warning}")
    for notice in loaded.notices:
        _say(notice)
    sys.stdout.write(effective_yaml(loaded.configuration))
    return 0


def _serve(loaded: Loaded) -> int:
    with permanent():
        # Importing a reactor installs it, besides.
        from twisted_registry.tap import run  # noqa: PLC0415 - see above

    return run(loaded)


def _say(line: str) -> None:
    sys.stderr.write(f"twisted-registry: {line}\n")
