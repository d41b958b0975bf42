"""``twisted-registry copy-store FROM TO``: everything of one store into another.

From a disk into a bucket, back, or from one bucket into another; each store is that of a
configuration. Either may be served meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import asdict, define
from twisted.internet.task import LoopingCall

from twisted_registry.app import standalone
from twisted_registry.app.errors import CommandFailed, StartError
from twisted_registry.app.stores import make_driver
from twisted_registry.commands.configured import load_or_exit, print_error
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar
from twisted_registry.maintenance.store_copy import StoreCopy, StoreCopyResult
from twisted_registry.storage.checked import CheckedDriver

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration
    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.storage.s3.driver import S3Driver

#: Seconds between two looks at how far it is.
_REDRAW_INTERVAL_S: Final = 0.5
_MIB: Final = 1024 * 1024


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    parser.epilog = (
        "REGISTRY_* variables are not looked at: they would hold for both stores. Those of AWS are."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("source", metavar="FROM", help="the configuration of the store to read")
    parser.add_argument("target", metavar="TO", help="the configuration of the store to fill")


def run(options: Namespace) -> int:
    """Copy what TO lacks, and print what was done.

    :returns: the exit status: 1 if it could not go on, or if something of FROM is damaged and was
        left out.
    """
    source = load_or_exit(options.source, {}).configuration
    target = load_or_exit(options.target, {}).configuration
    fault = _fault(source, target)
    if fault:
        print_error(fault)
        return 1
    bar = ProgressBar(sys.stderr) if sys.stderr.isatty() else None
    copied = standalone.run_once(lambda reactor: _copy(source, target, bar, reactor))
    if bar is not None:
        bar.clear()
    if copied is None:
        return 1
    if not copied.repositories:
        print_error("FROM holds no repository: is its rootdirectory the right one?")
        return 1
    if options.json:
        sys.stdout.write(f"{json.dumps(asdict(copied))}\n")
    else:
        _tell(copied)
    return 1 if copied.damaged else 0


def _fault(source: Configuration, target: Configuration) -> str:
    """Why nothing can be copied, or an empty text."""
    for configuration in source, target:
        if "inmemory" in configuration.storage.drivers:
            return "storage.inmemory: a store in memory is gone when the command ends"
    files = source.storage.filesystem
    if files is not None and not Path(files.rootdirectory).is_dir():
        return f"storage.filesystem.rootdirectory: {files.rootdirectory}: there is no such folder"
    if _store_identity(source) == _store_identity(target):
        return "FROM and TO are the same store"
    return ""


def _store_identity(configuration: Configuration) -> tuple[str, ...]:
    storage = configuration.storage
    if storage.bucket is not None:
        bucket = storage.bucket
        return "bucket", bucket.description, bucket.bucket, bucket.rootdirectory.strip("/")
    assert storage.filesystem is not None
    return "folder", str(Path(storage.filesystem.rootdirectory).resolve())


async def _copy(
    source: Configuration, target: Configuration, bar: ProgressBar | None, reactor: Any
) -> StoreCopyResult:
    drivers: list[IStorageDriver] = []
    try:
        drivers.append(await _open_checked(source, reactor))
        drivers.append(await _open_checked(target, reactor))
        copy = StoreCopy(*(CheckedDriver(driver, reactor) for driver in drivers))
        drawing = LoopingCall(CopyProgress(copy, bar).draw)
        drawing.clock = reactor
        drawing.start(_REDRAW_INTERVAL_S)
        try:
            return await copy.run()
        finally:
            drawing.stop()
    except StartError as error:
        raise CommandFailed(str(error)) from error
    finally:
        for driver in drivers:
            await driver.close()


async def _open_checked(configuration: Configuration, reactor: Any) -> IStorageDriver:
    driver = make_driver(configuration, reactor, os.environ)
    if configuration.storage.bucket is not None:
        # Only here: a disk needs none of it.
        from twisted_registry.app.s3 import require_bucket  # noqa: PLC0415

        try:
            await require_bucket(configuration.storage.drivers[0], cast("S3Driver", driver))
        except BaseException:
            await driver.close()
            raise
    return driver


@define(eq=False)
class CopyProgress:
    """Shows on a terminal, if there is one, how far a copy is."""

    copy: StoreCopy
    bar: ProgressBar | None

    def draw(self) -> None:
        """Draw how far it is."""
        copy = self.copy
        if self.bar is None:
            return
        if copy.name:
            self.bar.say(
                f"linking: {copy.done.repositories} repositories, now {copy.name[:BAR_WIDTH]}"
            )
        else:
            self.bar.draw("MiB", copy.processed_bytes // _MIB, copy.total // _MIB)


def _tell(copied: StoreCopyResult) -> None:
    sys.stdout.write(
        f"{copied.blobs} blobs copied ({copied.bytes} bytes), {copied.present} were there already; "
        f"{copied.manifests} manifests and {copied.tags} tags linked in {copied.repositories} "
        "repositories\n"
    )
    for line in copied.damaged:
        sys.stdout.write(f"{line}\n")
