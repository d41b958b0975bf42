"""Passwords and tokens are in no log, error, repr, command line or environment."""

from __future__ import annotations

import gc
from base64 import b64encode
from pathlib import Path

import pytest
import pytest_twisted
from twisted.web.server import Request

from tests.attacks.attacked_registry import (
    CONFIGURATION,
    OWN_TOKENS,
    PASSWORDS,
    SERVER_SECRET,
    SETUPS_HERE,
    TARGET,
    USERS,
    auth_section,
)
from tests.support.passwords import basic_header
from tests.support.processes import SERVE, RegistryProcess, write_configuration

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
WRONG = "a-password-that-was-mistyped"


def find_secrets(registry, more=()):
    """Return the secrets as texts: passwords, plain and encoded, tokens, and signatures."""
    texts = {SERVER_SECRET, WRONG, *USERS.values(), *more}
    for authorization in (
        *registry.sent_credentials,
        *(basic_header(name, USERS[name]) for name in USERS),
    ):
        raw = authorization.partition(" ")[2]
        texts |= {raw, raw.rpartition(".")[2]}
    texts |= {b64encode(f"root:{WRONG}".encode()).decode()}
    users = registry.folder / "users"
    if users.exists():
        texts |= {line.partition(":")[2] for line in users.read_text().split()}
    return {text for text in texts if text}


async def send_logins(registry):
    """Send valid and invalid logins to every endpoint; return responses and issued tokens."""
    target, token_responses = "/v2/team/none/manifests/latest", []
    answers = [
        await registry(user, method, target)
        for user in ("root", "ada", "")
        for method in ("GET", "DELETE")
    ]
    for password in (WRONG, f"{WRONG}\x00\x01\x02", f"{WRONG}\xff", WRONG * 30):
        await registry.assert_refused(basic_header("root", password))
    encoded = b64encode(WRONG.encode()).decode()
    for text in (
        *(f"{scheme} {WRONG}" for scheme in ("Basic", "Bearer", "Other")),
        *(WRONG, f"Bearer {WRONG}.a.b", f"Bearer eyJ{WRONG}.eyJ.eyJ", f"Basic {encoded}"),
    ):
        await registry.assert_refused(text)
    if registry.scheme == OWN_TOKENS:

        async def ask_for_token(method, query="", headers=FORM, form=""):
            target = f"/auth/token{query}"
            response = await registry.api.request_target(
                method, target, headers, form.encode() or None
            )
            token_responses.append(response)

        for password in (USERS["ada"], WRONG):
            basic = {"Authorization": basic_header("ada", password)}
            await ask_for_token("GET", "?offline_token=true", basic)
            form = f"grant_type=password&username=ada&password={password}&access_type=offline"
            await ask_for_token("POST", form=form)
        refresh = token_responses[0].json()["refresh_token"]
        for token in (refresh, WRONG):
            await ask_for_token("POST", form=f"grant_type=refresh_token&refresh_token={token}")
        answers += [answer for answer in token_responses if answer.status != 200]
        assert len(answers) == 9
    tokens = [answer.json() for answer in token_responses if answer.status == 200]
    return answers, {each[name] for each in tokens for name in ("token", "refresh_token")
                     if name in each}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def only_objects_of_this_module():
    """Keep what other tests have left out of ``gc.get_objects``: there may be very much."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest_twisted.ensureDeferred
async def test_no_response_and_no_log_line_has_a_secret(registry):
    answers, tokens = await send_logins(registry)
    secrets = find_secrets(registry, tokens)
    assert len(secrets) > 8
    received = "".join(answer.raw.decode("latin-1") for answer in answers)
    audit = registry.audit_log.read_text()
    assert '"event": "login"' in audit
    logged = registry.logged() + audit
    assert "login refused" in logged
    assert "/v2/team/none/manifests/latest" in logged
    for text in secrets:
        assert text not in received
        assert text not in logged


@pytest.mark.parametrize("registry", SETUPS_HERE, ids=str, indirect=True)
@pytest_twisted.ensureDeferred
async def test_no_repr_has_a_secret(registry):
    """Check the repr of every object of the package, as a traceback would show it."""
    _, tokens = await send_logins(registry)
    secrets = find_secrets(registry, tokens)
    checked_types = set()
    for each in gc.get_objects():
        kind = type(each)
        if not str(kind.__module__).startswith("twisted_registry") or isinstance(each, Request):
            continue
        try:
            text = repr(each)
        except AttributeError:  # partly initialized or partly deleted
            continue
        checked_types.add(kind.__name__)
        assert not any(secret in text for secret in secrets), kind
    assert {"Configuration", "RegistryService", "SchemeAccess"} <= checked_types


def test_no_command_line_or_environment_has_a_secret(tmp_path):
    """Workers get the configuration through a pipe, not in their command lines."""
    http = f"http:\n  addr: 127.0.0.1:0\n  secret: {SERVER_SECRET}\n  workers: 2\n"
    path = write_configuration(tmp_path, CONFIGURATION + http + auth_section(PASSWORDS, tmp_path))
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
