"""The command ``token``, and robots that use its tokens."""

from __future__ import annotations

import json
import sys
from base64 import b64encode, urlsafe_b64decode

import pytest

from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    run,
    wait_until,
    write_configuration,
)

TOKEN = (sys.executable, "-m", "twisted_registry", "token")
ACCESS = "access:\n  anonymous: [pull]\n  tokens:\n"


@pytest.fixture
def path(tmp_path):
    return write_configuration(tmp_path, CONFIGURATION + ACCESS)


def run_token(path, *arguments, status=0):
    """The lines of standard output, or of standard error if *status* is not 0."""
    action, *more = arguments
    done, out, err = run(*TOKEN, action, *more, path, cwd=path.rpartition("/")[0])
    assert done == status, err
    return out.splitlines() if not status else err


def basic(name, password):
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


def test_a_robot_has_its_rights_until_its_token_is_revoked(tmp_path, path):
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        (token,) = run_token(path, "create", "--allow=team/**,!team/x:push", "--expires=1h", "ci")
        (shown,) = json.loads(run_token(path, "list", "--json")[0])["tokens"]
        assert token not in json.dumps(shown)
        assert (shown["name"], shown["kind"]) == ("ci", "robot")
        assert shown["rights"] == [
            {"repositories": ["team/**", "!team/x"], "actions": ["pull", "push"]}
        ]
        robot = basic("whatever", token)

        def status(name, method="POST", headers=robot):
            path = f"/v2/{name}/" + ("blobs/uploads/" if method == "POST" else "tags/list")
            return server.ask(method, path, headers=headers)[0].status

        assert status("team/app") == 202
        assert status("team/x") == status("other") == 403
        assert status("other", headers={}) == 401
        scope = "repository:team/app:pull,push+repository:other:push"
        _, body = server.ask("GET", f"/auth/token?scope={scope}", headers=robot)
        answer = json.loads(body)
        assert answer["scope"] == "repository:team/app:pull,push"
        bearer = {"Authorization": f"Bearer {answer['token']}"}
        assert status("team/app", headers=bearer) == 202
        _, body = server.ask("GET", "/auth/token?offline_token=true", headers=robot)
        assert "refresh_token" not in json.loads(body), "it lasts by itself"

        assert run_token(path, "revoke", shown["id"]) == []
        wait_until(lambda: {status("team/app"), status("team/app", headers=bearer)} == {401}, 10)
        assert server.ask("GET", "/auth/token", headers=robot)[0].status == 401
        assert run_token(path, "list") == []
        _, _, log = server.stop()
        assert token not in "\n".join(log)
        assert token.rpartition("_")[2] not in "\n".join(log)


def test_created_tokens_are_listed_and_revoked(path):
    (made,) = run_token(path, "create", "--json", "--allow=**:pull", "--expires=never", "reader")
    made = json.loads(made)
    assert made["expires"] is None
    assert made["token"].startswith(f"twr_{made['id']}_")
    run_token(path, "create", "--allow=a:delete", "--allow=b/*:admin", "writer")
    first, second = run_token(path, "list")
    assert first.split() == [made["id"], "robot", "reader", "for", "ever", "**:pull"]
    assert second.endswith("a:delete b/*:*,delete,pull,push")
    assert "until 2" in second
    (revoked,) = run_token(path, "revoke", "--json", made["id"])
    assert json.loads(revoked) == {"revoked": made["id"]}
    (line,) = run_token(path, "revoke", made["id"], status=1)
    assert line == f"twisted-registry: no token has the ID '{made['id']}'"
    (line,) = run_token(path, "revoke", "../upload-secret", status=1)
    assert "no token has the ID" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ci",), "the following arguments are required: --allow"),
        (
            ("--allow=a:read", "ci"),
            "invalid actions 'read': expected some of pull, push, delete, admin",
        ),
        (("--allow=a", "ci"), "invalid actions 'a': expected some of pull"),
        (("--allow=a**:pull", "ci"), "invalid pattern 'a**'"),
        (("--allow=:pull", "ci"), "invalid pattern ''"),
        (("--allow=!a:pull", "ci"), "'!a' matches no repository"),
        (("--allow=a:pull", "--expires=soon", "ci"), "invalid lifetime 'soon'"),
        (("--allow=a:pull", "--expires=0s", "ci"), "invalid lifetime '0s'"),
        (("--allow=a:pull", "a b"), "invalid name 'a b'"),
    ],
)
def test_invalid_arguments_are_rejected(path, arguments, message):
    assert message in run_token(path, "create", *arguments, status=2)[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CONFIGURATION, "access.tokens: without this section the registry accepts no tokens"),
        (
            "version: 0.1\nstorage: inmemory\n" + ACCESS,
            "storage.inmemory: a command cannot open the store of another process",
        ),
    ],
)
def test_a_token_that_could_not_be_used_is_not_created(tmp_path, text, message):
    path = write_configuration(tmp_path, text)
    (line,) = run_token(path, "create", "--allow=a:pull", "ci", status=1)
    assert line == f"twisted-registry: {path}: {message}"


def bearer(server, path="/auth/token"):
    """A new token, as an Authorization header, and the id of its key."""
    token = json.loads(server.ask("GET", path)[1])["token"]
    head = token.partition(".")[0]
    kid = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    return {"Authorization": f"Bearer {token}"}, kid


def test_all_processes_use_a_rotated_key_within_seconds(tmp_path):
    path = write_configuration(tmp_path, CONFIGURATION, more=f"  workers: 2\n{ACCESS}")

    def statuses(headers):
        return {server.ask("GET", "/v2/", headers=headers)[0].status for _ in range(10)}

    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        old, first = bearer(server)
        assert {bearer(server)[1] for _ in range(10)} == {first}
        assert statuses(old) == {200}
        (line,) = run_token(path, "rotate-keys", "--json")
        rotated = json.loads(line)
        assert rotated["accepted"] == [rotated["signing"], first]
        assert rotated["signing"] != first
        wait_until(lambda: {bearer(server)[1] for _ in range(10)} == {rotated["signing"]}, 10)
        new, _ = bearer(server)
        assert statuses(old) == statuses(new) == {200}

        assert run_token(path, "rotate-keys", "--revoke") == []
        wait_until(lambda: statuses(old) == statuses(new) == {401}, 10)
        assert statuses(bearer(server)[0]) == {200}
        _, out, lines = server.stop()
    content = (tmp_path / "store" / "twisted-registry" / "tokens" / "keys").read_text()
    (key,) = json.loads(content)["keys"]
    assert key["key"] not in out + "".join(lines)


@pytest.mark.parametrize("kind", ["key", "keyfile"])
def test_keys_outside_of_the_store_are_not_rotated(tmp_path, kind):
    path = write_configuration(tmp_path, CONFIGURATION, more=f"{ACCESS}    {kind}: {'0' * 64}\n")
    (line,) = run_token(path, "rotate-keys", status=1)
    assert line == (
        f"twisted-registry: access.tokens.{kind}: the keys are not in the store; change them there"
    )
