"""Time and memory of a garbage collection, compared with Distribution on equal stores.

``python -m tests.bench.collecting`` writes a store for each, file by file, in which every tenth
manifest has lost its link, and lets each collect twice. The first run deletes blobs, and has no
database of references yet; the second run finds nothing to delete.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import frozen

from tests.bench.kinds import environment
from tests.support.manifests import image

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance: {{gc: {{grace: 0s}}}}
http: {{addr: "127.0.0.1:0"}}
"""
#: One of so many manifests was deleted.
_DELETED_EVERY = 10
_MANIFESTS_PER_REPOSITORY = 100


@frozen
class StoreShape:
    """The content of a store.

    :ivar manifests: number of manifests, each with a tag.
    :ivar layers: layers of each manifest that no other manifest has.
    :ivar shared: layers that all manifests of a repository share.
    """

    manifests: int
    layers: int
    shared: int

    def fill(self, root: Path) -> None:
        """Write the store, without fsync."""
        tree = root / "docker/registry/v2"
        for start in range(0, self.manifests, _MANIFESTS_PER_REPOSITORY):
            repository = tree / "repositories" / f"group-{start // 10000}" / f"name-{start}"
            common = [f"shared {start} {number}".encode() for number in range(self.shared)]
            for blob in common:
                _write_layer(tree, repository, blob)
            for number in range(start, min(start + _MANIFESTS_PER_REPOSITORY, self.manifests)):
                self._write_image(tree, repository, number, common)

    def _write_image(self, tree: Path, repository: Path, number: int, common: list[bytes]) -> None:
        own = [f"layer {number} {layer}".encode() for layer in range(self.layers)]
        config = b'{"number": %d}' % number
        for blob in (config, *own):
            _write_layer(tree, repository, blob)
        manifest = image(config, *common, *own)
        digest = _write_blob(tree, manifest)
        if number % _DELETED_EVERY == 0:
            return
        tag = repository / "_manifests/tags" / f"v{number}"
        for folder in (
            repository / "_manifests/revisions/sha256" / digest,
            tag / "current",
            tag / "index/sha256" / digest,
        ):
            _write(folder / "link", f"sha256:{digest}".encode())


def _write_layer(tree: Path, repository: Path, blob: bytes) -> None:
    digest = _write_blob(tree, blob)
    _write(repository / "_layers/sha256" / digest / "link", f"sha256:{digest}".encode())


def _write_blob(tree: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    _write(tree / "blobs/sha256" / digest[:2] / digest / "data", content)
    return digest


def _write(path: Path, content: bytes) -> None:
    os.makedirs(path.parent, exist_ok=True)  # noqa: PTH103  twice as fast as pathlib
    with open(path, "wb") as out:  # noqa: PTH123
        out.write(content)


@frozen
class Usage:
    """Time and memory of a collection.

    :ivar seconds: from the start of the process to its end.
    :ivar cpu_seconds: processor time in seconds.
    :ivar peak_mib: peak memory in MiB.
    :ivar summary: the last line of the output.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    summary: str


def collect(command: list[str], root: Path) -> Usage:
    """Run a collection over a store."""
    config = root.parent / f"{root.name}.yml"
    config.write_text(_CONFIGURATION.format(root=root))
    begin = perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [*command, str(config)], stdout=out, stderr=subprocess.DEVNULL, env=environment()
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().decode().splitlines()
    if process.returncode:
        raise SystemExit(f"{command[0]}: exit {process.returncode}")
    summaries = [line for line in lines if "marked" in line]
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Usage(seconds, cpu_seconds, usage.ru_maxrss / 1024, summaries[-1] if summaries else "")


def commands(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Return the collectors: ours, and Distribution's if it is installed and chosen."""
    flags = ["garbage-collect", *(["--delete-untagged"] if options.untagged else [])]
    yield "ours", [sys.executable, "-m", "twisted_registry", *flags]
    theirs = shutil.which("docker-registry")
    if theirs and not options.only_ours:
        yield "docker-registry", [theirs, *flags]


def main() -> int:
    """Measure as the command line says, and print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.collecting", description=__doc__)
    add = parser.add_argument
    add("--manifests", type=int, default=2000)
    add("--layers", type=int, default=4, help="of each manifest alone, beside its configuration")
    add("--shared", type=int, default=0, help="of each manifest and all of its repository")
    add("--rounds", type=int, default=3, help="stores that are made for each")
    add("--only-ours", action="store_true")
    add("--untagged", action="store_true", help="collect with --delete-untagged")
    options = parser.parse_args()
    shape = StoreShape(options.manifests, options.layers, options.shared)
    usages: dict[tuple[str, str], list[Usage]] = {}
    for _ in range(options.rounds):
        for name, command in commands(options):
            with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
                root = Path(folder) / "store"
                shape.fill(root)
                for which in ("first", "second"):
                    usages.setdefault((which, name), []).append(collect(command, root))
    for (which, name), runs in sorted(usages.items()):
        seconds = median(run.seconds for run in runs)
        cpu_seconds = median(run.cpu_seconds for run in runs)
        peak_mib = max(run.peak_mib for run in runs)
        print(
            f"{which:7} {name:16} {seconds:8.2f} s, busy {cpu_seconds:8.2f} s,"
            f" {peak_mib:6.0f} MiB   {runs[-1].summary}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
