"""Who we are to the store: a key pair, perhaps for a while only.

Credentials from the environment, and from the files that AWS's tools share.

Read once, at the start, without AWS's own library. What these files may say besides plain keys
(roles to assume, programs to ask, single sign-on) is left to that library.

Where credentials are looked for, in order.
"""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen
from twisted.internet.defer import succeed
from zope.interface import Interface, implementer

from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"


class CredentialsError(Exception):
    """No credentials could be had; the text says where they were looked for, and never one."""


@frozen
class Credentials:
    """A key pair.

    :ivar access_key: the public half.
    :ivar secret_key: the secret half.
    :ivar token: the session that temporary keys belong to, or empty.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class ICredentialsProvider(Interface):
    """Where credentials come from."""

    def current() -> Deferred[Credentials]:
        """Fire with credentials that are good now.

        :raises CredentialsError: if there are none.
        """

    def close() -> Deferred[None]:
        """Free what is held; nothing is asked for any more."""


@implementer(ICredentialsProvider)
@frozen
class StaticCredentials:
    """Credentials that never change."""

    credentials: Credentials

    def current(self) -> Deferred[Credentials]:
        """Fire with them."""
        return succeed(self.credentials)

    def close(self) -> Deferred[None]:
        """Do nothing: nothing is held."""
        return succeed(None)


#: Keys of a profile that say that its credentials come from elsewhere.
_INDIRECT_KEYS: Final = frozenset(
    {
        "credential_process",
        "credential_source",
        "login_session",
        "role_arn",
        "sso_account_id",
        "sso_session",
        "web_identity_token_file",
    }
)


def from_environment(environ: Mapping[str, str]) -> Credentials | None:
    """Answer what ``AWS_ACCESS_KEY_ID`` and its companions hold, if they do.

    :raises CredentialsError: if only one half of the pair is set.
    """
    access = environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_ACCESS_KEY") or ""
    secret = environ.get("AWS_SECRET_ACCESS_KEY") or environ.get("AWS_SECRET_KEY") or ""
    if not access and not secret:
        return None
    if not access or not secret:
        missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise CredentialsError(f"{missing} is not set, and its companion is")
    return Credentials(access, secret, environ.get("AWS_SESSION_TOKEN", ""))


def from_shared_files(environ: Mapping[str, str]) -> Credentials | None:
    """Answer the keys of the profile, or None if it has none, or has them from elsewhere.

    The profile is ``AWS_PROFILE``, else ``default``; the files are
    ``AWS_SHARED_CREDENTIALS_FILE``, else ``~/.aws/credentials``, and ``AWS_CONFIG_FILE``, else
    ``~/.aws/config``, where the sections of profiles are called ``profile NAME``.

    :raises CredentialsError: if a file can not be understood, a profile was asked for by name
        and is nowhere, or lacks one half of the pair.
    """
    asked = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""
    profile = asked or "default"
    shared = _file(environ, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = _file(environ, "AWS_CONFIG_FILE", "~/.aws/config")
    in_config = ("default",) if profile == "default" else ()
    keys = {**_keys(config, f"profile {profile}", *in_config), **_keys(shared, profile)}
    if asked and not keys:
        raise CredentialsError(f"the profile {asked!r} is neither in {shared} nor in {config}")
    access, secret = keys.get("aws_access_key_id", ""), keys.get("aws_secret_access_key", "")
    if _INDIRECT_KEYS & keys.keys() or not (access or secret):
        return None
    if not access or not secret:
        missing = "aws_secret_access_key" if access else "aws_access_key_id"
        raise CredentialsError(f"the profile {profile!r} in {shared} has no {missing}")
    return Credentials(access, secret, keys.get("aws_session_token", ""))


def _file(environ: Mapping[str, str], variable: str, default: str) -> Path:
    path = Path(environ.get(variable) or default)
    home = environ.get("HOME") or "/"
    return Path(home, *path.parts[1:]) if path.parts[0] == "~" else path


def _keys(path: Path, *sections: str) -> dict[str, str]:
    """The keys of the first of the sections that a file has."""
    parser = ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, PermissionError):
        # Services are often kept out of home directories, and need nothing there.
        return {}
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
    except (ConfigError, UnicodeDecodeError):
        # Not from the error: its text may show a line of the file, and that a secret.
        raise CredentialsError(f"{path} is no file of AWS profiles") from None
    found = next((name for name in sections if parser.has_section(name)), None)
    return {} if found is None else dict(parser.items(found))


def find_credentials(
    reactor: Any,
    environ: Mapping[str, str],
    access_key: str = "",
    secret_key: str = "",
    token: str = "",
) -> ICredentialsProvider:
    """Answer the first of: both configured keys, the environment, the profile, AWS's chain.

    Reads files, so this is for the start.

    :param environ: variables, of which ``HOME`` and those that begin with ``AWS_`` count.
    :raises CredentialsError: if what is found is broken, or nothing is, and the extra that
        asks AWS's services for roles is not installed.
    """
    if access_key and secret_key:
        return StaticCredentials(Credentials(access_key, secret_key, token))
    found = from_environment(environ) or from_shared_files(environ)
    if found is not None:
        return StaticCredentials(found)
    try:
        from twisted_registry.storage.s3.botocore_credentials import BotocoreCredentials
    except ImportError as error:
        raise CredentialsError(
            "no credentials: set accesskey and secretkey, or AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials; for roles of machines,"
            " tasks and pods install twisted-registry[aws]"
        ) from error
    return BotocoreCredentials(reactor, Threads(reactor, 1, "s3-credentials"))
