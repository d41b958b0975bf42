"""Log lines by mail: the hook ``mail`` of Distribution.

Nothing that logs ever waits for a mail server: lines go into a bounded list, which a thread sends.
The first line is sent at once; those of the following minute are sent together. If sending fails,
the lines are kept up to the bound, and sent with the next attempt. What the hook itself logs has
:data:`MAIL_FIELD` and is never sent.
"""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
from collections import deque
from contextlib import closing, suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from zope.interface import implementer

from twisted_registry.logs.lines import escape_controls, event_fields, level_name

if TYPE_CHECKING:
    from collections.abc import Sequence

log = Logger()

#: A field of the events of the hook, which it does not send: the server.
MAIL_FIELD: Final = "mail.server"
#: The levels of Distribution. One that has no equal here is the next lower one.
LEVELS: Final = {
    "panic": LogLevel.critical,
    "fatal": LogLevel.critical,
    "error": LogLevel.error,
    "warn": LogLevel.warn,
    "warning": LogLevel.warn,
    "info": LogLevel.info,
    "debug": LogLevel.debug,
}
_INTERVAL_S: Final = 60.0
_TIMEOUT_S: Final = 30.0
#: Seconds that the end of the process waits for the last mail.
_CLOSE_S: Final = 5.0
_MAX_LINES: Final = 100
_MAX_CHARS: Final = 8192
_MAX_SUBJECT_CHARS: Final = 150
_TLS_PORT: Final = 465
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@frozen
class MailServer:
    """An SMTP server, and who sends mail to whom.

    :ivar host: its name or address.
    :ivar port: 465 for TLS from the beginning; on others STARTTLS is used if it is offered.
    :ivar username: empty for no login.
    :ivar verify: whether its certificate is verified.
    :ivar timeout_s: seconds that each of its answers may take.
    """

    host: str
    port: int
    sender: str
    recipients: Sequence[str]
    username: str = ""
    password: str = field(default="", repr=False)
    verify: bool = True
    timeout_s: float = _TIMEOUT_S

    def send(self, message: EmailMessage) -> None:
        """Send a message; blocks.

        :raises OSError: if that is not possible. Errors of smtplib are among them.
        """
        with closing(self._open()) as connection:
            connection.send_message(message)
            # The message was accepted, whatever the server says now.
            with suppress(OSError):
                connection.quit()

    def check(self) -> None:
        """Connect and log in as for a message, and send none; blocks.

        :raises OSError: as :meth:`send`.
        """
        with closing(self._open()) as connection, suppress(OSError):
            connection.quit()

    def explain(self, error: Exception) -> str:
        """Return an error of :meth:`send` or :meth:`check` in one line without secrets."""
        if not isinstance(error, smtplib.SMTPResponseException):
            return self._redact(str(error) or type(error).__name__)
        reply = error.smtp_error
        text = reply.decode("ascii", "replace") if isinstance(reply, bytes) else reply
        return self._redact(f"{error.smtp_code} {text}")

    def _open(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = self._connect(context)
        try:
            self._log_in(connection, context)
        except BaseException:
            connection.close()
            raise
        return connection

    def _log_in(self, connection: smtplib.SMTP, context: ssl.SSLContext) -> None:
        connection.ehlo_or_helo_if_needed()
        is_private = self.port == _TLS_PORT or self.host in _LOOPBACK
        if self.port != _TLS_PORT and connection.has_extn("starttls"):
            connection.starttls(context=context)
            connection.ehlo()
            is_private = True
        if self.username:
            if not is_private:
                raise smtplib.SMTPException("the server offers no TLS, so the password is not sent")
            connection.login(self.username, self.password)

    def _redact(self, reply: str) -> str:
        """Return a reply of the server in one line, without a password that it repeats."""
        username, password = self.username.encode(), self.password.encode()
        text = reply
        for secret in (password, b"\0%b\0%b" % (username, password)) if password else ():
            text = text.replace(base64.b64encode(secret).decode("ascii"), "REDACTED")
            text = text.replace(secret.decode(), "REDACTED")
        return escape_controls(text)[:_MAX_SUBJECT_CHARS]

    def _connect(self, context: ssl.SSLContext) -> smtplib.SMTP:
        if self.port == _TLS_PORT:
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout_s, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=self.timeout_s)


