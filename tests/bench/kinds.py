"""The kinds of servers: command line and configuration of each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import evolve, frozen

from tests.bench import buckets, logins
from tests.bench.setups import PLAIN, Setup
from tests.support.tokens import ISSUER, SERVICE

if TYPE_CHECKING:
    from tests.bench.certificate import Certificate
    from tests.bench.servers import Server

Serves = Literal["registry", "files", "page"]

OURS = "ours"
DISTRIBUTION = "docker-registry"
NGINX = "nginx"
BARE = "bare"

ROOT = Path(__file__).parents[2]

#: The configuration of this registry and Distribution. Only the access log mentions requests.
_REGISTRY_CONFIG = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: {silent}
storage:
  cache:
    blobdescriptor: inmemory
  {storage}
  redirect:
    disable: {streamed}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
  secret: the same everywhere
"""
_TLS = """\
  tls:
    certificate: {certificate}
    key: {key}
"""
_METRICS = """\
  debug:
    addr: 127.0.0.1:0
    prometheus:
      enabled: true
"""
#: Nothing listens on the port of the discard protocol.
_NOTIFICATIONS = """\
notifications:
  endpoints:
    - name: down
      url: http://127.0.0.1:9/
"""
_HTPASSWD = """\
auth:
  htpasswd:
    realm: bench
    path: {file}
"""
_TOKEN = """\
auth:
  token:
    realm: http://127.0.0.1/token
    service: {service}
    issuer: {issuer}
    rootcertbundle: {certificate}
"""

#: Files have the paths of a registry's URLs, so that the same requests work.
_NGINX_CONFIG = """\
{user}
daemon off;
master_process {master};
worker_processes {workers};
error_log stderr crit;
pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
  access_log {log};
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=1000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port}{tls};
    root {folder}/files;
    location = /v2/ {{ return 200; }}
  }}
}}
"""


class Kind:
    """A kind of server.

    :cvar name: the name in the table.
    :cvar serves: what it serves.
    """

    name: ClassVar[str]
    serves: ClassVar[Serves]

    def effective(self, setup: Setup) -> Setup | None:
        """Return the settings that have an effect; None if the setup is not supported."""
        raise AssertionError("each kind implements it")

    def headers(self, _setup: Setup, _certificate: Certificate) -> dict[str, str]:
        """Return the headers of each request."""
        return {}

    def command(self, server: Server) -> list[str]:
        """Write the configuration of a server and return its command."""
        raise AssertionError("each kind implements it")

    def version(self) -> str:
        """Return the version that the program reports."""
        raise AssertionError("each kind implements it")


@frozen
class Ours(Kind):
    """This registry."""

    name: ClassVar[str] = OURS
    serves: ClassVar[Serves] = "registry"

    def effective(self, setup: Setup) -> Setup | None:
        if setup.bucket and not buckets.is_installed():
            return None
        return None if setup.gated and setup != Setup(gated=True) else setup

    def headers(self, setup: Setup, certificate: Certificate) -> dict[str, str]:
        return logins.BASIC if setup.gated else logins.login_headers(setup.login, certificate)

    def command(self, server: Server) -> list[str]:
        if server.setup.gated:
            return [sys.executable, "-m", "tests.bench.gated", str(server.store), str(server.port)]
        more = f"  workers: {server.setup.workers}\n" if server.setup.workers > 1 else ""
        return [*_COMMAND, "serve", _write_configuration(server, more)]

    def version(self) -> str:
        return _output(*_COMMAND, "--version")


@frozen
class Distribution(Kind):
    """Debian's package of CNCF Distribution."""

    program: str
    name: ClassVar[str] = DISTRIBUTION
    serves: ClassVar[Serves] = "registry"

    def effective(self, setup: Setup) -> Setup:
        """Drop workers, since it uses all cores, and the gate, which only ours has."""
        return evolve(setup, gated=False, workers=1)

    def headers(self, setup: Setup, certificate: Certificate) -> dict[str, str]:
        return logins.login_headers(setup.login, certificate)

    def command(self, server: Server) -> list[str]:
        return [self.program, "serve", _write_configuration(server)]

    def version(self) -> str:
        return _output(self.program, "--version")


