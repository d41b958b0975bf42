"""Several processes that speak TLS on one socket."""

from __future__ import annotations

import os
import signal
import ssl

from certificates import Authority
from family import MORE, ask, is_there, serving, wait_until

AUTHORITY = Authority()


def test_all_processes_speak_tls(tmp_path):
    more = MORE + AUTHORITY.issue("127.0.0.1").section(tmp_path)
    with serving(tmp_path, more=more, secure=AUTHORITY.client()) as family:
        connections = family.one_for_each()
        assert len(connections) == 2
        for connection in connections:
            assert ask(connection, "GET", "/v2/")[0].status == 200
            connection.close()
        assert family.stop()[0] == 0


def subject(connection):
    """Whose certificate a connection was shown."""
    return ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True)).encode()


def test_a_signal_changes_the_certificate_of_all_and_ends_no_connection(tmp_path):
    old, new = (AUTHORITY.issue("127.0.0.1") for _ in range(2))
    with serving(tmp_path, more=MORE + old.section(tmp_path), secure=AUTHORITY.client()) as family:
        (worker,) = family.others
        before = family.one_for_each()
        assert [subject(each) for each in before] == [old.certificate] * 2
        # A key that does not fit: the old certificate stays, and one line says why.
        (tmp_path / "server.key").write_bytes(new.key)
        family.process.send_signal(signal.SIGHUP)
        wait_until(lambda: family.said("is not that of the certificate; the certificate in use"))
        # Whoever starts while the files are wrong shows what the others show.
        os.kill(worker, signal.SIGKILL)
        family.settle(2)
        before = [before[0], *family.one_for_each()]
        assert [subject(each) for each in before] == [old.certificate] * 3
        new.write(tmp_path)
        family.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(family.said("certificate for 127.0.0.1, valid until")) == 2)
        wait_until(
            lambda: [subject(each) for each in family.one_for_each()] == [new.certificate] * 2
        )
        for connection in before:
            assert ask(connection, "GET", "/v2/")[0].status == 200
        assert is_there(family.first)
        assert family.stop()[0] == 0
