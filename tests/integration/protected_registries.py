"""Registries over TLS with authentication, one for each scheme, and the servers that they need.

These are a token server as Distribution expects it, and a store on another host that blobs are
redirected to, which records the credentials that clients send.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from base64 import b64decode
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from attrs import define, field, frozen

from tests.integration.servers import HERE, OURS, Launcher, Served, own_address
from tests.support.certificates import Authority
from tests.support.passwords import password_lines
from tests.support.tokens import ISSUER, SERVICE, access_claim, certificate, claims, key, mint, pem
from twisted_registry.auth.keys import key_ids

if TYPE_CHECKING:
    from pathlib import Path

USERS = {"ada": "secret-of-ada", "eve": "secret-of-eve"}
#: Kinds of logins: htpasswd, the registry's own tokens, a robot, and Distribution's tokens.
KINDS = ("password", "user", "robot", "signed")
#: The registry of each kind; a robot needs the registry's own tokens.
REGISTRIES = {"password": "password", "user": "own", "robot": "own", "signed": "signed"}

#: The end of the section ``http`` of a configuration, and the sections after it.
SECTIONS = """\
  tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}
middleware:
  storage:
  - {{name: redirect, options: {{baseurl: '{store}'}}}}
auth: {auth}
access:
  rules:
  - {{repositories: [public/**], anonymous: true, allow: [pull]}}
  - {{repositories: [public/**, team/**], users: [ada], allow: [push, delete]}}
  - {{repositories: [team/**], users: [eve], allow: [pull]}}
"""


_TOKEN_KEY = key("P-256", "token server")


class TokenServer(BaseHTTPRequestHandler):
    """A token server: grants the requested scope to users with a password and to anonymous ones."""

    def do_GET(self):
        name = self._user()
        query = parse_qs(urlsplit(self.path).query)
        if name is None or query["service"] != [SERVICE]:
            return self._respond(401, {"details": "incorrect username or password"})
        access = access_claim(" ".join(query.get("scope", ())))
        token_claims = claims(datetime.now(UTC).timestamp(), sub=name, access=access)
        token = mint(_TOKEN_KEY, "ES256", token_claims, kid=key_ids(_TOKEN_KEY.public_key())[0])
        return self._respond(200, {"token": token, "expires_in": 300})

    def _user(self):
        credentials = self.headers.get("Authorization")
        if credentials is None:
            return ""
        name, _, password = b64decode(credentials.partition(" ")[2]).decode().partition(":")
        return name if USERS.get(name) == password else None

    def _respond(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Store(SimpleHTTPRequestHandler):
    """Serves the files of the registries; ``seen`` records clients and their credentials."""

    def __init__(self, seen, *arguments, **more):
        self.seen = seen
        super().__init__(*arguments, **more)

    def parse_request(self):
        parsed = super().parse_request()
        if parsed:
            credentials = {name.lower() for name in self.headers} & {"authorization", "cookie"}
            self.seen.append((self.headers.get("User-Agent", ""), self.path, credentials))
        return parsed

    def log_message(self, *_):
        pass


@define(eq=False)
class ProtectedRegistries:
    """The registries, the token server and the store, in a folder.

    :ivar seen: the requests to the store: user agent, path, and names of credential headers.
    :ivar by_scheme: the registries by scheme.
    """

    folder: Path
    seen: list = field(factory=list)
    by_scheme: dict[str, Served] = field(factory=dict)
    _stack: ExitStack = field(factory=ExitStack)

    @property
    def authority(self):
        """The certificate that clients must trust."""
        return self.folder / "ca.pem"

    def start(self):
        """Start all; call :meth:`close` even if this fails."""
        authority, work = Authority(), self.folder
        self.authority.write_bytes(authority.pem)
        # docker does not require TLS for 127.0.0.1.
        host = own_address() or HERE
        authority.issue(HERE, host, "localhost").write(work)
        own = certificate(_TOKEN_KEY, now=datetime.now(UTC).timestamp())
        (work / "bundle.pem").write_bytes(pem(own))
        (work / "users").write_bytes(password_lines(**USERS))
        store = self._serve(partial(Store, self.seen, directory=str(work)))
        realm = f"https://127.0.0.1:{self._serve(TokenServer)}/token"
        passwords = f"{{htpasswd: {{realm: here, path: {work}/users}}}}"
        tokens = (
            f"{{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER},"
            f" rootcertbundle: {work}/bundle.pem}}}}"
        )
        launcher = Launcher(work / "servers")
        self._stack.callback(launcher.close)
        for name, auth in {"password": passwords, "own": passwords, "signed": tokens}.items():
            place = f"https://localhost:{store}/{name}"
            more = SECTIONS.format(folder=work, store=place, auth=auth)
            more += "" if name == "signed" else f"  tokens: {{disabled: {name != 'own'}}}\n"
            # One of them has two processes, which share the records of tokens.
            workers = 2 if name == "own" else 1
            self.by_scheme[name] = launcher.start(
                OURS, work / name, workers, more, authority.client(), host
            )

    def _serve(self, handler):
        """Serve over TLS in a thread; return the port."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        for end in (thread.join, server.server_close, server.shutdown):
            self._stack.callback(end)
        return server.server_port

    def robot(self, allow):
        """Create a robot; return its token."""
        own = self.by_scheme["own"]
        config = own.work / f"{OURS}-{own.port}.yml"
        done = subprocess.run(
            [sys.executable, "-m", "twisted_registry", "token", "create", f"--allow={allow}", "ci",
             str(config)],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    def login(self, kind):
        """Return a login that may push, with the address of its registry."""
        name, password = "ada", USERS["ada"]
        if kind == "robot":
            name, password = "ci", self.robot("public/**,team/**:push,delete")
        return Login(kind, name, password, self.by_scheme[REGISTRIES[kind]].address)

    def close(self):
        """Stop all."""
        self._stack.close()


@frozen
class Login:
    """A name and a password, and the registry that accepts them."""

    kind: str
    name: str
    password: str
    address: str

    def image(self, name):
        """Return an image reference for the command line of a client."""
        return f"{self.address}/{name}:1"
