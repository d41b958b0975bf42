"""A registry of several processes: which run, and which one holds a connection."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.processes import SERVE, RegistryProcess, wait_until, write_configuration

MORE = "  workers: 2\n"


def children(pid):
    """The running child processes of a process."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.add(int(entry.name))
    return found


def is_running(pid):
    """Whether a process runs; a zombie does not."""
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
    """Wait until a process has accepted a client's TCP connection, and return its id."""
    mine, theirs = connection.sock.getsockname()[1], connection.sock.getpeername()[1]

    def look():
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(end.partition(":")[2], 16) for end in fields[1:3])
            if (local, remote) == (theirs, mine) and fields[9] != "0":
                return next((pid for pid in pids if fields[9] in sockets(pid)), None)
        return None

    return wait_until(look)


class Family(RegistryProcess):
    """A registry of several processes, once all of them serve."""

    def __init__(self, *command, count=2, **more):
        self._connections = []
        super().__init__(*command, **more)
        self.count = count
        self.settle()

    @property
    def first(self):
        """The id of the first process."""
        return self.process.pid

    @property
    def others(self):
        """The ids of the workers."""
        return children(self.first)

    def log_lines(self, text):
        """The lines of the log that contain a text."""
        return [line for line in self.lines if text in line]

    def connection(self):
        """A connection that is not open yet; closed at the end of the block."""
        connection = super().connection()
        self._connections.append(connection)
        return connection

    def __exit__(self, *reason):
        for connection in self._connections:
            connection.close()
        return super().__exit__(*reason)

    def settle(self, started=None):
        """Wait until workers have begun to serve ``started`` times; once each by default."""
        started = self.count - 1 if started is None else started
        wait_until(lambda: len(self.log_lines("serving as worker")) >= started)

    def connections(self, count):
        """Open connections; return each with the id of the process that holds it."""
        made = [self.connection() for _ in range(count)]
        for connection in made:
            connection.connect()
        pids = {self.first, *self.others}
        return [(connection, holder(connection, pids)) for connection in made]

    def one_for_each(self):
        """Return a connection to each process, the first process first."""
        found, spare = {}, []
        # On a busy machine a process may accept late, and another one gets its connection.
        while set(found) != {self.first, *self.others}:
            ((connection, pid),) = self.connections(1)
            if pid in found:
                spare.append(found[pid])
            found[pid] = connection
        for connection in spare:
            connection.close()
        return [found.pop(self.first), *found.values()]


@contextmanager
def serving(folder, *, more=MORE, command=SERVE, **options):
    """Run a registry of several processes for the block; two by default."""
    path = write_configuration(folder, more=more)
    with Family(*command, path, cwd=folder, **options) as family:
        yield family


def ask(connection, method, path, body=None, headers=None):
    """Send a request on an open connection; return the response and its body."""
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response, response.read()
