"""``/auth/token``: where clients get tokens, as Distribution's token scheme has it, or OAuth 2.

``GET`` with a name and a password, or nothing; ``POST`` with a password, a refresh token (RFC 6749
sections 4.3 and 6) or a token of a CI system (RFC 8693). What is granted is the part of what was
asked for that the caller may do; it is never an error to ask for too much.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from twisted_registry.api.answers import Answer, Common, send
from twisted_registry.api.body import request_body
from twisted_registry.api.exchange import NO_QUERY, Query
from twisted_registry.api.headers import header, last_fields
from twisted_registry.api.interfaces import BodyAborted, IStreamingResource
from twisted_registry.api.running import run
from twisted_registry.api.urls import caller_of
from twisted_registry.auth.challenges import basic
from twisted_registry.auth.schemes import LoginFailed
from twisted_registry.auth.scopes import Scope, intersection, requested
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.tokens.signing import Claims

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.auth.interfaces import IPolicy
    from twisted_registry.tokens.logins import Holder, Logins
    from twisted_registry.tokens.signing import Signer

log = Logger()

#: Bytes of a form. A token of a CI system has some thousands.
_FORM = 64 * 1024
_FIELDS = 128
_FORM_TYPE = "application/x-www-form-urlencoded"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_COMMON = Common({"Cache-Control": ("no-store",)})


@implementer(IStreamingResource)
class TokenResource(Resource):
    """Gives tokens."""

    isLeaf = True

    def __init__(
        self,
        logins: Logins,
        policy: IPolicy,
        signer: Callable[[], Awaitable[Signer]],
        clock: IReactorTime,
        refresh_lifetime: float,
        realm: str,
    ) -> None:
        """Give tokens.

        :param logins: tells who asks.
        :param policy: tells what they may.
        :param signer: signs; its secret may have to be read first.
        :param refresh_lifetime: seconds for which a refresh token is good; none are given if 0.
        :param realm: said to whoever shows a wrong password.
        """
        super().__init__()
        self._logins = logins
        self._policy = policy
        self._signer = signer
        self._clock = clock
        self._refresh_lifetime = refresh_lifetime
        self._realm = realm

    def render(self, request: Request) -> int:
        """Begin to answer."""
        work = run(self._answer(request))
        if work is not None:
            request.notifyFinish().addErrback(lambda _: work.cancel())
            work.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        post = request.method == b"POST"
        try:
            answer = await (self._post(request) if post else self._get(request))
        except LoginFailed as error:
            caller = caller_of(request, last_fields(request))
            log.info(
                "login refused: {reason}",
                reason=error.reason,
                **{"http.request.remoteaddr": caller.address},
            )
            headers = () if post else (("WWW-Authenticate", basic(self._realm)),)
            refusal = RegistryError(ErrorCode.UNAUTHORIZED, headers=headers)
            answer = _refused(refusal, "invalid_grant")
        except RegistryError as error:
            answer = _refused(error, "invalid_request")
        except StorageError as error:
            log.error("tokens can not be given: {error}", error=str(error))
            answer = _refused(RegistryError(ErrorCode.UNAVAILABLE), "temporarily_unavailable")
        except BodyAborted:
            answer = _refused(RegistryError(ErrorCode.SIZE_INVALID), "invalid_request")
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the border: whatever it was, the client gets an answer
            log.failure("a token can not be given")
            answer = _refused(RegistryError(ErrorCode.UNKNOWN), "server_error")
        await send(answer, request, _COMMON)

    async def _get(self, request: Request) -> Answer:
        if request.method not in {b"GET", b"HEAD"}:
            raise RegistryError(ErrorCode.UNSUPPORTED, headers=(("Allow", "GET, HEAD, POST"),))
        target = request.uri
        query = Query.parse(target.partition(b"?")[2]) if b"?" in target else NO_QUERY
        holder = await self._logins.of_header(caller_of(request, last_fields(request)))
        refresh = ""
        if query.first("offline_token") == "true":
            refresh = await self._refresh_token(holder)
        return await self._given(holder, query.all("scope"), refresh)

    async def _post(self, request: Request) -> Answer:
        form = await self._form(request)
        kind, refresh = form.get("grant_type", ""), ""
        offline = form.get("access_type") == "offline"
        if kind == "refresh_token":
            refresh = form.get("refresh_token", "")
            holder = await self._logins.of_refresh_token(refresh)
        elif kind == "password":
            name, password = form.get("username", ""), form.get("password", "")
            holder = await self._logins.of_password(name, password)
            if offline:
                refresh = await self._refresh_token(holder)
        elif kind == _EXCHANGE:
            holder = await self._logins.of_signed(form.get("subject_token", ""))
        else:
            raise RegistryError(
                ErrorCode.UNSUPPORTED,
                message="grant_type has to be password, refresh_token or token-exchange",
                status=400,
            )
        more = {"issued_token_type": _ACCESS_TOKEN} if kind == _EXCHANGE else {}
        return await self._given(holder, [form.get("scope", "")], refresh, more)

    async def _refresh_token(self, holder: Holder) -> str:
        """A token that gets others later; empty if the holder gets none."""
        if not (self._refresh_lifetime and holder.is_user):
            return ""
        name = holder.identity.name
        stamp = await self._logins.stamp(name)
        if stamp is None:
            return ""
        return await self._logins.records.create_refresh(name, self._refresh_lifetime, stamp)

    async def _given(
        self,
        holder: Holder,
        scopes: Iterable[str],
        refresh: str,
        more: Mapping[str, Any] | None = None,
    ) -> Answer:
        identity, signer = holder.identity, await self._signer()
        asked = requested(scopes)
        granted = intersection(asked, lambda access: self._policy.allows(identity, access))
        token = signer.sign(Claims(identity, granted, holder.record))
        issued = datetime.fromtimestamp(int(self._clock.seconds()), UTC)
        said: dict[str, Any] = {
            "token": token,
            "access_token": token,
            "token_type": "Bearer",
            "scope": _words(granted),
            "expires_in": int(signer.lifetime),
            "issued_at": issued.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **(more or {}),
        }
        if refresh:
            said["refresh_token"] = refresh
        return Answer.json(said)

    async def _form(self, request: Request) -> Mapping[str, str]:
        kind = (header(request, "content-type") or "").partition(";")[0].strip().lower()
        if kind != _FORM_TYPE:
            raise RegistryError(
                ErrorCode.UNSUPPORTED, message=f"the body has to be {_FORM_TYPE}", status=415
            )
        body = request_body(request, self._clock)
        kept = _Kept(_FORM)
        if isinstance(body.length, int) and body.length > _FORM:
            raise _TOO_LONG
        await body.startProducing(kept)
        try:
            pairs = parse_qs(
                b"".join(kept.pieces).decode("ascii"), keep_blank_values=True, errors="strict",
                max_num_fields=_FIELDS,
            )  # fmt: skip
        except ValueError as error:
            raise RegistryError(
                ErrorCode.UNSUPPORTED, message="the form can not be read", status=400
            ) from error
        return {name: " ".join(values) if name == "scope" else values[0]
                for name, values in pairs.items()}  # fmt: skip


_TOO_LONG = RegistryError(ErrorCode.SIZE_INVALID, message="the form is too long", status=413)


@implementer(IConsumer)
@define(eq=False)
class _Kept:
    """Keeps a short body."""

    _left: int
    pieces: list[bytes] = field(init=False, factory=list)

    def write(self, data: bytes) -> None:
        """Keep a piece."""
        self._left -= len(data)
        if self._left < 0:
            raise _TOO_LONG
        self.pieces.append(data)

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: FBT001
        """Take whatever comes."""

    def unregisterProducer(self) -> None:
        """Go on."""


def _words(scope: Scope) -> str:
    return " ".join(map(str, scope.parts))


def _refused(error: RegistryError, oauth: str) -> Answer:
    """An error in the words of both: RFC 6749 section 5.2, and the distribution specification."""
    return Answer.json({"error": oauth, **error.as_json()}, error.http_status, error.headers)
