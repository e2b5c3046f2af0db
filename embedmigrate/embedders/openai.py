"""OpenAI, Azure and every server that speaks the same protocol, over httpx2.

Not through the openai package: it retries by itself, follows redirects, takes malformed replies
for success, and costs four times the CPU per vector (docs/decisions/0002-own-transport.md).
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx2
import orjson

from embedmigrate.embedders.headers import allowances
from embedmigrate.embedders.refusals import refusal
from embedmigrate.embedders.reply import parse
from embedmigrate.engine.model import Allowances, Embedded, Limits
from embedmigrate.errors import BadReply, ProviderError, RejectedInput, TransientError

_MOST_BYTES = 256 * 1024 * 1024
"""More than 2,048 vectors of 3,072 components as decimal text; a larger reply is not one."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        url: The full address of the embeddings call.
        headers: Authorisation.
        model: Sent in the body; None where the address names it (Azure).
        dimensions: Sent only when the operator asked for a shortened width.
        base64: Ask for base64: a quarter of the bytes, and no decimal text to parse.
    """

    url: str
    headers: dict[str, str]
    model: str | None
    dimensions: int | None
    base64: bool
    name: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


def openai_endpoint(
    base_url: str, key: str | None, model: str, *, dimensions: int | None, base64: bool
) -> Endpoint:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = base_url.rstrip("/") + "/embeddings"
    return Endpoint(url, headers, model, dimensions, base64, "openai")


def azure_endpoint(
    base_url: str, key: str | None, deployment: str, *, dimensions: int | None, version: str
) -> Endpoint:
    root = base_url.rstrip("/").removesuffix("/openai")
    url = f"{root}/openai/deployments/{deployment}/embeddings?api-version={version}"
    headers = {"api-key": key} if key else {}
    return Endpoint(url, headers, None, dimensions, base64=True, name="azure")


class OpenAIEmbedder:
    """One request for each call; retries, pacing and halving are the engine's."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        dimensions: int,
        limits: Limits,
        timeout: float,
        notice: Callable[[str, str], None],
        credential: str = "",
    ) -> None:
        self.dimensions = dimensions
        self.limits = limits
        self._endpoint = endpoint
        self._timeout = timeout
        self._notice = notice
        self._credential = credential
        self._who = f"{endpoint.name} at {endpoint.host}"
        self._client = httpx2.AsyncClient(
            follow_redirects=False,
            timeout=httpx2.Timeout(timeout, connect=min(10.0, timeout)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256),
            headers={"content-type": "application/json", **endpoint.headers},
        )

    async def embed(self, texts: Sequence[str]) -> Embedded:
        content, left = await self._post(self._body(texts))
        embedded, numbered = parse(content, len(texts))
        if not numbered and len(texts) > 1:
            self._notice(
                "index_missing", f"{self._who} does not number its vectors: taken in order"
            )
        return replace(embedded, left=left)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _body(self, texts: Sequence[str]) -> bytes:
        body: dict[str, object] = {
            "input": texts,
            "encoding_format": "base64" if self._endpoint.base64 else "float",
        }
        if self._endpoint.model:
            body["model"] = self._endpoint.model
        if self._endpoint.dimensions:
            body["dimensions"] = self._endpoint.dimensions
        try:
            return orjson.dumps(body)
        except orjson.JSONEncodeError:
            message = "the text is not valid Unicode"
            raise RejectedInput(message, code="input_not_unicode") from None

    async def _post(self, body: bytes) -> tuple[bytearray, Allowances]:
        try:
            async with (
                # A total deadline: httpx's own timeouts restart with every byte that drips in.
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._endpoint.url, content=body) as response,
            ):
                content = await self._read(response)
        except TimeoutError:
            raise TransientError(
                f"{self._who} did not answer within {self._timeout:g} s", code="provider_timeout"
            ) from None
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status_code == 200:  # noqa: PLR2004
            return content, allowances(response.headers)
        refused = refusal(response.status_code, response.headers, bytes(content), who=self._who)
        if refused.code == "api_key_rejected" and self._credential:
            refused.facts = (self._credential,)
        raise refused

    async def _read(self, response: httpx2.Response) -> bytearray:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _MOST_BYTES:
                raise BadReply("the reply is larger than any set of embeddings", code="bad_reply")
        return content

    def _unreachable(self, error: httpx2.HTTPError) -> ProviderError:
        """By the exception's type only: its text may hold headers."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return ProviderError(
                    f"the certificate of {self._who} is not trusted",
                    code="certificate_rejected",
                    hint="add the authority to the system's trust store; there is no way around it",
                )
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
            return ProviderError(
                f"no request can be sent to {self._who}",
                code="base_url_invalid",
                hint="check --base-url, and that the key is one line of ASCII",
            )
        return TransientError(
            f"{self._who} cannot be reached ({type(error).__name__})", code="provider_unreachable"
        )
