"""``twisted-registry fsck``: look at everything that is stored, and repair what can be.

It may run beside a registry that serves. Exit status: 0 if nothing is wrong that a client would
notice, 3 if something is (and stays so), 1 if the check could not go on.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from attrs import define, field

from twisted_registry.app import standalone
from twisted_registry.app.errors import CommandFailed, StartError
from twisted_registry.app.maintenance import make_fsck
from twisted_registry.app.stores import make_driver, make_manifest_policy
from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar
from twisted_registry.integrity.fsck import FsckObserver, FsckResult
from twisted_registry.storage.checked import CheckedDriver

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration
    from twisted_registry.integrity.findings import Finding

#: The exit status when something is wrong that clients notice.
EXIT_DAMAGED = 3
_MIB = 1024 * 1024


@define(eq=False)
class FindingPrinter(FsckObserver):
    """Keeps what is found, and prints it line by line.

    :ivar out: where to; None prints nothing.
    :ivar bar: drawn on a terminal, or None.
    """

    out: TextIO | None
    bar: ProgressBar | None
    kept: list[Finding] = field(factory=list)
    _repositories: int = field(init=False, default=0)
    _drawn: int = field(init=False, default=0)

    @property
    def counts(self) -> bool:  # type: ignore[override]
        """Whether a bar is drawn."""
        return self.bar is not None

    def read(self, done: int, total: int) -> None:
        """Draw how far it is, at each MiB."""
        if self.bar is not None and (done - self._drawn >= _MIB or done >= total):
            self._drawn = done
            self.bar.draw("reading MiB", done // _MIB, total // _MIB)

    def repository_started(self, name: str) -> None:
        """Show the repository."""
        self._repositories += 1
        if self.bar is not None:
            self.bar.say(f"checking: {self._repositories} repositories, now {name[:BAR_WIDTH]}")

    def found(self, finding: Finding) -> None:
        """Print it."""
        self.kept.append(finding)
        if self.out is not None:
            if self.bar is not None:
                self.bar.clear()
            self.out.write(f"{finding}{' (repaired)' if finding.repaired else ''}\n")


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument(
        "--repair",
        action="store_true",
        help="put right what can be; quarantine corrupt blobs",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Check once, and print what was found.

    :returns: the exit status: 1 if the check could not go on, 3 if there is damage.
    """
    configuration = load_or_exit(options.file).configuration
    if "inmemory" in configuration.storage.drivers:
        print_error("storage.inmemory: a store in memory has nothing to check")
        return 1
    bar = ProgressBar(sys.stderr) if sys.stderr.isatty() else None
    findings = FindingPrinter(None if options.json else sys.stdout, bar)
    checked = standalone.run_once(lambda reactor: _check(configuration, options, findings, reactor))
    if bar is not None:
        bar.clear()
    if checked is None:
        return 1
    if options.json:
        sys.stdout.write(f"{json.dumps(document(checked, findings.kept))}\n")
    else:
        _tell(checked)
    return exit_status(checked)


def exit_status(checked: FsckResult) -> int:
    """What the command ends with: 3 if there is something that clients notice, else 0."""
    return EXIT_DAMAGED if checked.damaged or checked.tags else 0


async def _check(
    configuration: Configuration, options: Namespace, findings: FindingPrinter, reactor: Any
) -> FsckResult:
    try:
        driver = make_driver(configuration, reactor, os.environ)
    except StartError as error:
        raise CommandFailed(str(error)) from error
    fsck = make_fsck(
        configuration,
        CheckedDriver(driver, reactor),
        reactor,
        policy=make_manifest_policy(configuration),
        repair=options.repair,
        observer=findings,
    )
    try:
        return await fsck.run()
    finally:
        await driver.close()


def _tell(checked: FsckResult) -> None:
    for tag in checked.tags:
        sys.stdout.write(f"affected tag: {tag}\n")
    sys.stdout.write(
        f"{checked.files} blobs and manifests ({checked.size} bytes) and {checked.repositories} "
        f"repositories checked: {checked.damaged} damaged, {checked.sparse} sparse, "
        f"{checked.harmless} harmless, {checked.repaired} repaired; "
        f"{len(checked.tags)} tags affected\n"
    )


def document(checked: FsckResult, findings: list[Finding]) -> dict[str, object]:
    """What ``--json`` prints of a check and of what it found."""
    return {
        "files": checked.files,
        "size": checked.size,
        "repositories": checked.repositories,
        "damaged": checked.damaged,
        "sparse": checked.sparse,
        "harmless": checked.harmless,
        "repaired": checked.repaired,
        "findings": [
            {
                "kind": finding.kind.value,
                "path": finding.path,
                "detail": finding.detail,
                "digest": None if finding.digest is None else str(finding.digest),
                "repository": finding.repository or None,
                "severity": finding.severity.value,
                "repaired": finding.repaired,
            }
            for finding in findings
        ],
        "tags": [
            {
                "repository": tag.repository,
                "tag": tag.tag,
                "because": [str(digest) for digest in tag.causes],
            }
            for tag in checked.tags
        ],
    }
