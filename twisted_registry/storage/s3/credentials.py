"""Credentials for the store, and where they are looked for.

Credentials come from the configuration, the environment, or the files that AWS's tools share,
which are read once, at the start. Profiles that refer to other sources (roles, programs, single
sign-on) are left to AWS's library, botocore.
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
    """Raised if there are no valid credentials. The message never contains any."""


@frozen
class Credentials:
    """An access key pair.

    :ivar access_key: access key id.
    :ivar secret_key: secret access key.
    :ivar token: session token of temporary keys, or empty.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class ICredentialsProvider(Interface):
    """A source of credentials."""

    def current() -> Deferred[Credentials]:
        """Fire with credentials that are valid now.

        :raises CredentialsError: if there are none.
        """

    def close() -> Deferred[None]:
        """Release all resources. Credentials are no longer available."""


@implementer(ICredentialsProvider)
@frozen
class StaticCredentials:
    """Credentials that never change."""

    credentials: Credentials

    def current(self) -> Deferred[Credentials]:
        """Fire with the credentials."""
        return succeed(self.credentials)

    def close(self) -> Deferred[None]:
        """Do nothing: there are no resources."""
        return succeed(None)


#: Keys of a profile whose credentials come from another source.
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
    """Return the credentials in ``AWS_ACCESS_KEY_ID`` and its companions, if they are set.

    :raises CredentialsError: if only one key of the pair is set.
    """
    access = environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_ACCESS_KEY") or ""
    secret = environ.get("AWS_SECRET_ACCESS_KEY") or environ.get("AWS_SECRET_KEY") or ""
    if not access and not secret:
        return None
    if not access or not secret:
        missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise CredentialsError(f"{missing} is not set, but its companion is")
    return Credentials(access, secret, environ.get("AWS_SESSION_TOKEN", ""))


def from_shared_files(environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys of the profile, or None if it has none or refers to another source.

    The profile is ``AWS_PROFILE`` or ``default``. The files are ``AWS_SHARED_CREDENTIALS_FILE``
    or ``~/.aws/credentials``, and ``AWS_CONFIG_FILE`` or ``~/.aws/config``, in which the section
    of a profile is named ``profile NAME``.

    :raises CredentialsError: if a file is malformed, a profile that was set by name does not
        exist, or a profile has only one key of the pair.
    """
    selected = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""
    profile = selected or "default"
    shared = _file_path(environ, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = _file_path(environ, "AWS_CONFIG_FILE", "~/.aws/config")
    in_config = ("default",) if profile == "default" else ()
    keys = {
        **_read_section(config, f"profile {profile}", *in_config),
        **_read_section(shared, profile),
    }
    if selected and not keys:
        raise CredentialsError(f"the profile {selected!r} is neither in {shared} nor in {config}")
    access, secret = keys.get("aws_access_key_id", ""), keys.get("aws_secret_access_key", "")
    if _INDIRECT_KEYS & keys.keys() or not (access or secret):
        return None
    if not access or not secret:
        missing = "aws_secret_access_key" if access else "aws_access_key_id"
        raise CredentialsError(f"the profile {profile!r} in {shared} has no {missing}")
    return Credentials(access, secret, keys.get("aws_session_token", ""))


def _file_path(environ: Mapping[str, str], variable: str, default: str) -> Path:
    path = Path(environ.get(variable) or default)
    home = environ.get("HOME") or "/"
    return Path(home, *path.parts[1:]) if path.parts[0] == "~" else path


def _read_section(path: Path, *sections: str) -> dict[str, str]:
    """Return the keys of the first of the sections that exists in a file."""
    parser = ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, PermissionError):
        # Services often cannot access home directories, and need nothing there.
        return {}
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
    except (ConfigError, UnicodeDecodeError):
        # Without the error, whose text may contain a line of the file with a secret.
        raise CredentialsError(f"{path} is not a valid file of AWS profiles") from None
    found = next((name for name in sections if parser.has_section(name)), None)
    return {} if found is None else dict(parser.items(found))


def find_credentials(
    reactor: Any,
    environ: Mapping[str, str],
    access_key: str = "",
    secret_key: str = "",
    token: str = "",
) -> ICredentialsProvider:
    """Return the first of: the configured keys, the environment, the profile, botocore's chain.

    This reads files and blocks, so call it at the start only.

    :param environ: environment; ``HOME`` and variables that begin with ``AWS_`` are used.
    :raises CredentialsError: if the first source is invalid, or if there is none and the extra
        ``aws`` (botocore) is not installed.
    """
    if access_key and secret_key:
        return StaticCredentials(Credentials(access_key, secret_key, token))
    found = from_environment(environ) or from_shared_files(environ)
    if found is not None:
        return StaticCredentials(found)
    try:
        from twisted_registry.storage.s3.botocore_credentials import (  # noqa: PLC0415
            BotocoreCredentials,
        )
    except ImportError as error:
        raise CredentialsError(
            "no credentials: set accesskey and secretkey, or AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials; for roles of machines,"
            " tasks and pods install twisted-registry[aws]"
        ) from error
    return BotocoreCredentials(reactor, Threads(reactor, 1, "s3-credentials"))
