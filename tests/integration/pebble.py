"""An ACME server for one test: Pebble in strict mode, with a separate DNS server."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from contextlib import contextmanager
from http.client import HTTPSConnection
from typing import TYPE_CHECKING

from tests.integration.servers import program, wait_until
from tests.support.certificates import Authority
from tests.support.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path


class Pebble:
    """A running server.

    :ivar directory: the URL of its directory.
    :ivar environ: environment variables that make a client trust it.
    """

    def __init__(self, authority, trusted: Path, port: int, management: int):
        self._authority = authority
        self._management = management
        self.directory = f"https://127.0.0.1:{port}/dir"
        self.environ = {"SSL_CERT_FILE": str(trusted)}

    def client(self, **settings):
        """Return a TLS context that trusts the certificates of this server."""
        connection = HTTPSConnection(
            "127.0.0.1", self._management, context=self._authority.client(), timeout=30
        )
        connection.request("GET", "/roots/0")
        root = connection.getresponse().read().decode()
        connection.close()
        context = ssl.create_default_context(cadata=root)
        for name, value in settings.items():
            setattr(context, name, value)
        return context


@contextmanager
def pebble(folder: Path, port: int, **environ: str):
    """Run Pebble.

    :param folder: folder for its files.
    :param port: the port of 127.0.0.1 that it validates challenges at.
    :param environ: environment variables of the server, see its README.
    """
    authority = Authority("pebble")
    certificate, key = authority.issue("127.0.0.1").write(folder, "pebble")
    trusted = folder / "trusted.pem"
    trusted.write_bytes(authority.pem)
    own, management, dns, other = (free_port() for _ in range(4))
    settings = {
        "listenAddress": f"127.0.0.1:{own}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": certificate,
        "privateKey": key,
        "httpPort": 1,
        "tlsPort": port,
        "certificateValidityPeriod": 90 * 24 * 3600,
        "retryAfter": {"authz": 1, "order": 1},
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    nowhere = ("-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
    commands = (
        (program("pebble-challtestsrv"), *nowhere, "-dns01", f"127.0.0.1:{dns}", "-defaultIPv6",
         "", "-management", f"127.0.0.1:{other}"),
        (program("pebble"), "-strict", "-config", str(folder / "pebble.json"), "-dnsserver",
         f"127.0.0.1:{dns}"),
    )  # fmt: skip
    running = []
    log = folder / "pebble.log"
    try:
        with log.open("wb") as out:
            env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", **environ}
            running += (
                subprocess.Popen(command, stdout=out, stderr=out, env=env) for command in commands
            )
        wait_until(lambda: b"ACME directory available" in log.read_bytes(), running[-1], log)
        yield Pebble(authority, trusted, own, management)
    finally:
        for process in running:
            process.kill()
            process.wait()
