"""The servers of a run, started and filled when a case first needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tests.bench import certificate
from tests.bench.buckets import Gateway
from tests.bench.seed import Content, Part, SeedError, fill
from tests.bench.servers import Peer, Server, ServerFailed
from tests.bench.setups import Setup
from tests.bench.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tests.bench.cases import Case
    from tests.bench.kinds import Kind


class Fleet:
    """All servers; leaving the ``with`` block stops them.

    Setups without a difference for a kind of server share one server.

    :param peers: servers that already run; a peer takes part in the plain cases, or in those over
        TLS if its URL begins with https.
    :param print_line: prints a line about the progress.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        peers: Sequence[Peer],
        folder: Path,
        content: Content,
        print_line: Callable[[str], None],
    ) -> None:
        self._kinds = kinds
        self._peers = peers
        self._folder = folder
        self._content = content
        self._print_line = print_line
        self._certificate = certificate.make(folder)
        self._servers: dict[tuple[str, Setup], Server] = {}
        self._gateway = Gateway(folder / "gateway")
        self._seeded_in_buckets: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        for server in self._servers.values():
            server.stop()
        self._gateway.close()

    @property
    def servers(self) -> Iterable[Server]:
        """The servers that were started."""
        return self._servers.values()

    def servers_for(self, case: Case) -> list[Server | Peer]:
        """Return the servers that can run a case, started and filled.

        A server that did not start, or refused the content, has a ``fault``.
        """
        found: list[Server | Peer] = []
        for kind, setup in self._kinds_for(case):
            found.append(self._server(kind, setup))
        found += self._peers_for(case)
        for server in found:
            for part in sorted(case.needs):
                self._fill(server, part)
        return found

    def count(self, case: Case) -> int:
        """Return how many servers can run a case, without starting any."""
        return len(self._kinds_for(case)) + len(self._peers_for(case))

    def _kinds_for(self, case: Case) -> list[tuple[Kind, Setup]]:
        pairs = [(kind, kind.effective(case.setup)) for kind in self._kinds]
        return [
            (kind, setup)
            for kind, setup in pairs
            if setup is not None and case.suits(kind.serves, local=True)
        ]

    def _peers_for(self, case: Case) -> list[Peer]:
        return [
            peer
            for peer in self._peers
            if case.setup == _setup_of(peer) and case.suits(peer.serves, local=False)
        ]

    def _server(self, kind: Kind, setup: Setup) -> Server:
        key = kind.name, setup
        if key not in self._servers:
            folder = self._folder / f"{len(self._servers)}-{kind.name}"
            server = self._servers[key] = Server(kind, setup, folder, self._certificate)
            try:
                if setup.bucket:
                    # Setups with and without redirects share a bucket.
                    server.bucket = self._gateway.bucket(kind.name)
                    server.seeded = self._seeded_in_buckets.setdefault(kind.name, set())
                server.start()
            except (ServerFailed, OSError) as fault:
                server.fault = str(fault)
        return self._servers[key]

    def _fill(self, server: Server | Peer, part: Part) -> None:
        if server.fault or part in server.seeded:
            return
        self._print_line(f"{server.name}: content ({part})")
        try:
            fill(server, self._content, part)
        except (SeedError, WireError, OSError) as fault:
            server.fault = f"it refused the content: {fault}"


def _setup_of(peer: Peer) -> Setup:
    return Setup(tls=peer.url.startswith("https:"))
