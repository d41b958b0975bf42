"""Time and memory of a garbage collection, compared with Distribution on equal stores.

``python -m tests.bench.collecting`` makes a store for each, file by file, in which every
tenth manifest has lost its link, and lets each collect twice. The first time there is something to
remove, and nothing is known of the manifests; the second time neither is so.
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
#: Of so many manifests one was deleted.
_DELETED = 10
#: Manifests of a repository.
_EACH = 100


@frozen
class Shape:
    """The content of a store.

    :ivar manifests: how many, each with a tag.
    :ivar layers: of each manifest, which no other manifest has.
    :ivar shared: layers that each has in common with all of its repository.
    """

    manifests: int
    layers: int
    shared: int

    def fill(self, root: Path) -> None:
        """Write the store, without fsync."""
        tree = root / "docker/registry/v2"
        for start in range(0, self.manifests, _EACH):
            repository = tree / "repositories" / f"group-{start // 10000}" / f"name-{start}"
            common = [f"shared {start} {number}".encode() for number in range(self.shared)]
            for blob in common:
                _blob(tree, repository, blob)
            for number in range(start, min(start + _EACH, self.manifests)):
                self._image(tree, repository, number, common)

    def _image(self, tree: Path, repository: Path, number: int, common: list[bytes]) -> None:
        own = [f"layer {number} {layer}".encode() for layer in range(self.layers)]
        config = b'{"number": %d}' % number
        for blob in (config, *own):
            _blob(tree, repository, blob)
        manifest = image(config, *common, *own)
        digest = _stored(tree, manifest)
        if number % _DELETED == 0:
            return
        tag = repository / "_manifests/tags" / f"v{number}"
        for folder in (
            repository / "_manifests/revisions/sha256" / digest,
            tag / "current",
            tag / "index/sha256" / digest,
        ):
            _write(folder / "link", f"sha256:{digest}".encode())


def _blob(tree: Path, repository: Path, blob: bytes) -> None:
    digest = _stored(tree, blob)
    _write(repository / "_layers/sha256" / digest / "link", f"sha256:{digest}".encode())


def _stored(tree: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    _write(tree / "blobs/sha256" / digest[:2] / digest / "data", content)
    return digest


def _write(path: Path, content: bytes) -> None:
    os.makedirs(path.parent, exist_ok=True)  # noqa: PTH103  twice as fast, a million times
    with open(path, "wb") as out:  # noqa: PTH123
        out.write(content)


@frozen
class Taken:
    """The measurements of a run.

    :ivar seconds: from the start of the process to its end.
    :ivar busy: seconds of processor time.
    :ivar peak: MiB of memory.
    :ivar said: its last line.
    """

    seconds: float
    busy: float
    peak: float
    said: str


def collect(command: list[str], root: Path) -> Taken:
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
    said = [line for line in lines if "marked" in line]
    busy = usage.ru_utime + usage.ru_stime
    return Taken(seconds, busy, usage.ru_maxrss / 1024, said[-1] if said else "")


def commands(asked: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Return the collectors: ours, and Distribution's if it is installed and chosen."""
    flags = ["garbage-collect", *(["--delete-untagged"] if asked.untagged else [])]
    yield "ours", [sys.executable, "-m", "twisted_registry", *flags]
    theirs = shutil.which("docker-registry")
    if theirs and not asked.only_ours:
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
    asked = parser.parse_args()
    shape = Shape(asked.manifests, asked.layers, asked.shared)
    taken: dict[tuple[str, str], list[Taken]] = {}
    for _ in range(asked.rounds):
        for name, command in commands(asked):
            with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
                root = Path(folder) / "store"
                shape.fill(root)
                for which in ("first", "second"):
                    taken.setdefault((which, name), []).append(collect(command, root))
    for (which, name), runs in sorted(taken.items()):
        seconds = median(run.seconds for run in runs)
        busy, peak = median(run.busy for run in runs), max(run.peak for run in runs)
        print(
            f"{which:7} {name:16} {seconds:8.2f} s, busy {busy:8.2f} s, {peak:6.0f} MiB"
            f"   {runs[-1].said}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
