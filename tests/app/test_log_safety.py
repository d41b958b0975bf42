"""No secret gets into a log or a page, and no client can forge or break lines."""

from __future__ import annotations

import json
import re
import socket
from base64 import b64encode
from http.client import HTTPConnection

import pytest

from tests.support.manifests import digest_of
from tests.support.passwords import basic_header, password_lines
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    free_port,
    wait_until,
    write_configuration,
)

PASSWORD = "pa55word-of-ann"
#: Secrets of the configuration and the environment.
CONFIGURED = {
    "http.secret": "do-not-tell",
    "hook": "pa55word-of-mail",
    "header": "header-of-endpoint",
    "hmac": "secret-of-endpoint",
    "secretkey": "s3cretkey-of-bucket",
    "session": "session-of-bucket",
}
#: Secrets in requests.
SENT = {
    "password": PASSWORD,
    "wrong": "wr0ng-password",
    "bearer": "eyJhbGciOiJub25lIn0.tokentokentoken.",
    "refresh": "twr_refreshrefreshrefresh",
    "signature": "presignedsignature",
    "query": "tokeninquery",
    "cookie": "sessioncookie",
}
PAGES = ["health", "vars", "stacks", "maintenance"]
MORE = """\
  workers: {workers}
  debug: {{addr: '127.0.0.1:{debug}', prometheus: {{enabled: true}}}}
log:
  level: debug
  formatter: {formatter}
  hooks:
  - type: mail
    levels: [error]
    options:
      smtp: {{addr: '127.0.0.1:1', username: me, password: {hook}}}
      from: a@example.org
      to: [b@example.org]
auth:
  htpasswd: {{realm: here, path: {users}}}
notifications:
  endpoints:
  - name: closed
    url: http://127.0.0.1:1/events
    headers: {{Authorization: [Bearer {header}]}}
    secret: {hmac}
"""
BUCKET = """\
version: 0.1
log: {{level: debug, formatter: {formatter}}}
storage:
  s3:
    region: somewhere
    regionendpoint: http://127.0.0.1:1
    bucket: images
    accesskey: AKIDEXAMPLE
    secretkey: {secretkey}
    loglevel: debugwithsigning
http: {{addr: '127.0.0.1:0', secret: {http_secret}}}
"""


def ask(port, method, path, headers=None, body=None):
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def send_secrets(port):
    """Send each secret wherever clients do; return those that the registry has made."""
    ann = {"Authorization": basic_header("ann", PASSWORD), "Cookie": f"id={SENT['cookie']}"}
    query = f"access_token={SENT['query']}&X-Amz-Signature={SENT['signature']}"
    referer = {"Referer": f"https://x/y?{query}", **ann}
    assert ask(port, "GET", f"/v2/?{query}", referer).status == 200
    assert ask(port, "GET", f"/nowhere?{query}", referer).status == 404
    for refused in (
        basic_header("ann", SENT["wrong"]),
        f"Bearer {SENT['bearer']}",
        f"Bearer {SENT['refresh']}",
        SENT["bearer"],
    ):
        headers = {"Authorization": refused}
        assert ask(port, "GET", "/v2/a/tags/list", headers).status in {400, 401}
    started = ask(port, "POST", "/v2/a/blobs/uploads/", ann)
    assert started.status == 202
    location = started.getheader("Location")
    path = location.partition(str(port))[2]
    state = re.search("_state=([^&]*)", location)[1]
    assert ask(port, "PATCH", path, ann, b"some").status == 202
    assert ask(port, "PUT", f"{path}&digest={digest_of(b'other')}", ann, b"").status >= 400
    assert ask(port, "PUT", f"{path}x&digest=1", ann, b"").status >= 400
    form = f"grant_type=refresh_token&refresh_token={SENT['refresh']}"
    ask(port, "POST", f"/auth/token?password={SENT['wrong']}", ann, form.encode())
    return [state, *(value.split()[1] for value in (ann["Authorization"],))]


