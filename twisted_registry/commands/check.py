"""``twisted-registry check``: validate a configuration and print it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from twisted_registry.app.start_checks import check_start
from twisted_registry.commands.configured import add_config_argument, load_or_exit
from twisted_registry.commands.output import print_error
from twisted_registry.config.loading import effective_yaml
from twisted_registry.frame.errors import CommandFailed, StartError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.loading import LoadedConfiguration


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--bucket",
        action="store_true",
        help="also list and write the bucket of storage.s3, as serve does when it starts",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="check all that doctor checks, and print no configuration",
    )
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Print the effective configuration; warnings and notices go to standard error.

    :returns: the exit status: 1 if serve would end at its start.
    :raises CommandFailed: if the bucket cannot be used as configured.
    """
    if options.full:
        from twisted_registry.commands.doctor import run_doctor  # noqa: PLC0415 - Twisted

        return run_doctor(options.file)
    loaded = load_or_exit(options.file)
    print_error(f"configuration: {loaded.source}")
    for warning in loaded.warnings:
        print_error(f"warning: {warning}")
    for notice in loaded.notices:
        print_error(notice)
    found = check_start(loaded.configuration, os.environ)
    for finding in found:
        prefix = "warning: " if finding.is_warning else f"{loaded.origin}: "
        print_error(f"{prefix}{finding}")
    if any(not finding.is_warning for finding in found):
        return 1
    if loaded.configuration.storage.bucket is not None:
        _check_bucket(loaded, requests=options.bucket)
    sys.stdout.write(effective_yaml(loaded.configuration))
    return 0


def _check_bucket(loaded: LoadedConfiguration, *, requests: bool) -> None:
    """Make the driver of the bucket and its middleware, which finds what is wrong with them.

    :param requests: whether to send requests to the store.
    """
    # Imported late: they import the reactor and an HTTP client.
    from twisted_registry.app import standalone  # noqa: PLC0415
    from twisted_registry.app.middleware import apply_middleware  # noqa: PLC0415
    from twisted_registry.app.s3 import require_bucket  # noqa: PLC0415
    from twisted_registry.app.stores import make_driver, s3_section_name  # noqa: PLC0415

    configuration = loaded.configuration

    async def check(reactor: Any) -> None:
        try:
            driver: Any = make_driver(configuration, reactor, os.environ)
            try:
                apply_middleware(configuration, driver, reactor)
                if requests:
                    writes = not configuration.storage.maintenance.readonly.enabled
                    await require_bucket(s3_section_name(configuration), driver, writes=writes)
            finally:
                await driver.close()
        except StartError as error:
            raise CommandFailed(f"{loaded.origin}: {error}") from error

    standalone.run_once(check)
