"""``twisted-registry fsck``: check everything that is stored, and repair what can be repaired.

It can run while a registry serves the store. Exit status: 0 if no client is affected, 3 if there is
damage that was not repaired, 1 if the check failed or something could not be repaired.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from attrs import define, field

from twisted_registry.app.integrity import make_fsck
from twisted_registry.app.stores import make_manifest_policy
from twisted_registry.commands.configured import (
    add_config_argument,
    add_json_argument,
    load_store_or_exit,
)
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar, format_count, print_json
from twisted_registry.commands.store import run_on_store
from twisted_registry.integrity.fsck import FsckObserver, FsckResult

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.integrity.findings import Finding

#: The exit status if there is damage that clients notice.
EXIT_DAMAGED = 3
_MIB = 1024 * 1024


@define(eq=False)
class FindingPrinter(FsckObserver):
    """Collects the findings, and prints them line by line.

    :ivar out: the stream to print to; None prints nothing.
    :ivar bar: shows the progress.
    :ivar findings: all findings so far.
    """

    out: TextIO | None
    bar: ProgressBar
    findings: list[Finding] = field(init=False, factory=list)
    _repositories: int = field(init=False, default=0)
    _drawn_bytes: int = field(init=False, default=0)

    @property
    def counts(self) -> bool:  # type: ignore[override]
        """Whether the total is needed, for the bar of a terminal."""
        return self.bar.is_visible

    def read(self, done: int, total: int) -> None:
        """Show how many bytes were read, at each MiB."""
        if done - self._drawn_bytes >= _MIB or done >= total:
            self._drawn_bytes = done
            self.bar.draw_progress("reading MiB", done // _MIB, total // _MIB)

    def repository_started(self, name: str) -> None:
        """Show the repository that is being checked."""
        self._repositories += 1
        count = format_count(self._repositories, "repository", "repositories")
        self.bar.show_line(f"checking: {count}, now {name[:BAR_WIDTH]}")

    def found(self, finding: Finding) -> None:
        """Keep a finding, and print it."""
        self.findings.append(finding)
        if self.out is not None:
            self.bar.clear_line()
            self.out.write(f"{finding}{' (repaired)' if finding.repaired else ''}\n")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--repair",
        action="store_true",
        help="repair what can be repaired, and quarantine corrupt blobs",
    )
    add_json_argument(parser)
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Check the store once, and print the findings.

    :returns: the exit status: 1 if the check or a repair failed, 3 if there is damage.
    """
    loaded = load_store_or_exit(options.file)
    configuration = loaded.configuration
    with ProgressBar.on(sys.stderr) as bar:
        printer = FindingPrinter(None if options.json else sys.stdout, bar)
        result = run_on_store(
            loaded,
            lambda driver, reactor: make_fsck(
                configuration,
                driver,
                reactor,
                policy=make_manifest_policy(configuration),
                repair=options.repair,
                observer=printer,
            ).run(),
        )
    if options.json:
        print_json(document(result, printer.findings))
    else:
        _print_result(result)
    return exit_status(result)


def exit_status(result: FsckResult) -> int:
    """Return the exit status: 3 if there is damage that clients notice, 1 if a repair failed."""
    if result.damaged or result.tags:
        return EXIT_DAMAGED
    return 1 if result.failed else 0


def _print_result(result: FsckResult) -> None:
    for tag in result.tags:
        sys.stdout.write(f"affected tag: {tag}\n")
    files = format_count(result.files, "blob or manifest", "blobs and manifests")
    repositories = format_count(result.repositories, "repository", "repositories")
    sys.stdout.write(
        f"{files} ({result.size} bytes) and {repositories} checked: {result.damaged} damaged, "
        f"{result.sparse} sparse, {result.harmless} harmless, {result.repaired} repaired"
        f"{f' ({result.failed} could not be)' if result.failed else ''}; "
        f"{format_count(len(result.tags), 'tag')} affected\n"
    )


def document(result: FsckResult, findings: list[Finding]) -> dict[str, object]:
    """Return what ``--json`` prints."""
    return {
        "files": result.files,
        "size": result.size,
        "repositories": result.repositories,
        "damaged": result.damaged,
        "sparse": result.sparse,
        "harmless": result.harmless,
        "repaired": result.repaired,
        "failed": result.failed,
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
            for tag in result.tags
        ],
    }
