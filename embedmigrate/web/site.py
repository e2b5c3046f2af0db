"""The application behind the gate: routes, one shape of every error, and the pages."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from embedmigrate import __version__
from embedmigrate.errors import EmbedMigrateError
from embedmigrate.secrets import redact
from embedmigrate.web.assets import POLICY, PREFIX, Asset, assets
from embedmigrate.web.handbook import handbook
from embedmigrate.web.refusals import Refusal, refusal
from embedmigrate.web.replies import Refused
from embedmigrate.web.routes import Desk, api, beside

_CODES = {404: "not_found", 405: "method_not_allowed"}
_MEANINGS = {
    400: "The request cannot be read.",
    401: "No token, or a wrong one.",
    403: "The token's role or the origin does not allow it.",
    404: "There is no such job, row, run or path.",
    408: "The request took too long to arrive.",
    409: "Another run is at work.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    421: "The server does not answer under that name.",
    422: "A field is missing, unknown or out of its bounds.",
    429: "Too many wrong tokens.",
    500: "The server's configuration or its state does not allow it; the code says what.",
    502: "The provider of embeddings refuses.",
    503: "The database or the provider stays away.",
}
_DESCRIPTION = (
    "The same jobs, state and lock as the command line. Every request but /healthz carries "
    "`Authorization: Bearer TOKEN`; a viewer's token may look, an admin's may do everything."
)


def description() -> FastAPI:
    """The routes with what is said of them; without jobs it can be described but not asked."""
    app = FastAPI(
        title="embedmigrate",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses={
            status: {"model": Refused, "description": words} for status, words in _MEANINGS.items()
        },
    )
    app.include_router(api, tags=["embeddings"])
    app.include_router(beside, tags=["server"])
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """With the scheme of the tokens, which the gate asks for and FastAPI does not know of."""
    document = app.openapi()
    scheme = {"type": "http", "scheme": "bearer"}
    refused = {"$ref": "#/components/schemas/Refused"}
    document.setdefault("components", {})["securitySchemes"] = {"token": scheme}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path == "/healthz" else [{"token": []}]
            for status, answer in operation["responses"].items():
                if status != "200":  # FastAPI gives them the media type of the good answer
                    answer["content"] = {"application/json": {"schema": refused}}
    return document


def site(desk: Desk) -> FastAPI:
    """All that stands behind the gate, and nothing that could stand without one."""
    app = description()
    app.state.desk = desk
    document = openapi(app)
    _pages(app, document)
    _errors(app)
    return app


def _pages(app: FastAPI, document: dict[str, Any]) -> None:
    page = assets()
    described = handbook(document)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _asset(page, "index.html")

    @app.get(PREFIX + "{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return _asset(page, name)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(described, headers={"content-security-policy": policy(described)})

    @app.get("/openapi.json", include_in_schema=False)
    async def described_for_machines() -> JSONResponse:
        return JSONResponse(document)


def _asset(page: Mapping[str, Asset], name: str) -> Response:
    if name not in page:
        raise HTTPException(404)
    headers = {"content-security-policy": POLICY}
    return Response(page[name].content, media_type=page[name].kind, headers=headers)


def policy(page: str) -> str:
    """What a page may load: its own inline scripts and styles, by their hashes, and the API."""
    scripts, styles = (_hashes(page, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(page: str, tag: str) -> str:
    found = re.findall(rf"<{tag}(?:\s[^>]*)?>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in found]
    return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests) or "'none'"


def _errors(app: FastAPI) -> None:
    """Every error has the one shape."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(EmbedMigrateError)
    async def failed(request: Request, error: EmbedMigrateError) -> Response:
        return await refused(request, refusal(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await refused(request, _invalid(error))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "request_invalid")
        headers = dict(error.headers or {})
        said = Refusal(error.status_code, code, str(error.detail), headers=headers)
        return await refused(request, said)


def _invalid(error: RequestValidationError) -> Refusal:
    """Which field, and what it has to be; its value is not repeated."""
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return Refusal(400, "json_invalid", "the body is not valid JSON")
    said = [f"{'.'.join(str(part) for part in one['loc'][:2])}: {one['msg']}" for one in found[:5]]
    return Refusal(422, "request_invalid", redact("; ".join(said)))
