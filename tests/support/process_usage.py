"""Samples of what processes hold, and whether it grows."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen
class Usage:
    """What one process holds.

    :ivar connections: sockets, listening ones included.
    :ivar files: other descriptors; the registry keeps a bounded number of small files open.
    """

    connections: int
    files: int
    threads: int
    memory_kib: int


def usage(pid: int) -> Usage:
    """Return what a process holds now.

    :raises ProcessLookupError: there is no such process, or it has ended.
    """
    status = {
        name: value.split()[0]
        for name, _, value in (
            line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        if value.strip()
    }
    if "RssAnon" not in status:
        raise ProcessLookupError(pid)
    connections = files = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            is_socket = str(descriptor.readlink()).startswith("socket:")
            connections, files = connections + is_socket, files + (not is_socket)
    # Pages of files, such as shared libraries, are not counted.
    return Usage(connections, files, int(status["Threads"]), int(status["RssAnon"]))


def count_uploads(store: Path, repositories: Sequence[str]) -> int:
    """Return the number of unfinished uploads of some repositories in a store."""
    count = 0
    for name in repositories:
        with suppress(FileNotFoundError):
            folder = store / "docker/registry/v2/repositories" / name / "_uploads"
            count += len(list(folder.iterdir()))
    return count


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much a series grows from its first to its last point.

    The slope is the median of the slopes of all pairs of points (Theil and Sen), so single outliers
    do not matter.

    :param points: times and values, at least two.
    """
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if a[0] != b[0]]
    return median(slopes) * (points[-1][0] - points[0][0])
