"""The servers of a run: started when a case first needs them, filled with what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tests.bench import certificate
from tests.bench.buckets import Gateway
from tests.bench.seed import Content, Part, SeedError, fill
from tests.bench.servers import Given, NotUp, Server
from tests.bench.setups import Setup
from tests.bench.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from tests.bench.cases import Case
    from tests.bench.kinds import Kind


class Fleet:
    """All servers; ``with`` ends them.

    Two setups that make no difference to a kind of server share one of it.

    :param peers: servers that somebody else runs; they are met in plain cases, and in those over
        TLS if their URL says so.
    :param say: is told what goes on.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        peers: Sequence[Given],
        folder: Path,
        content: Content,
        say: Callable[[str], None],
    ) -> None:
        self._kinds = kinds
        self._peers = peers
        self._folder = folder
        self._content = content
        self._say = say
        self._certificate = certificate.make(folder)
        self._servers: dict[tuple[str, Setup], Server] = {}
        self._gateway = Gateway(folder / "gateway")
        self._in_buckets: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        for server in self._servers.values():
            server.stop()
        self._gateway.close()

    @property
    def servers(self) -> Iterable[Server]:
        """All that were started."""
        return self._servers.values()

    def able(self, case: Case) -> list[Server | Given]:
        """The servers that can do a case, with what they need for it.

        One that did not come up, or did not take its content, has a ``fault``.
        """
        found: list[Server | Given] = []
        for kind, setup in self._suitable(case):
            found.append(self._server(kind, setup))
        found += self._met(case)
        for server in found:
            for part in sorted(case.needs):
                self._fill(server, part)
        return found

    def count(self, case: Case) -> int:
        """How many servers can do a case; none is started."""
        return len(self._suitable(case)) + len(self._met(case))

    def _suitable(self, case: Case) -> list[tuple[Kind, Setup]]:
        pairs = [(kind, kind.effective(case.setup)) for kind in self._kinds]
        return [
            (kind, setup)
            for kind, setup in pairs
            if setup is not None and case.suits(kind.serves, local=True)
        ]

    def _met(self, case: Case) -> list[Given]:
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
                    # Whether pulls are redirected makes no difference to what lies there.
                    server.bucket = self._gateway.bucket(kind.name)
                    server.seeded = self._in_buckets.setdefault(kind.name, set())
                server.start()
            except (NotUp, OSError) as fault:
                server.fault = str(fault)
        return self._servers[key]

    def _fill(self, server: Server | Given, part: Part) -> None:
        if server.fault or part in server.seeded:
            return
        self._say(f"{server.name}: content ({part})")
        try:
            fill(server, self._content, part)
        except (SeedError, WireError, OSError) as fault:
            server.fault = f"it did not take the content: {fault}"


def _setup_of(peer: Given) -> Setup:
    return Setup(tls=peer.url.startswith("https:"))
