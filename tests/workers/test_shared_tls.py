"""TLS with several processes on one socket."""

from __future__ import annotations

import os
import signal
import ssl

from tests.support.certificates import Authority
from tests.workers.process_group import MORE, ask, is_running, serving, wait_until

AUTHORITY = Authority()


def test_all_processes_use_tls(tmp_path):
    more = MORE + AUTHORITY.issue("127.0.0.1").section(tmp_path)
    with serving(tmp_path, more=more, secure=AUTHORITY.client()) as family:
        connections = family.one_for_each()
        assert len(connections) == 2
        for connection in connections:
            assert ask(connection, "GET", "/v2/")[0].status == 200
            connection.close()
        assert family.stop()[0] == 0


def test_all_processes_use_the_certificate_that_the_first_has_made(tmp_path):
    more = MORE + "  tls:\n    auto: {hosts: [registry.lan, 127.0.0.1]}\n"
    context = ssl.create_default_context()
    for attempt in range(2):
        context.check_hostname, context.verify_mode = bool(attempt), ssl.VerifyMode(2 * attempt)
        with serving(tmp_path, more=more, secure=context) as family:
            for connection in family.one_for_each():
                response, authority = ask(connection, "GET", "/ca.crt")
                assert response.getheader("Content-Type") == "application/x-pem-file"
                assert ask(connection, "HEAD", "/ca.crt")[1] == b""
                assert ask(connection, "POST", "/ca.crt")[0].status == 405
                assert ask(connection, "GET", "/ca.crt/x")[0].status == 404
                assert ask(connection, "GET", "/v2/")[0].status == 200
            said = family.log_lines("to trust it, docker: mkdir -p ")
            assert f"/etc/docker/certs.d/registry.lan:{family.port} &&" in said[0]
            assert family.log_lines(f"docker push registry.lan:{family.port}/NAME")
            assert family.stop()[0] == 0
        # The authority is the same after a restart.
        if not attempt:
            context.load_verify_locations(cadata=authority.decode())
    assert (tmp_path / "store/twisted-registry/tls/ca.crt").read_bytes() == authority


def subject(connection):
    """The certificate of the server of a connection, in PEM."""
    return ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True)).encode()


def test_sighup_changes_the_certificate_of_all_processes_and_keeps_connections(tmp_path):
    old, new = (AUTHORITY.issue("127.0.0.1") for _ in range(2))
    with serving(tmp_path, more=MORE + old.section(tmp_path), secure=AUTHORITY.client()) as family:
        (worker,) = family.others
        before = family.one_for_each()
        assert [subject(each) for each in before] == [old.certificate] * 2
        # A key that does not match: the old certificate stays, and one line gives the reason.
        (tmp_path / "server.key").write_bytes(new.key)
        family.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: family.log_lines("does not match the certificate; the certificate in use")
        )
        # A worker that starts while the files are wrong uses the certificate of the others.
        os.kill(worker, signal.SIGKILL)
        family.settle(2)
        before = [before[0], *family.one_for_each()]
        assert [subject(each) for each in before] == [old.certificate] * 3
        new.write(tmp_path)
        family.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(family.log_lines("certificate for 127.0.0.1, valid until")) == 2)
        wait_until(
            lambda: [subject(each) for each in family.one_for_each()] == [new.certificate] * 2
        )
        for connection in before:
            assert ask(connection, "GET", "/v2/")[0].status == 200
        assert is_running(family.first)
        assert family.stop()[0] == 0
