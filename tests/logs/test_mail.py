from __future__ import annotations

import ssl

import pytest
from twisted.logger import ILogObserver, Logger, LogPublisher, formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from tests.logs.smtp_server import smtp_server
from tests.support.processes import wait_until
from tests.support.self_signed import self_signed
from twisted_registry.logs.mail import MailServer, make_mail_hook

PASSWORD = "do not show this"


def make_hook(server, *levels, interval_s=0.01, **options):
    target = MailServer("127.0.0.1", server.port, "registry@x", ["a@x", "b@x"], **options)
    hook = make_mail_hook(target, levels or ("error",))
    hook.interval_s = interval_s
    return hook, Logger("test", observer=LogPublisher(hook))


@pytest.fixture
def own_events():
    """What the hook itself logs."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def texts(events):
    return [
        f"{formatEvent(event)}: {event.get('err.message', '')}"
        for event in events
        if "mail.server" in event
    ]


def test_events_of_the_chosen_levels_are_sent():
    with smtp_server() as server:
        hook, log = make_hook(server, "panic", "warn")
        verifyObject(ILogObserver, hook)
        log.info("not this")
        log.error("nor this")
        log.warn("{what} is full", what="the disk", **{"err.code": "unavailable"})
        wait_until(lambda: server.messages)
        log.critical("the end")
        hook.close()
        log.critical("too late")
    first, second = server.messages
    assert first["From"] == "registry@x"
    assert first["To"] == "a@x, b@x"
    assert first["Subject"].startswith("[warning] ")
    assert first["Subject"].endswith(": the disk is full")
    assert "warning: the disk is full\nerr.code: unavailable" in first.get_content().replace(
        "\r", ""
    )
    assert "fatal: the end" in second.get_content()
    assert server.logins == []


def test_events_while_a_mail_is_sent_are_sent_together_within_bounds():
    with smtp_server() as server:
        server.may_greet.clear()
        hook, log = make_hook(server)
        log.error("first")
        wait_until(lambda: server.connections)
        for number in range(150):
            log.error("number {n}", n=number)
        server.may_greet.set()
        wait_until(lambda: len(server.messages) == 2)
        hook.close()
    first, second = server.messages
    assert "first" in first.get_content()
    assert "number 98" in second.get_content()
    assert "number 99" not in second.get_content()
    assert "51 further lines are only in the log." in second.get_content()
    assert second["Subject"].endswith("number 0 (and 149 more)")


def test_a_server_that_hangs_does_not_hold_up_the_log():
    with smtp_server() as server:
        server.may_greet.clear()
        hook, log = make_hook(server)
        for _ in range(1000):
            log.error("x" * 100)
        # Here at once, although nothing was sent.
        assert server.messages == []
        server.may_greet.set()
        hook.close()


def test_lines_are_kept_while_the_server_refuses_mail(own_events):
    with smtp_server(refuse="451 later") as server:
        hook, log = make_hook(server)
        globalLogPublisher.addObserver(hook)
        log.error("kept")
        wait_until(lambda: server.connections > 2)
        server.refuse = ""
        wait_until(lambda: server.messages)
        wait_until(lambda: len(texts(own_events)) == 2)
        globalLogPublisher.removeObserver(hook)
        hook.close()
    assert "kept" in server.text
    # One line for all attempts; no mail about mails.
    assert texts(own_events) == [
        "log.hooks: mail cannot be sent, trying again each minute: 451 later",
        "log.hooks: mail can be sent again: ",
    ]
    assert "log.hooks" not in server.text


def test_a_server_that_is_gone_does_not_hold_up_the_exit(own_events):
    with smtp_server() as server:
        pass
    hook, log = make_hook(server, interval_s=60)
    log.error("lost")
    wait_until(lambda: texts(own_events))
    hook.close()
    assert "refused" in texts(own_events)[0]


def tls_context(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem = self_signed()
    certificate.write_bytes(pem.certificate_pem)
    key.write_bytes(pem.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_the_password_is_sent_over_tls(tmp_path):
    with smtp_server(context=tls_context(tmp_path)) as server:
        hook, log = make_hook(server, username="me", password=PASSWORD, verify=False)
        log.error("secret")
        hook.close()
    assert server.logins == [f"\0me\0{PASSWORD}"]
    assert "secret" in server.text
    assert PASSWORD not in server.text + repr(hook.server)


def test_a_certificate_is_verified(tmp_path, own_events):
    with smtp_server(context=tls_context(tmp_path)) as server:
        hook, log = make_hook(server, username="me", password=PASSWORD)
        log.error("secret")
        wait_until(lambda: texts(own_events))
        hook.close()
    assert "certificate verify failed" in texts(own_events)[0]
    assert server.logins == server.messages == []


def test_a_reply_with_the_password_is_not_logged(own_events):
    with smtp_server() as server:
        server.refuse = f"535 \x1b[31m no: {PASSWORD} AGRvIG5vdCBzaG93IHRoaXM="
        hook, log = make_hook(server, password=PASSWORD)
        log.error("x")
        wait_until(lambda: texts(own_events))
        hook.close()
    (text,) = texts(own_events)
    assert "535 \\x1b[31m no: REDACTED" in text
    assert PASSWORD not in text


@pytest.mark.parametrize("text", ["a\nBcc: evil@x\n\nb", "\x1b[31m\r\n.\r\n", "ä" * 500, "\ud800"])
def test_a_client_cannot_inject_into_a_mail(text):
    with smtp_server() as server:
        hook, log = make_hook(server)
        log.error("{text}", text=text, **{"vars.name": text})
        hook.close()
    (message,) = server.messages
    assert message["Bcc"] is None
    assert message["To"] == "a@x, b@x"
    assert "\x1b" not in message.get_content()
