"""Where credentials are looked for, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.storage.s3.credentials import (
    Credentials,
    CredentialsError,
    StaticCredentials,
    ICredentialsProvider,
)
from twisted_registry.storage.s3.sharedfile import from_environment, from_shared_files
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        from twisted_registry.storage.s3.botocoresource import (  # noqa: PLC0415 - an extra
            BotocoreCredentials,
        )
    except ImportError as error:
        raise CredentialsError(
            "no credentials: set accesskey and secretkey, or AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials; for roles of machines,"
            " tasks and pods install twisted-registry[aws]"
        ) from error
    return BotocoreCredentials(reactor, Threads(reactor, 1, "s3-credentials"))
