"""Providers of embeddings: which there are, what they need, and how one is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedmigrate import secrets
from embedmigrate.errors import ConfigError

if TYPE_CHECKING:
    from embedmigrate.embedders.models import Choice
    from embedmigrate.engine.ports import Embedder

OPENAI_URL = "https://api.openai.com/v1"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Access:
    """How a provider is reached; `key_origin` is for a person to find the key again."""

    base_url: str | None
    key: str | None
    key_origin: str
    api_version: str
    encoding_format: str
    timeout: float
    allow_http: bool

    @property
    def host(self) -> str:
        return urlsplit(self.base_url or OPENAI_URL).netloc


def check_access(provider: str, access: Access) -> str:
    """Is everything there to send a request? What was found, for a person.

    Raises:
        ConfigError: The key is missing or malformed, or the address is not safe to use.
    """
    if provider in {"local", "hash"}:
        return "not needed: the model runs here"
    if provider == "azure" and not access.base_url:
        raise ConfigError(
            "azure needs the address of the resource",
            code="base_url_missing",
            hint="export AZURE_OPENAI_ENDPOINT=https://NAME.openai.azure.com",
        )
    _check_url(access.base_url or OPENAI_URL, allow_http=access.allow_http)
    return _check_key(provider, access)


def _check_url(url: str, *, allow_http: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"--base-url {secrets.redact(url)} is not an http address",
            code="base_url_invalid",
            hint="it looks like https://HOST/v1",
        )
    if parts.username or parts.password:
        raise ConfigError(
            "--base-url must not hold a user or password",
            code="base_url_invalid",
            hint="keys travel in a header: OPENAI_API_KEY",
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not allow_http:
        raise ConfigError(
            f"{parts.hostname} would receive your texts unencrypted",
            code="base_url_insecure",
            hint="use https, or pass --allow-http if the network between is yours",
        )


def _check_key(provider: str, access: Access) -> str:
    variable = "AZURE_OPENAI_API_KEY" if provider == "azure" else "OPENAI_API_KEY"
    if not access.key:
        if access.base_url and provider == "openai":
            return f"no key is set; {access.host} may not need one"
        raise ConfigError(
            f"no API key for provider {provider}",
            code="api_key_missing",
            facts=(f"Looked at {variable}, --api-key-file, --api-key-command and ./.env.",),
            hint=f"export {variable}=...   then: embedmigrate generate-all --dry-run --probe",
        )
    if not access.key.isascii() or not access.key.isprintable() or " " in access.key:
        raise ConfigError(
            f"the API key from {access.key_origin} holds a space, a line break or another "
            "character that no key has",
            code="api_key_malformed",
            facts=("It is not shown. A line break at its end often comes from a file or a paste.",),
            hint=f"export {variable}=...   without quotes or a line break inside",
        )
    return f"{access.key_origin} is set ({secrets.hint_of(access.key)}), not tested; use --probe"


def open_embedder(
    choice: "Choice", access: Access, *, width: int, notice: Callable[[str, str], None]
) -> "Embedder":
    """Open the model; a library is imported only by the provider that needs it.

    Args:
        choice: The model.
        access: How it is reached.
        width: Dimensions expected of every vector: the column's.
        notice: Told once of what an operator should know: a code and a sentence.

    Raises:
        ConfigError: A library or a model folder is missing.
    """
    if choice.provider == "local":
        from embedmigrate.embedders.local import open_local  # noqa: PLC0415

        return open_local(None if choice.name == "wordllama" else choice.name)
    if choice.provider == "hash":
        from embedmigrate.embedders.fake import HashEmbedder  # noqa: PLC0415

        return HashEmbedder(width)
    from embedmigrate.embedders import openai  # noqa: PLC0415

    url = access.base_url or OPENAI_URL
    asked = choice.dimensions if choice.shortened else None
    if choice.provider == "azure":
        endpoint = openai.azure_endpoint(
            url, access.key, choice.name, dimensions=asked, version=access.api_version
        )
    else:
        auto = access.encoding_format == "auto" and url.startswith(OPENAI_URL)
        endpoint = openai.openai_endpoint(
            url,
            access.key,
            choice.name,
            dimensions=asked,
            base64=auto or access.encoding_format == "base64",
        )
    known = f"Key {secrets.hint_of(access.key)} from {access.key_origin}." if access.key else ""
    return openai.OpenAIEmbedder(
        endpoint,
        dimensions=width,
        limits=choice.limits,
        timeout=access.timeout,
        notice=notice,
        credential=known or "No key was sent: OPENAI_API_KEY is not set.",
    )
