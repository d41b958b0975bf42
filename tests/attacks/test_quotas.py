"""A user who tries to store more than a quota allows, on one and on two processes."""

from __future__ import annotations

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit

import pytest
from attrs import frozen

from tests.support.manifests import digest_of, image
from tests.support.passwords import basic_header, password_lines
from tests.support.processes import SERVE, RegistryProcess, run, wait_until, write_configuration

USERS = {"ada": "ada-knows-this", "bob": "bob-knows-this"}
QUOTA = 1_000_000
BLOB = 100_000
CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance:
    gc: {{grace: 0s}}
http:
  addr: {addr}
  secret: do-not-tell-anybody
  workers: %s
auth:
  htpasswd: {{realm: here, path: %s}}
access:
  authenticated: [push, delete]
  tokens: {{disabled: true}}
  quotas: %s
"""
PER_USER = {"repositories": ["**"], "authenticated": True, "bytes": QUOTA}
OF_TEAM = {"repositories": ["team/**"], "bytes": QUOTA}


@frozen
class Client:
    """One user of a registry."""

    server: RegistryProcess
    user: str

    def __call__(self, method, target, body=None, **headers):
        """Send a request; return the status, the headers, and the error in the body or None."""
        headers["Authorization"] = basic_header(self.user, USERS[self.user])
        response, content = self.server.ask(method, target, body, headers)
        error = json.loads(content)["errors"][0] if content and response.status >= 400 else None
        return response.status, response.headers, error

    def push(self, name, content):
        """Push a blob in one request; return the error or None."""
        target = f"/v2/{name}/blobs/uploads/?digest={digest_of(content)}"
        status, _, error = self("POST", target, content)
        assert status == (201 if error is None else error_status(error)), error
        return error

    def start(self, name):
        """Start an upload; return its target."""
        status, headers, error = self("POST", f"/v2/{name}/blobs/uploads/")
        assert status == 202, error
        return path_of(headers["Location"])

    def fill(self, name, size=BLOB, most=100):
        """Push blobs until one is refused; return how many were not, and the error."""
        for number in range(most):
            error = self.push(name, os.urandom(size))
            if error is not None:
                return number, error
        raise AssertionError(f"none of {most} blobs was refused")


def path_of(url):
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


def error_status(error):
    assert error["code"] == "DENIED"
    return 403


def check_refused(answer, *, requested=None, used=None):
    """Check a refusal by a quota; return its detail."""
    status, _, error = answer
    assert (status, error["code"]) == (403, "DENIED")
    detail = error["detail"]
    assert detail["quota"] == QUOTA
    assert detail["used"] + max(detail["requested"], 1) > QUOTA
    if requested is not None:
        assert detail["requested"] == requested
    if used is not None:
        assert detail["used"] == used
    assert "976.6 KiB" in error["message"]
    return detail


@contextmanager
def serve(folder, *quotas, workers=1):
    (folder / "users").write_bytes(password_lines(**USERS))
    text = CONFIGURATION % (workers, folder / "users", braces(json.dumps(quotas)))
    path = write_configuration(folder, text)
    with RegistryProcess(*SERVE, path, cwd=folder) as server:
        yield server


def braces(text):
    return text.replace("{", "{{").replace("}", "}}")


def count(folder):
    """Count what is in use now."""
    command = (*SERVE[:3], "maintenance", "run", "quotas", "--json", str(folder / "registry.yml"))

    def run_count():
        # The registry itself may be counting.
        status, output, _ = run(*command, cwd=folder)
        return output if status == 0 else None

    return json.loads(wait_until(run_count))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_user_cannot_store_more_than_the_quota_and_others_are_not_affected(tmp_path, workers):
    with serve(tmp_path, PER_USER, workers=workers) as server:
        ada, bob = Client(server, "ada"), Client(server, "bob")
        pushed, error = ada.fill("a/b")
        assert pushed == 10
        assert error["detail"]["requested"] == BLOB
        check_refused(ada("POST", "/v2/other/c/blobs/uploads/"))
        assert bob.push("a/b", os.urandom(BLOB)) is None


@pytest.mark.parametrize("workers", [1, 2])
def test_users_share_the_quota_of_repositories(tmp_path, workers):
    with serve(tmp_path, OF_TEAM, workers=workers) as server:
        ada, bob = Client(server, "ada"), Client(server, "bob")
        assert ada.fill("team/a")[0] == 10
        check_refused(bob("POST", "/v2/team/b/blobs/uploads/"))
        assert bob.push("other", os.urandom(BLOB)) is None
        assert ada.push("teams", os.urandom(BLOB)) is None


@pytest.fixture
def server(tmp_path):
    with serve(tmp_path, OF_TEAM) as server:
        yield server


@pytest.fixture
def ada(server):
    return Client(server, "ada")


@pytest.fixture
def nearly_full(ada):
    """A repository with room for less than one blob; its blobs."""
    contents = [os.urandom(BLOB) for _ in range(9)]
    for content in contents:
        assert ada.push("team/a", content) is None
    assert ada.push("team/a", os.urandom(BLOB // 2)) is None
    return contents


USED = 9 * BLOB + BLOB // 2


def test_a_full_quota_refuses_every_way_to_store_more(ada, nearly_full):
    new = os.urandom(BLOB)
    query = urlencode({"digest": digest_of(new)})
    check_refused(ada("POST", f"/v2/team/b/blobs/uploads/?{query}", new), requested=BLOB)
    for method in ("PATCH", "PUT"):
        url = f"{ada.start('team/b')}&{query}"
        check_refused(ada(method, url, new), requested=BLOB, used=USED)
        assert ada("GET", url)[0] == 404
        # Of unknown length: it is refused when it does not fit any more.
        url = f"{ada.start('team/b')}&{query}"
        status, _, error = ada(method, url, iter([new[:1000], new[1000:]]))
        assert (status, error["code"]) == (403, "DENIED")
        assert ada("GET", url)[0] == 404
    assert ada.push("elsewhere", new) is None
    mount = urlencode({"mount": digest_of(new), "from": "elsewhere"})
    check_refused(ada("POST", f"/v2/team/b/blobs/uploads/?{mount}"), requested=BLOB)
    assert ada("HEAD", f"/v2/team/b/blobs/{digest_of(new)}")[0] == 404
    padding = " " * BLOB
    manifest = json.loads(image(nearly_full[0], annotations={"a": padding}))
    large = json.dumps(manifest).encode()
    headers = {"Content-Type": manifest["mediaType"]}
    check_refused(ada("PUT", "/v2/team/a/manifests/large", large, **headers), requested=len(large))
    assert ada("GET", "/v2/team/a/manifests/large")[0] == 404


def test_a_full_quota_admits_what_takes_no_more_room(ada, nearly_full):
    content = nearly_full[0]
    manifest = image(content)
    headers = {"Content-Type": json.loads(manifest)["mediaType"]}
    target = "/v2/team/a/manifests"
    assert ada("PUT", f"{target}/one", manifest, **headers)[0] == 201
    assert ada.push("team/a", os.urandom(QUOTA - USED - len(manifest))) is None
    check_refused(ada("POST", "/v2/team/a/blobs/uploads/"), used=QUOTA)
    assert ada("PUT", f"{target}/two", manifest, **headers)[0] == 201
    assert ada("GET", f"{target}/two")[0] == 200
    mount = urlencode({"mount": digest_of(content), "from": "team/a"})
    assert ada("POST", f"/v2/team/a/blobs/uploads/?{mount}")[0] == 201
    assert ada("DELETE", f"{target}/two")[0] == 202


def test_content_that_is_there_already_does_not_count_again(ada):
    content = os.urandom(QUOTA // 2 - 1)
    for _ in range(3):
        assert ada.push("team/a", content) is None
    url = f"{ada.start('team/a')}&{urlencode({'digest': digest_of(content)})}"
    assert ada("PATCH", url, content)[0] == 202
    # In another repository it does.
    assert ada.push("team/b", content)["detail"]["requested"] == len(content)


def test_unfinished_uploads_count(ada):
    for _ in range(10):
        assert ada("PATCH", ada.start("team/a"), os.urandom(BLOB))[0] == 202
    check_refused(ada("POST", "/v2/team/a/blobs/uploads/"), used=QUOTA)


def test_uploads_that_are_cancelled_or_refused_do_not_use_up_the_quota(ada):
    for number in range(12):
        url = ada.start("team/a")
        if number % 3:
            status, headers, _ = ada("PATCH", url, os.urandom(BLOB))
            assert status == 202
            url = path_of(headers["Location"])
        if number % 3 == 1:
            assert ada("DELETE", url)[0] == 204
        elif number % 3 == 2:
            check_refused(ada("PATCH", url, os.urandom(QUOTA)), requested=QUOTA, used=BLOB)
        else:
            pieces = iter([os.urandom(BLOB) for _ in range(11)])
            check_refused(ada("PATCH", url, pieces))
        assert ada("GET", url)[0] == 404
    assert ada.push("team/a", os.urandom(QUOTA)) is None


def test_bytes_that_are_freed_by_parallel_requests_are_freed_once(ada):
    first = os.urandom(BLOB)
    assert ada.push("team/a", first) is None
    status, headers, _ = ada("PATCH", ada.start("team/a"), os.urandom(BLOB))
    assert status == 202
    url = path_of(headers["Location"])
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda _: ada("DELETE", url), range(20)))
    assert ada.push("team/a", os.urandom(QUOTA))["detail"]["used"] == BLOB


def test_an_upload_up_to_the_last_byte_of_the_quota_can_be_finished(ada):
    content = os.urandom(QUOTA)
    status, headers, _ = ada("PATCH", ada.start("team/a"), iter([content[:9], content[9:]]))
    assert status == 202
    url = f"{path_of(headers['Location'])}&{urlencode({'digest': digest_of(content)})}"
    assert ada("PUT", url)[0] == 201
    check_refused(ada("POST", "/v2/team/a/blobs/uploads/"), used=QUOTA)


def test_uploads_with_a_wrong_digest_do_not_use_up_the_quota(ada):
    for number in range(15):
        content = os.urandom(BLOB)
        url = f"{ada.start('team/a')}&{urlencode({'digest': digest_of(b'another')})}"
        if number % 2:
            answer = ada("PUT", url, content)
        else:
            _, headers, _ = ada("PATCH", url, content)
            location = path_of(headers["Location"])
            answer = ada("PUT", f"{location}&{urlencode({'digest': digest_of(b'another')})}")
        assert (answer[0], answer[2]["code"]) == (400, "DIGEST_INVALID")
    assert ada.push("team/a", os.urandom(QUOTA)) is None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [BLOB, 3 * BLOB])
def test_parallel_uploads_get_no_more_than_the_quota(tmp_path, workers, size):
    with serve(tmp_path, OF_TEAM, workers=workers) as server:
        ada = Client(server, "ada")
        with ThreadPoolExecutor(20) as threads:
            errors = list(threads.map(lambda _: ada.push("team/a", os.urandom(size)), range(20)))
        assert errors.count(None) <= QUOTA // size
        # Each of two may have been refused because of the other.
        pushed, _ = ada.fill("team/a", size)
        assert errors.count(None) + pushed == QUOTA // size


def send_and_leave(server, user, target, content):
    """Send a whole upload in one request, and leave without reading the answer."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        f"Authorization: {basic_header(user, USERS[user])}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + content)
        # RST rather than FIN: the server notices at once.
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def test_blobs_whose_sender_leaves_before_the_answer_count(tmp_path):
    with serve(tmp_path, PER_USER, OF_TEAM) as server:
        ada = Client(server, "ada")
        for _ in range(30):
            content = os.urandom(BLOB)
            target = f"/v2/team/a/blobs/uploads/?digest={digest_of(content)}"
            send_and_leave(server, "ada", target, content)
        folder = tmp_path / "store/docker/registry/v2/repositories/team/a/_layers/sha256"
        stored = len(list(folder.iterdir())) if folder.exists() else 0
        assert stored <= 10
        pushed, _ = ada.fill("team/a")
        assert stored + pushed <= 10
        assert count(tmp_path)["result"]["used"]["team/**"] <= QUOTA


