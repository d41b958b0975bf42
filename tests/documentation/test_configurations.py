"""The configurations of the documentation and of ``conf/`` are valid, without warnings, and serve.

A block without ``version`` is a fragment: it is entered in ``REST``. Files and folders are replaced
by those of a temporary folder, addresses by free ports.
"""

from __future__ import annotations

import re
import ssl
import tomllib
from http.client import HTTPConnection, HTTPSConnection

import pytest
import yaml
from twisted.logger import LogLevel, globalLogPublisher

from tests.documentation.pages import FOLDER, ROOT, Block, blocks_in, each_block
from tests.support.passwords import password_lines
from tests.support.self_signed import self_signed
from twisted_registry.config.loading import load_text
from twisted_registry.testing import Registry

BLOCKS = [
    *blocks_in("yaml"),
    *(
        Block(str(path.relative_to(ROOT)), 1, "yaml", path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "conf").glob("*.yml"))
    ),
]
#: What a fragment lacks.
REST = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}}}
#: Further sections that a fragment needs, by the section that it has.
NEEDED = {"access": {"auth": {"htpasswd": {"realm": "Registry", "path": "/etc/registry/users"}}}}
#: Where the folders of a configuration are; all are in one folder here.
FOLDERS = re.compile(r"/(?:etc|var/lib|var/log)/(?:twisted-)?registry|(?<!\S)\.(?=/)")
#: Sections of configurations that are checked and not served, and why.
NOT_SERVED = {
    "letsencrypt": "tests/integration/test_letsencrypt.py serves it, with an ACME server",
    "s3": "tests/storage/s3 and tests/integration serve it, with buckets",
}


def merge(below, above):
    """Enter a configuration in another one."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{name: merge(below.get(name), value) for name, value in above.items()}}


def complete(text):
    """Return a whole configuration, and the names of its keys at any depth."""
    document = yaml.safe_load(text)
    if "version" not in document:
        for name, more in NEEDED.items():
            if name in document and not document.keys() & more.keys():
                document = merge(more, document)
        document = merge(REST, document)
    return document, set(re.findall(r"(\w+):", yaml.safe_dump(document)))


@each_block(BLOCKS)
def test_a_configuration_is_valid_without_a_warning(block):
    document, _ = complete(block.text)
    loaded = load_text(yaml.safe_dump(document, sort_keys=False), {}, block.place)
    assert loaded.warnings == loaded.notices == ()


@pytest.fixture
def my_package(tmp_path, monkeypatch):
    """Install ``my_package`` with the entry points that the page on embedding shows."""
    (block,) = blocks_in("toml")
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that configurations name."""
    pair = self_signed("127.0.0.1")
    made = tmp_path / "files"
    made.mkdir()
    for name in ("chain.pem", "clients.pem", "auth.pem"):
        (made / name).write_bytes(pair.certificate_pem)
    (made / "key.pem").write_bytes(pair.key_pem)
    (made / "key.pem").chmod(0o600)
    for name in ("users", "registry-users"):
        (made / name).write_bytes(password_lines(ada="secret"))
    return made


@pytest.fixture
def complaints():
    """The warnings and errors that the registry logs."""
    found = []

    def note(event):
        if event["log_level"] >= LogLevel.warn:
            found.append(event.get("log_format"))

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)


@each_block(BLOCKS)
def test_a_configuration_serves(block, my_package, folder, complaints, monkeypatch):
    document, names = complete(block.text)
    document = yaml.safe_load(FOLDERS.sub(str(folder), yaml.safe_dump(document)))
    if names & NOT_SERVED.keys():
        return
    with Registry(config=document) as registry:
        if "tls" in document.get("http", {}):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = HTTPSConnection(registry.host, timeout=30, context=context)
        else:
            connection = HTTPConnection(registry.host, timeout=30)
        connection.request("GET", "/v2/")
        response = connection.getresponse()
        assert response.status in {200, 401}
        connection.close()
    assert complaints == []


def test_what_is_not_served_is_shown():
    names = set().union(*(complete(block.text)[1] for block in BLOCKS))
    assert names >= NOT_SERVED.keys()
