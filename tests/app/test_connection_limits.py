"""How many descriptors a process may have, and how many of them are for connections."""

from __future__ import annotations

import resource

import pytest
import pytest_twisted

from tests.config.config_loading import MEMORY as MEMORY_CONFIGURATION
from tests.config.config_loading import load_config
from tests.support.services import HTTP, MEMORY, run_service
from twisted_registry.app.listener import descriptor_limit, raise_descriptor_limit
from twisted_registry.app.settings import make_limits


@pytest.fixture
def low_limit():
    """Lower the soft limit on descriptors; returns the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_on_descriptors_is_raised_to_the_hard_one(low_limit):
    assert descriptor_limit() == low_limit // 2
    raise_descriptor_limit()
    assert descriptor_limit() == low_limit


@pytest.mark.parametrize(
    ("descriptors", "limits", "connections"),
    [
        (1024, "", 512),
        (10_000, "", 5000),
        (1_000_000, "", 8192),
        (1024, "connections: 700", 700),
        (1_000_000, "connections: 50000", 50_000),
    ],
)
def test_half_of_the_descriptors_are_for_connections(descriptors, limits, connections):
    text = f"{MEMORY_CONFIGURATION}http: {{limits: {{{limits}}}}}\n"
    made = make_limits(load_config(text).configuration, descriptors)
    assert made.connections == connections
    assert made.connections_per_address == 0


@pytest_twisted.ensureDeferred
async def test_the_log_says_how_many_connections_there_may_be(tmp_path, log_lines):
    limit = descriptor_limit()
    async with run_service(tmp_path, MEMORY + HTTP):
        assert f"descriptors: limit={limit} connections={min(limit // 2, 8192)}" in log_lines
        assert not any("ulimit" in line for line in log_lines)
    async with run_service(tmp_path, f"{MEMORY}{HTTP}  limits: {{{{connections: {limit}}}}}\n"):
        (line,) = [line for line in log_lines if "ulimit" in line]
        assert line.startswith(f"http.limits.connections: {limit} is more than half of the")
