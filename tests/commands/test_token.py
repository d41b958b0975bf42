"""``token`` as an operator runs it, and robots that use what it prints."""

from __future__ import annotations

import json
import sys
from base64 import b64encode

import pytest

from tests.support.processes import CONFIGURATION, SERVE, Running, configured, run, wait_until

TOKEN = (sys.executable, "-m", "twisted_registry", "token")
ACCESS = "access:\n  anonymous: [pull]\n  tokens:\n"


@pytest.fixture
def path(tmp_path):
    return configured(tmp_path, CONFIGURATION + ACCESS)


def ran(path, *arguments, status=0):
    """What the command printed; on standard error, too, if it failed."""
    action, *more = arguments
    done, out, err = run(*TOKEN, action, *more, path, cwd=path.rpartition("/")[0])
    assert done == status, err
    return out.splitlines() if not status else err


def basic(name, password):
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


def test_a_robot_and_the_end_of_it(tmp_path, path):
    with Running(*SERVE, path, cwd=tmp_path) as server:
        (token,) = ran(path, "create", "--allow=team/**,!team/x:push", "--expires=1h", "ci")
        (shown,) = json.loads(ran(path, "list", "--json")[0])
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
        said = json.loads(body)
        assert said["scope"] == "repository:team/app:pull,push"
        bearer = {"Authorization": f"Bearer {said['token']}"}
        assert status("team/app", headers=bearer) == 202
        _, body = server.ask("GET", "/auth/token?offline_token=true", headers=robot)
        assert "refresh_token" not in json.loads(body), "it lasts by itself"

        assert ran(path, "revoke", shown["id"]) == []
        wait_until(lambda: {status("team/app"), status("team/app", headers=bearer)} == {401}, 10)
        assert server.ask("GET", "/auth/token", headers=robot)[0].status == 401
        assert ran(path, "list") == []
        _, _, log = server.stop()
        assert token not in "\n".join(log)
        assert token.rpartition("_")[2] not in "\n".join(log)


def test_what_is_listed(path):
    (made,) = ran(path, "create", "--json", "--allow=**:pull", "--expires=never", "reader")
    made = json.loads(made)
    assert made["expires"] is None
    assert made["token"].startswith(f"twr_{made['id']}_")
    ran(path, "create", "--allow=a:delete", "--allow=b/*:admin", "writer")
    first, second = ran(path, "list")
    assert first.split() == [made["id"], "robot", "reader", "for", "ever", "**:pull"]
    assert second.endswith("a:delete b/*:*,delete,pull,push")
    assert "until 2" in second
    (revoked,) = ran(path, "revoke", "--json", made["id"])
    assert json.loads(revoked) == {"revoked": made["id"]}
    (line,) = ran(path, "revoke", made["id"], status=1)
    assert line == f"twisted-registry: no token has the id '{made['id']}'"
    (line,) = ran(path, "revoke", "../upload-secret", status=1)
    assert "no token has the id" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ci",), "the following arguments are required: --allow"),
        (("--allow=a:read", "ci"), "'read' is not some of pull, push, delete, admin"),
        (("--allow=a", "ci"), "'a' is not some of pull"),
        (("--allow=a**:pull", "ci"), "'a**' is no pattern"),
        (("--allow=:pull", "ci"), "'' is no pattern"),
        (("--allow=!a:pull", "ci"), "'!a' chooses nothing; ** is everything"),
        (("--allow=a:pull", "--expires=soon", "ci"), "'soon' is no time such as 90d"),
        (("--allow=a:pull", "--expires=0s", "ci"), "'0s' is no time such as 90d"),
        (("--allow=a:pull", "a b"), "'a b' is no name"),
    ],
)
def test_what_is_refused(path, arguments, said):
    assert said in ran(path, "create", *arguments, status=2)[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONFIGURATION, "access.tokens: without the section nobody believes a token"),
        (
            "version: 0.1\nstorage: inmemory\n" + ACCESS,
            "storage.inmemory: a store in memory keeps no token",
        ),
    ],
)
def test_where_a_token_would_be_of_no_use(tmp_path, text, said):
    path = configured(tmp_path, text)
    (line,) = ran(path, "create", "--allow=a:pull", "ci", status=1)
    assert line == f"twisted-registry: {said}"