@pytest.mark.parametrize(("formatter", "workers"), [("text", 1), ("json", 1), ("logstash", 2)])
def test_secrets_are_in_no_log_and_on_no_page(tmp_path, formatter, workers):
    users = tmp_path / "users"
    users.write_bytes(password_lines(ann=PASSWORD))
    debug = free_port()
    more = MORE.format(**CONFIGURED, formatter=formatter, workers=workers, users=users, debug=debug)
    path = write_configuration(tmp_path, CONFIGURATION, more=more)
    pages = []
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        made = send_secrets(server.port)
        for page in PAGES:
            connection = HTTPConnection("127.0.0.1", debug, timeout=30)
            connection.request("GET", f"/debug/{page}?password={SENT['wrong']}")
            pages.append(connection.getresponse().read().decode())
            connection.close()
        wait_until(lambda: "/nowhere" in server.output)
        _, out, lines = server.stop()
    everything = "\n".join([out, *lines, *pages])
    assert "response completed with error" in everything
    assert "_state=REDACTED" in everything
    secrets = {*CONFIGURED.values(), *SENT.values(), *made}
    assert [secret for secret in secrets if secret in everything] == []
    encoded = {b64encode(secret.encode()).decode().rstrip("=") for secret in secrets}
    assert [secret for secret in encoded if secret in everything] == []


def test_secrets_of_a_bucket_are_in_no_log(tmp_path):
    path = tmp_path / "bucket.yml"
    secrets = {**CONFIGURED, "http_secret": CONFIGURED["http.secret"]}
    path.write_text(BUCKET.format(formatter="json", **secrets))
    environ = {"AWS_SESSION_TOKEN": CONFIGURED["session"]}
    with RegistryProcess(*SERVE, str(path), cwd=tmp_path, **environ) as server:
        wait_until(lambda: any("s3 request" in line for line in server.lines))
        server.ask("GET", "/v2/a/manifests/latest")
        _, out, lines = server.stop()
    everything = "\n".join([out, *lines])
    assert [secret for secret in CONFIGURED.values() if secret in everything] == []


#: Bytes that a header may have, and that no line may have as they are.
HOSTILE = b'\x80\xff\xc2\x85\xe2\x80\xa8\xe2\x80\xae" level=error msg="forged\t'
CONTROLS = b"\x1b[31m\x00\x7f\r\n"
_FIELD = re.compile(r'(?:[A-Za-z0-9.@_-]+)=(?:"(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)')


def exchange(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(("formatter", "workers"), [("text", 2), ("json", 1), ("logstash", 1)])
def test_clients_cannot_forge_lines(tmp_path, formatter, workers):
    users = tmp_path / "users"
    users.write_bytes(password_lines(ann=PASSWORD))
    more = (
        f"  workers: {workers}\nlog: {{level: debug, formatter: {formatter}}}\n"
        f"auth: {{htpasswd: {{realm: here, path: {users}}}}}\n"
    )
    path = write_configuration(tmp_path, more=more)
    name = b64encode(CONTROLS + HOSTILE + b":password")
    good = basic_header("ann", PASSWORD).encode()
    percent = b"".join(b"%%%02x" % byte for byte in CONTROLS + HOSTILE)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        for target in (b"/v2/" + percent + b"/tags/list", b"/v2/a/manifests/" + percent, b"/x"):
            for more_fields in (
                b"User-Agent: " + HOSTILE,
                b"Referer: " + HOSTILE,
                b"X-Request-Id: " + HOSTILE,
                b"X-Forwarded-For: " + HOSTILE,
                b"Authorization: Basic " + name,
            ):
                head = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % target
                head += b"Authorization: %b\r\n%b\r\n\r\n" % (good, more_fields)
                assert exchange(server.port, head)
        last = b"GET /v2/last/manifests/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert b" 401 " in exchange(server.port, last)
        wait_until(lambda: "/v2/last/manifests" in server.output)
        _, out, lines = server.stop()
    assert len(lines) > 20
    for line in lines:
        assert line.isprintable(), line
        if formatter == "text":
            assert line.startswith("time=")
            assert _FIELD.sub("", line) == "", line
            assert " level=error" not in re.sub(r'"(?:[^"\\]|\\.)*"', '""', line)
        else:
            assert json.loads(line)["level"] != "error"
    access = out.splitlines()
    assert len(access) == 16
    assert all(line.isascii() and line.isprintable() for line in access)
    assert not any(line.count(" msg=") and 'msg="f' in line for line in access)
