"""What the systemd unit of a registry says."""

from __future__ import annotations

import pytest

from twisted_registry.doctor.unit import find_unit

SHOWN = """\
ExecStart={ path=/opt/bin/twisted-registry ; argv[]=/opt/bin/twisted-registry serve /etc/x.yml ; }
User=twisted-registry
WorkingDirectory=!/var/lib/twisted-registry
LimitNOFILE=65536
AmbientCapabilities=cap_net_bind_service
CapabilityBoundingSet=cap_chown cap_net_bind_service
ProtectSystem=strict
ProtectHome=yes
ReadWritePaths=-/srv/registry
StateDirectory=twisted-registry
LogsDirectory=twisted-registry
"""


@pytest.fixture
def systemctl(tmp_path):
    """Return a function that makes a systemctl, which prints a text, and returns its path."""

    def make(text=SHOWN):
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\ncat <<'E'\n{text}E\n")
        program.chmod(0o755)
        return str(program)

    return make


def test_the_settings_of_a_unit(systemctl):
    unit = find_unit("/etc/x.yml", systemctl())
    assert unit.user == "twisted-registry"
    assert unit.working_directory == "/var/lib/twisted-registry"
    assert unit.max_descriptors == 65536
    assert unit.may_bind_low


@pytest.mark.parametrize("user", ["User=twisted-registry\n", ""])
def test_a_capability_that_the_unit_removes_is_of_no_use(systemctl, user):
    text = SHOWN.replace("cap_chown cap_net_bind_service", "cap_chown")
    unit = find_unit("/etc/x.yml", systemctl(text.replace("User=twisted-registry\n", user)))
    assert not unit.may_bind_low


def test_a_unit_with_another_configuration_is_not_meant(systemctl):
    assert find_unit("/etc/y.yml", systemctl()) is None
    assert find_unit("/etc/x.yml", "/no/such/systemctl") is None


def test_paths_that_the_unit_excludes_are_found(systemctl):
    unit = find_unit("/etc/x.yml", systemctl())
    paths = [
        ("root", "/var/lib/twisted-registry/store"),
        ("srv", "/srv/registry"),
        ("log.audit", "/var/log/twisted-registry"),
        ("data", "/data/registry"),
        ("home", "/root/registry"),
    ]
    data, home = unit.check_paths(paths)
    assert data.subject == "data"
    assert data.advice.startswith("write ReadWritePaths=/data/registry below [Service]")
    assert home.evidence == "ProtectHome="


def test_a_unit_without_restrictions_excludes_nothing(systemctl):
    text = SHOWN.splitlines()[0] + "\nProtectSystem=no\nLimitNOFILE=infinity\n"
    text += "CapabilityBoundingSet=cap_chown cap_net_bind_service\n"
    unit = find_unit("/etc/x.yml", systemctl(text))
    assert unit.check_paths([("root", "/data"), ("home", "/root/registry")]) == []
    assert unit.max_descriptors == 0
    assert unit.may_bind_low
