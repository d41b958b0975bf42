"""The token service ``/auth/token``, for Distribution's token scheme and for OAuth 2.

``GET`` takes a user name and password, or no credentials. ``POST`` takes a password, a refresh
token (RFC 6749 sections 4.3 and 6) or a token of a CI system (RFC 8693). The granted scope is the
allowed part of the requested one; requesting too much is not an error.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from twisted_registry.api.context import EMPTY_QUERY, Query, get_caller, get_header_fields, header
from twisted_registry.api.response import AsyncResource, CommonHeaders, Response, send_response
from twisted_registry.auth.access import (
    AuthenticationUnavailable,
    LoginFailed,
    log_login_failure,
)
from twisted_registry.auth.audit import login_method
from twisted_registry.auth.credentials import basic_authorization
from twisted_registry.auth.rate_limits import network_of
from twisted_registry.auth.scopes import Scope, basic_challenge, grant_scope, parse_scopes
from twisted_registry.http.body import request_body
from twisted_registry.http.interfaces import BodyAborted
from twisted_registry.oci.errors import ErrorCode, RegistryError, method_not_allowed
from twisted_registry.repository.streaming import ContentTooLarge, read_body
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.tokens.records import stored_token_id
from twisted_registry.tokens.signing import TokenClaims

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.auth.audit import LoginAudit
    from twisted_registry.auth.interfaces import Caller, IPolicy
    from twisted_registry.auth.rate_limits import RateLimit
    from twisted_registry.metrics.interfaces import IMetricsObserver
    from twisted_registry.tokens.logins import Authenticator, Principal
    from twisted_registry.tokens.signing import TokenSigner

log = Logger()

#: Size limit of a form in bytes; a token of a CI system has a few thousand.
_MAX_FORM_BYTES = 64 * 1024
_MAX_FORM_FIELDS = 128
_FORM_TYPE = "application/x-www-form-urlencoded"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_COMMON_HEADERS = CommonHeaders({"Cache-Control": ("no-store",)})


class TokenResource(AsyncResource):
    """Issues tokens."""

    isLeaf = True

    def __init__(
        self,
        authenticator: Authenticator,
        policy: IPolicy,
        signer: TokenSigner,
        clock: IReactorTime,
        refresh_lifetime: float,
        refresh_limit: int,
        realm: str,
        by_address: RateLimit | None = None,
        audit: LoginAudit | None = None,
        metrics: IMetricsObserver | None = None,
    ) -> None:
        """Issue tokens.

        :param authenticator: authenticates the callers.
        :param policy: decides which part of a requested scope is granted.
        :param signer: signs the tokens.
        :param clock: the current time.
        :param refresh_lifetime: the lifetime of a refresh token in seconds; 0 to issue none.
        :param refresh_limit: the number of refresh tokens that a user may have.
        :param realm: the realm of the challenge after a wrong password.
        :param by_address: limits the requests of each address; None for no limit.
        :param audit: records logins and refresh tokens; None for no audit log.
        :param metrics: is told which limits refuse requests; None for no metrics.
        """
        super().__init__()
        self._authenticator = authenticator
        self._policy = policy
        self._signer = signer
        self._clock = clock
        self._refresh_lifetime = refresh_lifetime
        self._refresh_limit = refresh_limit
        self._realm = realm
        self._by_address = by_address
        self._audit = audit
        self._metrics = metrics

    async def respond(self, request: Request) -> None:
        """Send the token, or the reason why there is none."""
        post = request.method == b"POST"
        caller = get_caller(request, get_header_fields(request))
        try:
            if self._by_address is not None:
                self._by_address.check(network_of(caller.address))
            response = await (self._post(request, caller) if post else self._get(request, caller))
        except LoginFailed as error:
            log_login_failure(error, caller)
            self._audit_failure(ErrorCode.UNAUTHORIZED, caller)
            headers = () if post else (("WWW-Authenticate", basic_challenge(self._realm)),)
            refusal = RegistryError(ErrorCode.UNAUTHORIZED, headers=headers)
            response = _error_response(refusal, "invalid_grant")
        except RegistryError as error:
            if error.code is ErrorCode.TOOMANYREQUESTS:
                self._audit_failure(error.code, caller)
            if error.limit and self._metrics is not None:
                self._metrics.limit_hit(error.limit)
            is_temporary = error.code is ErrorCode.UNAVAILABLE
            name = "temporarily_unavailable" if is_temporary else "invalid_request"
            response = _error_response(error, name)
        except (StorageError, AuthenticationUnavailable) as error:
            log.error("cannot issue tokens: {error}", error=str(error))
            response = _error_response(
                RegistryError(ErrorCode.UNAVAILABLE), "temporarily_unavailable"
            )
        except BodyAborted:
            response = _error_response(RegistryError(ErrorCode.SIZE_INVALID), "invalid_request")
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the client gets a response to any error
            log.failure("cannot issue a token")
            response = _error_response(RegistryError(ErrorCode.UNKNOWN), "server_error")
        await send_response(response, request, _COMMON_HEADERS)

    def _audit_failure(self, error: ErrorCode, caller: Caller) -> None:
        if self._audit is not None:
            self._audit.login_failed(error, caller)

    async def _get(self, request: Request, caller: Caller) -> Response:
        if request.method not in {b"GET", b"HEAD"}:
            raise method_not_allowed("GET", "HEAD", "POST")
        target = request.uri
        query = Query.parse(target.partition(b"?")[2]) if b"?" in target else EMPTY_QUERY
        principal = await self._authenticator.authenticate_header(caller)
        self._audit_login(principal, login_method(principal.identity.name, caller), caller)
        refresh = ""
        # HEAD must not change anything.
        if query.first("offline_token") == "true" and request.method == b"GET":
            refresh = await self._create_refresh_token(principal, caller)
        return await self._issue(principal, query.all("scope"), refresh)

    def _audit_login(self, principal: Principal, method: str, caller: Caller) -> None:
        if self._audit is not None and principal.identity.name:
            self._audit.logged_in(principal.identity.name, method, caller)

    async def _post(self, request: Request, caller: Caller) -> Response:
        form = await self._read_form(request)
        kind, refresh = form.get("grant_type", ""), ""
        offline = form.get("access_type") == "offline"
        if kind == "refresh_token":
            refresh = form.get("refresh_token", "")
            principal = await self._authenticator.authenticate_refresh_token(refresh)
            self._audit_login(principal, "refresh", caller)
        elif kind == "password":
            name, password = form.get("username", ""), form.get("password", "")
            # The audit log names the claimed user.
            caller.authorization = basic_authorization(name, password)
            principal = await self._authenticator.authenticate_password(caller, name, password)
            self._audit_login(principal, login_method(principal.identity.name, caller), caller)
            if offline:
                refresh = await self._create_refresh_token(principal, caller)
        elif kind == _TOKEN_EXCHANGE:
            principal = await self._authenticator.authenticate_id_token(
                form.get("subject_token", "")
            )
            self._audit_login(principal, "oidc", caller)
        else:
            raise RegistryError(
                ErrorCode.UNSUPPORTED,
                message="grant_type must be password, refresh_token or token-exchange",
                status=400,
            )
        more = {"issued_token_type": _ACCESS_TOKEN} if kind == _TOKEN_EXCHANGE else {}
        return await self._issue(principal, [form.get("scope", "")], refresh, more)

    async def _create_refresh_token(self, principal: Principal, caller: Caller) -> str:
        """Return a new refresh token; empty if the principal cannot have one.

        It is empty on a full disk as well: clients can pull, and ask for a token again.
        """
        if not (self._refresh_lifetime and principal.account):
            return ""
        name = principal.identity.name
        try:
            token = await self._authenticator.records.create_refresh(
                name, self._refresh_lifetime, principal.account, self._refresh_limit
            )
        except StorageError as error:
            if not error.full:
                raise
            log.error("disk is full, no refresh token is created: {error}", error=error)
            return ""
        if self._audit is not None:
            self._audit.refresh_token_created(name, stored_token_id(token), caller)
        return token

    async def _issue(
        self,
        principal: Principal,
        scopes: Iterable[str],
        refresh: str,
        more: Mapping[str, Any] | None = None,
    ) -> Response:
        identity = principal.identity
        granted = grant_scope(
            parse_scopes(scopes), lambda access: self._policy.allows(identity, access)
        )
        token = await self._signer.sign(
            TokenClaims(
                identity.name, granted, principal.account, principal.record, principal.rules
            )
        )
        issued = datetime.fromtimestamp(int(self._clock.seconds()), UTC)
        document: dict[str, Any] = {
            "token": token,
            "access_token": token,
            "token_type": "Bearer",
            "scope": _format_scope(granted),
            "expires_in": int(self._signer.lifetime),
            "issued_at": issued.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **(more or {}),
        }
        if refresh:
            document["refresh_token"] = refresh
        return Response.json(document)

    async def _read_form(self, request: Request) -> Mapping[str, str]:
        kind = (header(request, "content-type") or "").partition(";")[0].strip().lower()
        if kind != _FORM_TYPE:
            raise RegistryError(
                ErrorCode.UNSUPPORTED, message=f"the body must be {_FORM_TYPE}", status=415
            )
        try:
            body = await read_body(request_body(request, self._clock), _MAX_FORM_BYTES)
        except ContentTooLarge:
            raise RegistryError(
                ErrorCode.SIZE_INVALID, message="the form is too large", status=413
            ) from None
        try:
            fields = parse_qs(
                body.decode("ascii"), keep_blank_values=True, errors="strict",
                max_num_fields=_MAX_FORM_FIELDS,
            )  # fmt: skip
        except ValueError as error:
            raise RegistryError(
                ErrorCode.UNSUPPORTED, message="the form cannot be read", status=400
            ) from error
        return {name: " ".join(values) if name == "scope" else values[0]
                for name, values in fields.items()}  # fmt: skip


def _format_scope(scope: Scope) -> str:
    return " ".join(map(str, scope.resources))


def _error_response(error: RegistryError, oauth: str) -> Response:
    """Return an error in the forms of RFC 6749 section 5.2 and of the distribution-spec."""
    return Response.from_error(error, {"error": oauth})
