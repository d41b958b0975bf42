"""Access controllers: a scheme authenticates the caller, a policy authorizes the request.

The status codes are those of CNCF Distribution:

- No credentials, or credentials that are not accepted: 401 with a challenge.
- An authenticated caller that the policy does not allow: 403, because another login with the same
  credentials would not help.
- A valid token with too narrow a scope: 401, because the client can get a wider token.
- Any other failure, for example an unreadable file: logged, and answered with 400 without a reason.

:class:`SchemeAccess` combines a scheme with a policy. :class:`AnonymousOnly` has a policy and no
scheme. :class:`OpenAccess` allows everything, as Distribution does without an ``auth`` section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Factory, define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from zope.interface import Interface, implementer

from twisted_registry.auth.interfaces import (
    ANONYMOUS,
    CATALOG,
    Access,
    Caller,
    IAccessController,
    IClosableAccessController,
    IGrant,
    IPolicy,
    IRepositoryFilter,
    IScope,
)
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.python.failure import Failure

    from twisted_registry.auth.audit import LoginAudit
    from twisted_registry.auth.interfaces import IIdentity

# The methods of a zope.interface Interface have no self.
# ruff: noqa: N805

log = Logger()

#: Tolerated difference between two clocks when the times in a token are checked, in seconds.
LEEWAY_S = 60


@frozen
class Login:
    """The result of a successful authentication.

    :ivar identity: the authenticated user.
    :ivar scope: the scope of the token, which narrows the policy; None if the credentials have
        no scope.
    """

    identity: IIdentity
    scope: IScope | None = None


@frozen(eq=False)
class LoginFailed(Exception):
    """The credentials are not accepted.

    :ivar reason: the reason for the log; never contains a secret.
    :ivar error: the ``error`` of the challenge (RFC 6750 section 3.1), or empty.
    """

    reason: str
    error: str = ""


@frozen(eq=False)
class AuthenticationUnavailable(Exception):
    """The credentials cannot be checked now, for a reason that is not the caller's fault.

    :ivar reason: one line for the log.
    """

    reason: str


class IScheme(Interface):
    """An authentication scheme: it reads credentials from a request and issues challenges."""

    def find_cached_login(caller: Caller) -> Login | None:
        """Return the login that the same credentials gave a short time ago, without waiting."""

    def authenticate(caller: Caller) -> Deferred[Login | None]:
        """Fire with the login, or with None if the caller has no credentials of this scheme.

        :raises LoginFailed: if the credentials are not accepted.
        :raises AuthenticationUnavailable: if the credentials cannot be checked now.
        :raises RegistryError: to be sent to the client unchanged.
        """

    def challenge(caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """Return the value of the WWW-Authenticate header.

        :param accesses: the accesses that the request needs.
        :param error: the ``error`` of the challenge if credentials were rejected, or empty.
        """

    def close() -> Deferred[None]:
        """Release the resources of the scheme."""


@implementer(IGrant)
@define(eq=False, repr=False)  # one per request; creating a frozen instance is slower
class Grant:
    """What a login may do under a policy."""

    _login: Login
    _policy: IPolicy

    @property
    def user(self) -> str:
        """The name of the user; empty for an anonymous caller."""
        return self._login.identity.name

    @property
    def visible_repositories(self) -> IRepositoryFilter | None:
        """The repositories that the policy shows to the user; None for all of them."""
        return self._policy.visible_repositories(self._login.identity)

    def permits(self, access: Access) -> bool:
        """Return whether both the scope and the policy allow the access."""
        scope = self._login.scope
        return (scope is None or scope.allows(self._login.identity, access)) and (
            self._policy.allows(self._login.identity, access)
        )


#: The login of a caller without credentials.
ANONYMOUS_LOGIN = Login(ANONYMOUS)


@implementer(IClosableAccessController)
@define(eq=False, repr=False)
class SchemeAccess:
    """An access controller that asks a scheme for the login and a policy for the permission.

    Both are called for each request. A scheme may cache logins; decisions are not cached.

    :ivar scheme: authenticates callers.
    :ivar policy: decides what an authenticated or anonymous caller may do.
    :ivar audit: records logins and refusals; None for no audit log.
    """

    _scheme: IScheme
    _policy: IPolicy
    _audit: LoginAudit | None = None
    _anonymous: Grant = field(
        init=False,
        default=Factory(lambda self: Grant(ANONYMOUS_LOGIN, self._policy), takes_self=True),
    )

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> IGrant | Deferred[IGrant]:
        """Authenticate the caller and check the accesses against scope and policy."""
        login = self._scheme.find_cached_login(caller)
        if login is not None:
            return self._decide(login, caller, accesses)
        authenticated: Deferred[Any] = self._scheme.authenticate(caller)
        return authenticated.addCallbacks(
            self._decide,
            self._authentication_failed,
            callbackArgs=(caller, accesses),
            errbackArgs=(caller, accesses),
        )

    def close(self) -> Deferred[None]:
        """Close the scheme."""
        return self._scheme.close()

    def _decide(self, login: Login | None, caller: Caller, accesses: Sequence[Access]) -> Grant:
        if login is None:
            # Clients learn from the version check how to log in, so it always sends a challenge.
            # So does the catalog: an anonymous client would otherwise get a shorter list than its
            # credentials allow, without a reason to send them.
            if accesses and CATALOG not in accesses and all(map(self._anonymous.permits, accesses)):
                return self._anonymous
            raise self._unauthorized(caller, accesses)
        scope, identity, policy = login.scope, login.identity, self._policy
        if self._audit is not None:
            self._audit.request_authenticated(identity.name, caller)
        for access in accesses:
            if not policy.allows(identity, access):
                if not identity.name:
                    # An anonymous token: logging in may help.
                    raise self._unauthorized(caller, accesses, "insufficient_scope")
                # A wider token would not help.
                raise _denied(identity.name, caller, accesses, self._audit)
        if scope is not None:
            for access in accesses:
                if not scope.allows(identity, access):
                    raise self._unauthorized(caller, accesses, "insufficient_scope")
        return Grant(login, policy)

    def _authentication_failed(
        self, failure: Failure, caller: Caller, accesses: Sequence[Access]
    ) -> IGrant:
        error = failure.value
        if isinstance(error, LoginFailed):
            log_login_failure(error, caller)
            if self._audit is not None:
                self._audit.login_failed(ErrorCode.UNAUTHORIZED, caller)
            raise self._unauthorized(caller, accesses, error.error) from None
        if isinstance(error, RegistryError | CancelledError):
            if self._audit is not None and isinstance(error, RegistryError):
                self._audit.login_failed(error.code, caller)
            raise error
        if isinstance(error, AuthenticationUnavailable):
            log.error("access cannot be checked: {reason}", reason=error.reason)
        else:
            log.failure("access cannot be checked", failure)
        raise RegistryError(
            ErrorCode.UNKNOWN, message="access cannot be checked", status=400
        ) from None

    def _unauthorized(
        self, caller: Caller, accesses: Sequence[Access], error: str = ""
    ) -> RegistryError:
        value = self._scheme.challenge(caller, accesses, error)
        return RegistryError(
            ErrorCode.UNAUTHORIZED,
            detail=error_detail(accesses),
            headers=(("WWW-Authenticate", value),),
        )


def log_login_failure(error: LoginFailed, caller: Caller) -> None:
    """Log rejected credentials with the address of the caller."""
    log.info("login refused: {reason}", reason=error.reason, **caller.log_fields)


def error_detail(accesses: Sequence[Access]) -> list[dict[str, str]] | None:
    """Return the accesses in the form of Distribution's error detail; None for no accesses."""
    return [
        {"Type": access.type, "Class": "", "Name": access.name, "Action": access.action}
        for access in accesses
    ] or None


