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
    options = parser.parse_args(_without_values(sys.argv[1:] if arguments is None else arguments))
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
    if options.command == "garbage-collect":
        return _collect(loaded, options)
    return _check(loaded) if options.command == "check" else _serve(loaded)


def _without_values(arguments: Sequence[str]) -> list[str]:
    """Take flags as Go does, too: ``--dry-run=true`` is ``--dry-run``, ``=false`` is none."""
    return [
        argument.removesuffix("=true") if argument.startswith("-") else argument
        for argument in arguments
        if not (argument.startswith("-") and argument.endswith("=false"))
    ]


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
    collect = commands.add_parser(
        "garbage-collect",
        help="remove what nothing refers to, also beside a registry that serves",
        epilog=_WITHOUT_FILE,
    )
    for flags, text in (
        (("-d", "--dry-run"), "only say what would go"),
        (("-m", "--delete-untagged"), "also remove manifests that no tag holds"),
        (("-q", "--quiet"), "print the sums only"),
        (("--json",), "print one JSON document"),
    ):
        collect.add_argument(*flags, action="store_true", help=text)
    for command in (serve, check, collect):
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


def _collect(loaded: Loaded, options: argparse.Namespace) -> int:
    from twisted_registry.tap import collect  # noqa: PLC0415 - see above

    return collect(
        loaded,
        dry_run=options.dry_run,
        untagged=options.delete_untagged,
        quiet=options.quiet,
        as_json=options.json,
    )


def _serve(loaded: Loaded) -> int:
    with permanent():
        # Importing a reactor installs it, besides.
        from twisted_registry.tap import run  # noqa: PLC0415 - see above

    return run(loaded)


def _say(line: str) -> None:
    sys.stderr.write(f"twisted-registry: {line}\n")