@implementer(ILogObserver)
@define(eq=False)
class MailHook:
    """Sends events of some levels by mail.

    :ivar server: sends the mails.
    :ivar levels: the levels that are sent, as in :data:`LEVELS`.
    :ivar interval_s: seconds between two mails.
    """

    server: MailServer
    levels: frozenset[Any]
    interval_s: float = _INTERVAL_S
    _changed: Condition = field(init=False, factory=Condition)
    _lines: deque[tuple[str, str]] = field(init=False, factory=deque)
    _dropped: int = field(init=False, default=0)
    _closing: bool = field(init=False, default=False)
    _thread: Thread | None = field(init=False, default=None)

    def __call__(self, event: LogEvent) -> None:
        """Take one event, from any thread; never waits for the server."""
        if event.get("log_level") not in self.levels or MAIL_FIELD in event:
            return
        entry = _subject(event), _text(event)
        with self._changed:
            if self._closing:
                return
            if len(self._lines) < _MAX_LINES:
                self._lines.append(entry)
            else:
                self._dropped += 1
            if self._thread is None:
                # Made here: twistd forks a daemon after the observer was made.
                self._thread = Thread(target=self._run, name="mail", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and take no further events."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closing)
                if not self._lines:
                    return
                lines, dropped = list(self._lines), self._dropped
                is_last = self._closing
            error = self._send(lines, dropped)
            if error and not failures:
                self._log(LogLevel.warn, "mail cannot be sent, trying again each minute", error)
            elif failures and not error:
                self._log(LogLevel.info, "mail can be sent again")
            failures = failures + 1 if error else 0
            with self._changed:
                if not error:
                    for _ in lines:
                        self._lines.popleft()
                    self._dropped -= dropped
                if is_last and (error or not self._lines):
                    return
                self._changed.wait_for(lambda: self._closing, self.interval_s)

    def _send(self, lines: Sequence[tuple[str, str]], dropped: int) -> str:
        """Send one mail; return what has failed, or nothing."""
        try:
            self.server.send(self._compose(lines, dropped))
        except Exception as error:  # noqa: BLE001 - nothing that a server does ends the thread
            return self.server.explain(error)
        return ""

    def _log(self, level: Any, message: str, error: str = "") -> None:
        fields: dict[str, Any] = {MAIL_FIELD: f"{self.server.host}:{self.server.port}"}
        if error:
            fields["err.message"] = error
        log.emit(level, f"log.hooks: {message}", **fields)

    def _compose(self, lines: Sequence[tuple[str, str]], dropped: int) -> EmailMessage:
        subject, _ = lines[0]
        if len(lines) > 1:
            subject += f" (and {len(lines) - 1 + dropped} more)"
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = self.server.sender
        message["To"] = ", ".join(self.server.recipients)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain="twisted-registry.invalid")
        message["Auto-Submitted"] = "auto-generated"
        text = "\n\n".join(text for _, text in lines)
        if dropped:
            text += f"\n\n{dropped} further lines are only in the log."
        message.set_content(text + "\n")
        return message


def make_mail_hook(server: MailServer, levels: Sequence[str]) -> MailHook:
    """Make a hook for levels as Distribution names them."""
    return MailHook(server, frozenset(LEVELS[level] for level in levels))


def _subject(event: LogEvent) -> str:
    message = escape_controls(formatEvent(event))
    text = f"[{level_name(event)}] {socket.gethostname()}: {message}"
    # Headers are sent as ASCII, and without what a mail program could take for a line end.
    return text[:_MAX_SUBJECT_CHARS].encode("ascii", "replace").decode("ascii")


def _text(event: LogEvent) -> str:
    time = formatdate(event["log_time"])
    lines = [f"{time} {level_name(event)}: {escape_controls(formatEvent(event))}"]
    lines += [
        f"{name}: {escape_controls(str(value))}" for name, value in event_fields(event).items()
    ]
    failure = event.get("log_failure")
    if failure is not None:
        lines += map(escape_controls, failure.getTraceback().rstrip().split("\n"))
    return "\n".join(lines)[:_MAX_CHARS]
