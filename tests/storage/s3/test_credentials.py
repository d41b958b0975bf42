from __future__ import annotations

import sys

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.inline_thread import InlineThread
from twisted_registry.storage.s3.credentials import (
    BotocoreMissing,
    Credentials,
    CredentialsError,
    ICredentialsProvider,
    LoadedCredentials,
    SharedFiles,
    StaticCredentials,
    find_credentials,
    from_environment,
    from_shared_files,
)

SHARED = """
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = hush%default

[work]
AWS_ACCESS_KEY_ID=AKWORK
aws_secret_access_key=hush-work
aws_session_token = token-work

[half]
aws_access_key_id = AKHALF

[role]
aws_access_key_id = AKROLE
aws_secret_access_key = hush
role_arn = arn:aws:iam::1:role/x
"""
CONFIG = """
[default]
region = eu-west-1

[profile configured]
aws_access_key_id = AKCONFIG
aws_secret_access_key = hush-config
s3 =
    addressing_style = path

[plain]
aws_access_key_id = AKPLAIN
aws_secret_access_key = hush
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(SHARED)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    return tmp_path


def current(source):
    verifyObject(ICredentialsProvider, source)
    result = []
    source.current().addCallback(result.append)
    return result[0]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (
            {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "hush"},
            Credentials("AK", "hush"),
        ),
        (
            {
                "AWS_ACCESS_KEY_ID": "AK",
                "AWS_SECRET_ACCESS_KEY": "hush",
                "AWS_SESSION_TOKEN": "token",
            },
            Credentials("AK", "hush", "token"),
        ),
        ({"AWS_ACCESS_KEY": "AK", "AWS_SECRET_KEY": "hush"}, Credentials("AK", "hush")),
        ({"AWS_SESSION_TOKEN": "token"}, None),
    ],
)
def test_credentials_of_environment_variables(environ, expected):
    assert from_environment(environ) == expected


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({"AWS_ACCESS_KEY_ID": "AK"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "hush"}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_incomplete_pair_in_the_environment(environ, missing):
    with pytest.raises(CredentialsError, match=f"^{missing} is not set") as caught:
        from_environment(environ)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("", Credentials("AKDEFAULT", "hush%default")),
        ("default", Credentials("AKDEFAULT", "hush%default")),
        ("work", Credentials("AKWORK", "hush-work", "token-work")),
        ("configured", Credentials("AKCONFIG", "hush-config")),
        ("role", None),
    ],
)
def test_credentials_of_a_profile(home, profile, expected):
    assert from_shared_files({"HOME": str(home), "AWS_PROFILE": profile}) == expected


def test_location_of_the_files(home):
    for where in (str(home / "mine"), "~/mine"):
        (home / "mine").write_text("[default]\naws_access_key_id=AK\naws_secret_access_key=s")
        environ = {"HOME": str(home), "AWS_SHARED_CREDENTIALS_FILE": where}
        assert from_shared_files(environ) == Credentials("AK", "s")
        (home / "mine").unlink()
        assert from_shared_files(environ) is None


@pytest.mark.parametrize("profile", ["missing", "plain"])
def test_selected_profile_must_exist(home, profile):
    with pytest.raises(CredentialsError, match=f"'{profile}' is neither in .*/credentials nor"):
        from_shared_files({"HOME": str(home), "AWS_PROFILE": profile})


def test_incomplete_pair_in_a_profile(home):
    with pytest.raises(CredentialsError, match=r"'half' in .* has no aws_secret_access_key"):
        from_shared_files({"HOME": str(home), "AWS_PROFILE": "half"})


@pytest.mark.parametrize("content", [b"aws_secret_access_key=hush", b"[a]\nhush\n", b"\xffhush"])
def test_malformed_file_is_reported_without_its_content(home, content):
    (home / ".aws" / "credentials").write_bytes(content)
    with pytest.raises(CredentialsError, match="is not a valid file of AWS profiles") as caught:
        from_shared_files({"HOME": str(home)})
    assert "hush" not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_missing_files_are_no_error(tmp_path):
    assert from_shared_files({"HOME": str(tmp_path)}) is None
    assert from_shared_files({}) is None


def test_unreadable_file(home):
    (home / ".aws" / "credentials").unlink()
    (home / ".aws" / "credentials").mkdir()
    with pytest.raises(CredentialsError, match="Is a directory"):
        from_shared_files({"HOME": str(home)})


def test_order_of_the_sources(home):
    environ = {
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": "AKENV",
        "AWS_SECRET_ACCESS_KEY": "hush",
    }
    assert current(find_credentials(None, environ, "AK", "s", "t")) == Credentials("AK", "s", "t")
    # An incomplete configured pair is ignored, as in Distribution.
    assert current(find_credentials(None, environ, "AK")).access_key == "AKENV"
    assert current(find_credentials(reactor, {"HOME": str(home)})).access_key == "AKDEFAULT"


def test_missing_extra_is_named_in_the_error(tmp_path, monkeypatch):
    monkeypatch.delitem(
        sys.modules, "twisted_registry.storage.s3.botocore_credentials", raising=False
    )
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(BotocoreMissing, match=r"set accesskey .* install botocore$"):
        find_credentials(None, {"HOME": str(tmp_path)})


def test_closing_static_credentials():
    done = []
    StaticCredentials(Credentials("AK", "s")).close().addCallback(done.append)
    assert done == [None]


@pytest.fixture
def files(home):
    """Credentials of the shared files, loaded at once, and a function that replaces the file."""
    shared = home / ".aws" / "credentials"
    environ = {"HOME": str(home)}
    source = SharedFiles(environ)
    made = LoadedCredentials(
        Clock(), InlineThread(), source, cached=from_shared_files(environ), version=source.version()
    )

    def replace(content):
        new = home / "new"
        new.write_text(content)
        new.rename(shared)

    return made, replace


def keys(access):
    return f"[default]\naws_access_key_id={access}\naws_secret_access_key=s\n"


def test_changed_shared_file_is_read_by_the_next_request(files):
    source, replace = files
    assert current(source).access_key == "AKDEFAULT"
    replace(keys("AKNEW"))
    assert current(source) == Credentials("AKNEW", "s")
    replace(keys("AKNEXT"))
    assert current(source) == Credentials("AKNEXT", "s")


@pytest.mark.parametrize("content", ["", "[default]\n", "not a file of profiles", keys("")])
def test_half_written_shared_file_leaves_the_previous_credentials(files, content):
    source, replace = files
    replace(content)
    assert current(source).access_key == "AKDEFAULT"
    replace(keys("AKNEW"))
    assert current(source).access_key == "AKNEW"


def test_refused_credentials_of_a_file_are_read_again(files):
    source, replace = files
    refused = current(source)
    renewed = []
    source.renew(refused).addCallback(renewed.append)
    assert renewed == [refused]
    replace(keys("AKNEW"))
    assert current(source).access_key == "AKNEW"
    source.renew(refused).addCallback(renewed.append)
    assert renewed[1].access_key == "AKNEW"


def test_find_credentials_follows_the_shared_file(home):
    source = find_credentials(reactor, {"HOME": str(home)})
    assert isinstance(source, LoadedCredentials)
    assert current(source).access_key == "AKDEFAULT"
