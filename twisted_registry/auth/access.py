"""Authentication and authorisation put together: a scheme says who calls, a policy what they may.

The answers are Distribution's. Whoever has shown nothing, or something that is not believed, gets
401 with a challenge. Whoever is known and may not gets 403, because asking for the same login
again would not help; a token that is good but too narrow gets 401, because a wider one may be
had. What goes wrong beyond that (a file that can not be read) is told to the log, and to the
client as 400 without a reason.

Rules that need no configuration.

A policy without a scheme: nobody can log in, and everybody may do what strangers may.

No authentication: everybody may do everything, as in Distribution without ``auth``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
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
    ISteady,
    OpenGrant,
)
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.python.failure import Failure

    from twisted_registry.auth.interfaces import IIdentity

# zope's methods have no self.
# ruff: noqa: N805


log = Logger()

#: Decisions that are remembered.
DECIDED = 4096


@frozen
class Login:
    """What credentials were good for.

    :ivar identity: whose they are.
    :ivar scope: what they are limited to, beyond the policy; None if they are not.
    """

    identity: IIdentity
    scope: IScope | None = None


@frozen(eq=False)
class LoginFailed(Exception):
    """The credentials are not believed.

    :ivar reason: for the log; never a secret.
    :ivar error: what the challenge says of it (RFC 6750 section 3.1), or empty.
    """

    reason: str
    error: str = ""


@frozen(eq=False)
class AuthenticationUnavailable(Exception):
    """Whether credentials are good can not be told now, by no fault of the caller.

    :ivar reason: one line for the log.
    """

    reason: str


class IScheme(Interface):
    """A way in which callers say who they are."""

    def find_cached_login(caller: Caller) -> Login | None:
        """The login of a caller whose very credentials were good a moment ago, found at once."""

    def authenticate(caller: Caller) -> Deferred[Login | None]:
        """Fire with the login; with None if the caller shows no credentials of this scheme.

        :raises LoginFailed: if they are not believed.
        :raises AuthenticationUnavailable: if that can not be told.
        :raises RegistryError: to be answered as it is.
        """

    def challenge(caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """The value of WWW-Authenticate that asks for a login.

        :param accesses: what the caller wants to do.
        :param error: what was wrong with what they showed, or empty.
        """

    def close() -> Deferred[None]:
        """Free what it holds."""


@implementer(IGrant)
@define(eq=False, repr=False)  # one is made for each request, and frozen ones take longer to make
class Grant:
    """What a login may do under a policy."""

    user: str
    _login: Login
    _policy: IPolicy

    @property
    def visible(self) -> IRepositoryFilter | None:
        """As promised by :class:`IGrant`."""
        return self._policy.visible(self._login.identity)

    def permits(self, access: Access) -> bool:
        """As promised by :class:`IGrant`."""
        scope = self._login.scope
        return (scope is None or scope.allows(self._login.identity, access)) and (
            self._policy.allows(self._login.identity, access)
        )


#: The login of a caller who has shown nothing.
ANONYMOUS_LOGIN = Login(ANONYMOUS)


@implementer(IClosableAccessController)
@define(eq=False, repr=False)
class SchemeAccess:
    """Asks a scheme who calls, and a policy whether they may.

    The scheme is asked for each request. What the very login that it recalls was found to be
    allowed is not found out again, where all that decides is steady. It is remembered by which
    objects login and accesses are, and holds both, so that no others can be taken for them.

    :ivar scheme: who calls.
    :ivar policy: whether they may.
    """

    _scheme: IScheme
    _policy: IPolicy
    _anonymous: Grant = field(init=False)
    _decided: dict[tuple[int, int], tuple[Grant, Sequence[Access]]] = field(
        init=False, factory=dict
    )

    def __attrs_post_init__(self) -> None:
        self._anonymous = Grant("", ANONYMOUS_LOGIN, self._policy)

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IAccessController`."""
        login = self._scheme.find_cached_login(caller)
        if login is None:
            identified: Deferred[Any] = self._scheme.authenticate(caller)
            return identified.addCallbacks(
                self._decide,
                self._failed,
                callbackArgs=(caller, accesses),
                errbackArgs=(caller, accesses),
            )
        decided = self._decided.get((id(login), id(accesses)))
        if decided is not None:
            return succeed(decided[0])
        try:
            grant = self._decide(login, caller, accesses)
        except RegistryError as error:
            return fail(error)
        self._remember(grant, login, accesses)
        return succeed(grant)

    def close(self) -> Deferred[None]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IClosableAccessController`."""
        return self._scheme.close()

    def _decide(self, login: Login | None, caller: Caller, accesses: Sequence[Access]) -> Grant:
        if login is None:
            # The version check is where clients learn how to log in: it always asks. So does the
            # list of repositories, which would be shorter for those who wait to be asked.
            if accesses and CATALOG not in accesses and all(map(self._anonymous.permits, accesses)):
                return self._anonymous
            raise self._challenge(caller, accesses)
        scope, identity, policy = login.scope, login.identity, self._policy
        for access in accesses:
            if not policy.allows(identity, access):
                if not identity.name:
                    # A stranger's token: a login may help.
                    raise self._challenge(caller, accesses, "insufficient_scope")
                # A wider token would not help.
                raise RegistryError(ErrorCode.DENIED, detail=error_detail(accesses))
        if scope is not None:
            for access in accesses:
                if not scope.allows(identity, access):
                    raise self._challenge(caller, accesses, "insufficient_scope")
        return Grant(identity.name, login, policy)

    def _remember(self, grant: Grant, login: Login, accesses: Sequence[Access]) -> None:
        if not isinstance(accesses, tuple) or not all(
            decider is None or ISteady.providedBy(decider)
            for decider in (self._policy, login.identity, login.scope)
        ):
            return
        if len(self._decided) >= DECIDED:
            self._decided.clear()
        # The grant holds the login.
        self._decided[id(login), id(accesses)] = grant, accesses

    def _failed(self, failure: Failure, caller: Caller, accesses: Sequence[Access]) -> IGrant:
        error = failure.value
        if isinstance(error, LoginFailed):
            log.info(
                "login refused: {reason}",
                reason=error.reason,
                **{"http.request.remoteaddr": caller.address},
            )
            raise self._challenge(caller, accesses, error.error) from None
        if isinstance(error, RegistryError | CancelledError):
            raise error
        if isinstance(error, AuthenticationUnavailable):
            log.error("access can not be checked: {reason}", reason=error.reason)
        else:
            log.failure("access can not be checked", failure)
        raise RegistryError(
            ErrorCode.UNKNOWN, message="access can not be checked", status=400
        ) from None

    def _challenge(
        self, caller: Caller, accesses: Sequence[Access], error: str = ""
    ) -> RegistryError:
        value = self._scheme.challenge(caller, accesses, error)
        return RegistryError(
            ErrorCode.UNAUTHORIZED,
            detail=error_detail(accesses),
            headers=(("WWW-Authenticate", value),),
        )


def error_detail(accesses: Sequence[Access]) -> list[dict[str, str]] | None:
    """What was asked for, as Distribution says it in the detail of an error."""
    return [
        {"Type": access.type, "Class": "", "Name": access.name, "Action": access.action}
        for access in accesses
    ] or None


@implementer(IPolicy, ISteady)
@frozen
class AuthenticatedPolicy:
    """Whoever has a name may do everything, as in Distribution."""

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """See the class."""
        return bool(identity.name)

    def visible(self, identity: IIdentity) -> None:
        """Everything."""


@implementer(IPolicy, ISteady)
@frozen
class TokenScopePolicy:
    """Whoever has shown good credentials may do what these allow, be it without a name: a token
    has its scope. Whoever has shown none may do nothing.
    """

    def allows(self, identity: IIdentity, access: Access) -> bool:  # noqa: ARG002
        """See the class."""
        return identity is not ANONYMOUS

    def visible(self, identity: IIdentity) -> None:
        """Everything."""


@implementer(IClosableAccessController)
@define(eq=False, repr=False)
class AnonymousOnly:
    """Asks a policy what strangers may; there is no login that could help."""

    _policy: IPolicy

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:  # noqa: ARG002
        """As promised by :class:`~twisted_registry.auth.interfaces.IAccessController`."""
        grant = Grant("", ANONYMOUS_LOGIN, self._policy)
        if all(map(grant.permits, accesses)):
            return succeed(grant)
        return fail(RegistryError(ErrorCode.DENIED, detail=error_detail(accesses)))

    def close(self) -> Deferred[None]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IClosableAccessController`."""
        return succeed(None)


_GRANT = OpenGrant()


@implementer(IAccessController)
class OpenAccess:
    """Grants every request."""

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:  # noqa: ARG002
        """Say yes."""
        return succeed(_GRANT)
