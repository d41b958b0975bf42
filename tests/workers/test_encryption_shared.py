"""Several processes that speak TLS on one socket."""

from __future__ import annotations

from certificates import Authority
from family import MORE, ask, serving

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
