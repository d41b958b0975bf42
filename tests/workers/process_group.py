"""A registry with more than one process: who is there, and who holds which connection."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.processes import SERVE, Running, configured, wait_until

MORE = "  workers: 2\n"


def children(pid):
    """The processes that a process has started, and that have not ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.add(int(entry.name))
    return found


def is_there(pid):
    """Whether a process lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sockets(pid):
    """The inodes of the sockets that a process has open."""
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                kind, _, inode = str(entry.readlink()).partition(":")
                if kind == "socket":
                    found.add(inode.strip("[]"))
    return found


def holder(connection, pids):
    """Which process holds the other end of a client's TCP connection, once one has taken it."""
    mine, theirs = connection.sock.getsockname()[1], connection.sock.getpeername()[1]

    def look():
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(end.partition(":")[2], 16) for end in fields[1:3])
            if (local, remote) == (theirs, mine) and fields[9] != "0":
                return next((pid for pid in pids if fields[9] in sockets(pid)), None)
        return None

    return wait_until(look)


class Family(Running):
    """A registry of several processes that are all up."""

    def __init__(self, *command, count=2, **more):
        super().__init__(*command, **more)
        self.count = count
        self.settle()

    @property
    def first(self):
        """The process that was started."""
        return self.process.pid

    @property
    def others(self):
        """The processes that it has started."""
        return children(self.first)

    def said(self, text):
        """The lines of the log that hold a text."""
        return [line for line in self.lines if text in line]

    def settle(self, started=None):
        """Wait until as many workers serve as should; how often one has begun to serve so far."""
        started = self.count - 1 if started is None else started
        wait_until(lambda: len(self.said("serving as worker")) >= started)
        return started

    def connections(self, count):
        """So many connections that are open, each with the process that holds it."""
        made = [self.connection() for _ in range(count)]
        for connection in made:
            connection.connect()
        pids = {self.first, *self.others}
        return [(connection, holder(connection, pids)) for connection in made]

    def one_for_each(self):
        """A connection to each process, by its pid: the first one's comes first."""
        found, spare = {}, []
        # On a busy machine a process may be late, and another takes what was meant for it.
        while set(found) != {self.first, *self.others}:
            ((connection, pid),) = self.connections(1)
            spare.append(found.get(pid))
            found[pid] = connection
        return [found.pop(self.first), *found.values()]


@contextmanager
def serving(folder, *, more=MORE, command=SERVE, **options):
    """A registry with two processes."""
    path = configured(folder, more=more)
    with Family(*command, path, cwd=folder, **options) as family:
        yield family


def ask(connection, method, path, body=None, headers=None):
    """A request on an open connection; the response and its body."""
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response, response.read()


def digest_of(content):
    """The sha256 digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
