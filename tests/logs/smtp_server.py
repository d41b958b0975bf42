"""A small SMTP server on a thread, for tests of the mail hook."""

from __future__ import annotations

import base64
import email
import email.policy
import socketserver
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    import ssl


@define(eq=False)
class SmtpServer:
    """What the server has got, and what it answers.

    :ivar refuse: the reply to MAIL FROM, or empty to accept mail.
    :ivar refuse_login: the reply to AUTH, or empty to accept every password.
    :ivar context: for STARTTLS, which is offered if it is set.
    :ivar hang: set while the server does not greet its clients.
    """

    refuse: str = ""
    refuse_login: str = ""
    context: ssl.SSLContext | None = None
    messages: list = field(factory=list)
    logins: list[str] = field(factory=list)
    connections: int = 0
    may_greet: threading.Event = field(factory=threading.Event)
    port: int = 0

    @property
    def text(self) -> str:
        """The bodies of all messages."""
        return "\n".join(message.get_content() for message in self.messages)


class Handler(socketserver.StreamRequestHandler):
    """Talks to one client."""

    timeout = 10
    _tls = None

    def handle(self):
        """Answer the commands of a client until it ends."""
        state = self.server.state
        state.connections += 1
        state.may_greet.wait(10)
        self._reply("220 test")
        while line := self.rfile.readline().decode().strip():
            verb, _, argument = line.partition(" ")
            self._reply(self._answer(verb.upper(), argument))
            if verb.upper() == "STARTTLS":
                tls = state.context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = tls.makefile("rb"), tls.makefile("wb", 0)
                self._tls = tls

    def finish(self):
        """Close the connection."""
        super().finish()
        if self._tls is not None:
            self._tls.close()

    def _answer(self, verb, argument):
        state = self.server.state
        if verb == "EHLO":
            offers = "250-STARTTLS\r\n" if state.context else ""
            return f"250-test\r\n{offers}250 AUTH PLAIN"
        if verb == "AUTH":
            state.logins.append(base64.b64decode(argument.split()[1]).decode())
            return state.refuse_login or "235 ok"
        if verb == "MAIL" and state.refuse:
            return state.refuse
        if verb == "DATA":
            self._reply("354 go")
            data = b"".join(iter(self.rfile.readline, b".\r\n"))
            message = email.message_from_bytes(data, policy=email.policy.default)
            state.messages.append(message)
        return {"STARTTLS": "220 go", "QUIT": "221 bye"}.get(verb, "250 ok")

    def _reply(self, text):
        self.wfile.write(f"{text}\r\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """Listens on a free port of this machine."""

    daemon_threads = True

    def __init__(self, state):
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state

    def handle_error(self, request, client_address):
        """Say nothing: a client may refuse the certificate, or leave."""


@contextmanager
def smtp_server(**options):
    """Run a server inside a block."""
    state = SmtpServer(**options)
    state.may_greet.set()
    with Server(state) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