def test_the_use_outlives_a_kill_and_is_counted_at_the_next_start(tmp_path):
    with serve(tmp_path, PER_USER, OF_TEAM) as server:
        ada = Client(server, "ada")
        for _ in range(9):
            assert ada.push("team/a", os.urandom(BLOB)) is None
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with serve(tmp_path, PER_USER, OF_TEAM) as server:
        ada, bob = Client(server, "ada"), Client(server, "bob")
        assert ada.push("team/a", os.urandom(BLOB + 1))["detail"]["used"] == 9 * BLOB
        assert bob.push("team/a", os.urandom(BLOB + 1))["detail"]["used"] == 9 * BLOB
        assert bob.push("own", os.urandom(QUOTA)) is None


def test_deleted_content_makes_room_when_it_was_counted_again(tmp_path):
    with serve(tmp_path, PER_USER, OF_TEAM) as server:
        ada = Client(server, "ada")
        contents = [os.urandom(BLOB) for _ in range(10)]
        for content in contents:
            assert ada.push("team/a", content) is None
        check_refused(ada("POST", "/v2/team/a/blobs/uploads/"))
        for content in contents[:5]:
            assert ada("DELETE", f"/v2/team/a/blobs/{digest_of(content)}")[0] == 202
        assert count(tmp_path)["result"]["used"] == {"**": 5 * BLOB, "team/**": 5 * BLOB}
        wait_until(lambda: ada("POST", "/v2/team/a/blobs/uploads/")[0] == 202)
        assert ada.fill("team/a")[0] == 5
