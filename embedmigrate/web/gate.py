"""The gate in front of all routes: host, origin, token, role, size, kind and speed of a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedmigrate.web.assets import PREFIX, assets
from embedmigrate.web.attempts import Attempts
from embedmigrate.web.door import Door, cors_headers, preflight_headers
from embedmigrate.web.refusals import Refusal
from embedmigrate.web.tokens import Role, Tokens

MOST_BYTES = 64_000
BODY_SECONDS = 10.0
PUBLIC = frozenset({"/", "/docs", "/healthz", *(PREFIX + name for name in assets())})
"""Without a token: two pages that are the same everywhere, and a word that the process is up."""
_READING = frozenset({"GET", "HEAD"})
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass(frozen=True, slots=True)
class Audited:
    """One line of the record of who did what."""

    role: str
    address: str
    method: str
    path: str
    job: str
    status: int


@dataclass(slots=True)
class _Answer:
    """What has been sent so far of one answer."""

    status: int = 0
    extra: dict[str, str] = field(default_factory=dict)


class Gate:
    """Everything that is checked of a request before a route sees it, in this order."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        door: Door,
        tokens: Tokens,
        audit: Callable[[Audited], None],
        warn: Callable[[str], None],
        attempts: Attempts | None = None,
    ) -> None:
        self._app = app
        self._door = door
        self._tokens = tokens
        self._audit = audit
        self._warn = warn
        self._attempts = attempts or Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        answer = _Answer()
        sending = _with_headers(send, answer)
        try:
            await self._admit(scope, receive, sending, answer)
        except Refusal as refused:
            await _refuse(refused, scope, receive, sending)
        except Exception as error:  # noqa: BLE001  the last line of defence against a leaking traceback
            self._warn(f"unexpected {type(error).__name__} {_where(error)}; this is a bug")
            if not answer.status:
                bug = Refusal(500, "internal", "unexpected error: see the server's log")
                await _refuse(bug, scope, receive, sending)
        finally:
            role = scope.get("role")
            if scope["method"] not in _READING and (role or answer.status in {401, 429}):
                self._audit(
                    Audited(
                        str(role or "nobody"),
                        _address(scope),
                        scope["method"],
                        scope["path"],
                        _job(scope),
                        answer.status,
                    )
                )

    async def _admit(self, scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        self._door.check_host(headers.getlist("host"))
        origin = self._door.check_origin(headers.getlist("origin"), headers["host"])
        if origin:
            answer.extra |= cors_headers(origin)
            if method == "OPTIONS" and "access-control-request-method" in headers:
                empty = Response(status_code=204, headers=preflight_headers(origin))
                await empty(scope, receive, send)
                return
        if not (scope["path"] in PUBLIC and method in _READING):
            scope["role"] = self._role(headers, _address(scope))
            if method not in _READING and scope["role"] is not Role.ADMIN:
                raise Refusal(403, "role_forbidden", "a viewer token may only look")
        body = await _body(headers, receive)
        await self._app(scope, _again(body, receive), send)

    def _role(self, headers: Headers, address: str) -> Role:
        given = headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        role = self._tokens.role(token.strip())
        if role and scheme.lower() == "bearer":
            return role
        if given and (wait := self._attempts.fail(address)):
            seconds = str(max(1, round(wait)))
            raise Refusal(
                429,
                "too_many_attempts",
                f"too many wrong tokens: wait {seconds} s",
                headers={"retry-after": seconds},
            )
        raise Refusal(
            401,
            "unauthorized",
            "a valid token is needed in the Authorization header",
            headers={"www-authenticate": 'Bearer realm="embedmigrate"'},
        )


async def _body(headers: Headers, receive: Receive) -> bytes:
    """All of it, within the limits of size and time; and of no other kind than JSON."""
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > MOST_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "request_incomplete", "the request has no end")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BYTES:
                    raise _too_large()
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise Refusal(
            408, "request_timeout", "the request took too long", headers={"connection": "close"}
        ) from None
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and kind != "application/json":
        raise Refusal(415, "media_type_unsupported", "the body has to be application/json")
    return b"".join(parts)


def _too_large() -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"a body holds at most {MOST_BYTES:,} bytes",
        headers={"connection": "close"},
    )


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, and then whatever the connection has to say."""
    pending = [True]

    async def replayed() -> Message:
        if pending:
            pending.pop()
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def _with_headers(send: Send, answer: _Answer) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.update(answer.extra)
        await send(message)

    return sending


async def _refuse(refused: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse(refused.body, refused.status, headers=refused.headers)
    await response(scope, receive, send)


def _address(scope: Scope) -> str:
    """The peer's own, and never what a header says of it."""
    client = scope.get("client")
    return str(client[0]) if client else "local"


def _job(scope: Scope) -> str:
    query = str(scope.get("query_string", b""), "latin-1")
    found = [part[4:] for part in query.split("&") if part.startswith("job=")]
    plain = "".join(c for c in found[0][:64] if c.isalnum() or c in "._-") if found else ""
    return plain or "default"


def _where(error: BaseException) -> str:
    """The last place; never the error's text, which may hold a row's."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