def grant_or_deny(
    login: Login,
    policy: IPolicy,
    caller: Caller,
    accesses: Sequence[Access],
    audit: LoginAudit | None = None,
) -> Grant:
    """Return a grant if the login may do all of the accesses.

    :param audit: records login and refusal; None for no audit log.
    :raises RegistryError: DENIED.
    """
    grant = Grant(login, policy)
    if audit is not None:
        audit.request_authenticated(grant.user, caller)
    if not all(map(grant.permits, accesses)):
        raise _denied(grant.user, caller, accesses, audit)
    return grant


def _denied(
    user: str, caller: Caller, accesses: Sequence[Access], audit: LoginAudit | None
) -> RegistryError:
    if audit is not None:
        audit.access_denied(user, caller, accesses)
    return RegistryError(ErrorCode.DENIED, detail=error_detail(accesses))


@implementer(IPolicy)
@frozen
class AuthenticatedPolicy:
    """A policy that allows everything to every caller with a name, as Distribution does."""

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """Return whether the identity has a name."""
        return bool(identity.name)

    def visible_repositories(self, identity: IIdentity) -> None:
        """Return None: every repository is visible."""


@implementer(IPolicy)
@frozen
class TokenScopePolicy:
    """A policy that allows everything to every caller with a token, even an anonymous one.

    The scope of the token is the limit. A caller without a token may do nothing.
    """

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """Return whether the caller has presented a token."""
        return identity is not ANONYMOUS

    def visible_repositories(self, identity: IIdentity) -> None:
        """Return None: every repository is visible."""


@implementer(IClosableAccessController)
@define(eq=False, repr=False)
class AnonymousOnly:
    """An access controller without a scheme: every caller is anonymous.

    It sends no challenge, because there is no way to log in.

    :ivar policy: decides what anonymous callers may do.
    :ivar audit: records refusals; None for no audit log.
    """

    _policy: IPolicy
    _audit: LoginAudit | None = None

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Grant:
        """Check the accesses against the policy."""
        return grant_or_deny(ANONYMOUS_LOGIN, self._policy, caller, accesses, self._audit)

    def close(self) -> Deferred[None]:
        """Do nothing: there are no resources to release."""
        return succeed(None)


@implementer(IGrant)
@frozen
class OpenGrant:
    """A grant that permits everything."""

    user: str = ""
    visible_repositories: None = None

    def permits(self, access: Access) -> bool:  # noqa: ARG002
        """Return True."""
        return True


_OPEN_GRANT = OpenGrant()


@implementer(IAccessController)
class OpenAccess:
    """An access controller that permits every request."""

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> OpenGrant:  # noqa: ARG002
        """Return a grant that permits everything."""
        return _OPEN_GRANT
