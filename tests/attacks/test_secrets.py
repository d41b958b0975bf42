"""Passwords and tokens are in no log, error, repr, command line or environment."""

from __future__ import annotations

import gc
from base64 import b64encode
from pathlib import Path

import pytest_twisted
from twisted.web.server import Request

from tests.attacks.defended import OWN, PASSWORDS, SERVER_SECRET, STORE, TARGET, USERS, section
from tests.support.passwords import basic_header
from tests.support.processes import SERVE, RegistryProcess, write_configuration

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
WRONG = "a-password-that-was-mistyped"


def secrets_of(world, more=()):
    """Return the secrets as texts: passwords, plain and encoded, tokens, and signatures."""
    texts = {SERVER_SECRET, WRONG, *USERS.values(), *more}
    for authorization in (
        *world.shown,
        *(basic_header(name, USERS[name]) for name in USERS),
    ):
        raw = authorization.partition(" ")[2]
        texts |= {raw, raw.rpartition(".")[2]}
    texts |= {b64encode(f"root:{WRONG}".encode()).decode()}
    if (world.folder / "users").exists():
        texts |= {line.partition(":")[2] for line in (world.folder / "users").read_text().split()}
    return {text for text in texts if text}


async def traffic(world):
    """Send valid and invalid logins to every endpoint; return responses and issued tokens."""
    target, given = "/v2/team/none/manifests/latest", []
    answers = [
        await world(user, method, target)
        for user in ("root", "ada", "")
        for method in ("GET", "DELETE")
    ]
    for password in (WRONG, f"{WRONG}\x00\x01\x02", f"{WRONG}\xff", WRONG * 30):
        await world.refuses(basic_header("root", password))
    encoded = b64encode(WRONG.encode()).decode()
    for text in (
        *(f"{scheme} {WRONG}" for scheme in ("Basic", "Bearer", "Other")),
        *(WRONG, f"Bearer {WRONG}.a.b", f"Bearer eyJ{WRONG}.eyJ.eyJ", f"Basic {encoded}"),
    ):
        await world.refuses(text)
    if world.kind == OWN:
        for user, password in (("ada", USERS["ada"]), ("ada", WRONG)):
            sent = {"Authorization": basic_header(user, password)}
            given.append(
                await world.api.request_target("GET", "/auth/token?offline_token=true", sent)
            )
            form = f"grant_type=password&username={user}&password={password}&access_type=offline"
            given.append(await world.api.request_target("POST", "/auth/token", FORM, form.encode()))
        refresh = given[0].json()["refresh_token"]
        for token in (refresh, WRONG):
            form = f"grant_type=refresh_token&refresh_token={token}"
            given.append(await world.api.request_target("POST", "/auth/token", FORM, form.encode()))
        answers += [answer for answer in given if answer.status != 200]
        assert len(answers) == 9
    tokens = [answer.json() for answer in given if answer.status == 200]
    return answers, {each[name] for each in tokens for name in ("token", "refresh_token")
                     if name in each}  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_no_response_and_no_log_line_has_a_secret(world):
    answers, given = await traffic(world)
    secrets = secrets_of(world, given)
    assert len(secrets) > 8
    said = "".join(answer.raw.decode("latin-1") for answer in answers)
    logged = "".join(world.events) + world.access_log.getvalue()
    assert "login refused" in logged
    assert "/v2/team/none/manifests/latest" in logged
    for text in secrets:
        assert text not in said
        assert text not in logged


@pytest_twisted.ensureDeferred
async def test_no_repr_has_a_secret(world):
    """Check the repr of every object of the package, as a traceback would show it."""
    _, given = await traffic(world)
    secrets = secrets_of(world, given)
    looked_at = set()
    for each in gc.get_objects():
        kind = type(each)
        if not str(kind.__module__).startswith("twisted_registry") or isinstance(each, Request):
            continue
        try:
            text = repr(each)
        except AttributeError:  # partly initialized or partly deleted
            continue
        looked_at.add(kind.__name__)
        assert not any(secret in text for secret in secrets), kind
    assert {"Configuration", "RegistryService", "SchemeAccess"} <= looked_at


def test_no_command_line_or_environment_has_a_secret(tmp_path):
    """Workers get the configuration through a pipe, not in their command lines."""
    http = f"http:\n  addr: 127.0.0.1:0\n  secret: {SERVER_SECRET}\n  workers: 2\n"
    path = write_configuration(tmp_path, STORE + http + section(PASSWORDS, tmp_path))
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as served:
        assert served.ask(path=TARGET)[0].status == 401
        family = [served.process.pid, *children(served.process.pid)]
        assert len(family) >= 2
        for pid in family:
            for name in ("cmdline", "environ", "comm"):
                assert SERVER_SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        assert served.stop()[0] == 0


def children(pid):
    """Return the process ids of the children of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]