@frozen
class Nginx(Kind):
    """nginx over plain files: the upper limit for pulls."""

    program: str
    name: ClassVar[str] = NGINX
    serves: ClassVar[Serves] = "files"

    def effective(self, setup: Setup) -> Setup | None:
        guarded = setup.gated or setup.login
        return (
            None if guarded or setup.bucket else evolve(setup, metrics=False, notifications=False)
        )

    def command(self, server: Server) -> list[str]:
        files, workers = server.certificate, server.setup.workers
        tls = f" ssl; ssl_certificate {files.certificate}; ssl_certificate_key {files.key}"
        server.store.mkdir(exist_ok=True)
        (server.folder / "files").unlink(missing_ok=True)
        (server.folder / "files").symlink_to(server.store)
        config = server.folder / "nginx.conf"
        config.write_text(
            _NGINX_CONFIG.format(
                user="user root;" if os.geteuid() == 0 else "",
                folder=server.folder,
                port=server.port,
                master="on" if workers > 1 else "off",
                workers=workers,
                log=f"{server.folder}/access" if server.setup.access_log else "off",
                tls=tls if server.setup.tls else "",
            )
        )
        return [self.program, "-p", str(server.folder), "-e", "stderr", "-c", str(config)]

    def version(self) -> str:
        return _output(self.program, "-v")


@frozen
class Bare(Kind):
    """A process with Twisted in it and nothing else (``bare.py``)."""

    name: ClassVar[str] = BARE
    serves: ClassVar[Serves] = "page"

    def effective(self, setup: Setup) -> Setup | None:
        return setup if setup == PLAIN else None

    def command(self, server: Server) -> list[str]:
        return [sys.executable, "-m", "tests.bench.bare", str(server.port)]

    def version(self) -> str:
        return _output(
            sys.executable, "-c", "import twisted; print('Twisted', twisted.__version__)"
        )


_COMMAND = [sys.executable, "-m", "twisted_registry"]


def installed_kinds() -> list[Kind]:
    """Return the kinds whose programs are installed, ours first."""
    found: list[Kind] = [Ours()]
    if program := _program("docker-registry"):
        found.append(Distribution(program))
    if program := _program("nginx"):
        found.append(Nginx(program))
    return [*found, Bare()]


def environment() -> dict[str, str]:
    """Return the environment of a server, with this checkout on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    # An installed registry has bytecode; without it a start takes 70 ms longer.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    # The AWS library of Distribution 2.8.3 panics if this is set.
    kept.pop("AWS_CA_BUNDLE", None)
    return {**kept, "PYTHONPATH": str(ROOT)}


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def _write_configuration(server: Server, more: str = "") -> str:
    """Write the configuration that ours and Distribution read.

    :param more: lines of its section ``http``.
    """
    setup, files = server.setup, server.certificate
    server.store.mkdir(exist_ok=True)
    folder = f"filesystem: {{rootdirectory: {server.store}}}"
    text = _REGISTRY_CONFIG.format(
        storage=server.bucket.section if server.bucket else folder,
        streamed="false" if setup.bucket == "redirected" else "true",
        port=server.port,
        silent="false" if setup.access_log else "true",
    )
    text += more
    if setup.tls:
        text += _TLS.format(certificate=files.certificate, key=files.key)
    if setup.metrics:
        text += _METRICS
    if setup.notifications:
        text += _NOTIFICATIONS
    if setup.login == "htpasswd":
        passwords = server.folder / "htpasswd"
        logins.write_passwords(passwords)
        text += _HTPASSWD.format(file=passwords)
    elif setup.login:
        text += _TOKEN.format(service=SERVICE, issuer=ISSUER, certificate=files.certificate)
    config = server.folder / "registry.yml"
    config.write_text(text)
    return str(config)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    return (done.stdout or done.stderr).strip()
