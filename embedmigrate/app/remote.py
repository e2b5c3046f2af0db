"""Asks an `embedmigrate serve` on another machine."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from embedmigrate.config import Loaded
from embedmigrate.errors import ConfigError, EmbedMigrateError, RemoteUnavailable

_API = "/api/admin/embeddings"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_SECONDS = 30.0
_MOST_BYTES = 16 * 1024 * 1024
_THE_SERVERS = {"table", "text_column", "text_sql", "where", "vector_column", "side_table"}
_UNAVAILABLE = 500


@dataclass(frozen=True, slots=True)
class Remote:
    """One job of one server."""

    url: str
    token: str
    job: str | None

    @classmethod
    def of(cls, loaded: Loaded) -> "Remote":
        """What --url, --job and EMBEDMIGRATE_TOKEN say.

        Raises:
            ConfigError: The address is none, or not safe to send a token to; or there is no token.
        """
        s = loaded.settings
        if given := sorted(k for k in _THE_SERVERS if loaded.origins.get(k, "").startswith("--")):
            flag = f"--{given[0].replace('_', '-')}"
            raise ConfigError(
                f"{flag} does not go with --url: the server knows its tables",
                code="setting_invalid",
                hint="--job NAME asks for another job of the server's configuration file",
            )
        url = _checked(s.url or "", allow_http=s.allow_http)
        token = s.token.reveal().strip() if s.token else ""
        if not token or not token.isascii() or not token.isprintable():
            raise ConfigError(
                "--url needs a token, and EMBEDMIGRATE_TOKEN holds none",
                code="token_missing",
                hint="export EMBEDMIGRATE_TOKEN=...   one of those that the server knows",
            )
        return cls(url, token, s.job)

    def get(self, what: str) -> dict[str, Any]:
        return self._ask("GET", what, None)

    def post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", what, body)

    def _ask(self, method: str, what: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            RemoteUnavailable: No answer, or one that is not the API's.
            EmbedMigrateError: The server refuses; the code is its own.
        """
        asked = {"job": self.job} if self.job else {}
        try:
            answer = httpx2.request(
                method,
                f"{self.url}{_API}/{what}",
                params=asked,
                json=body,
                headers={"authorization": f"Bearer {self.token}"},
                timeout=_SECONDS,
                follow_redirects=False,  # the token is for this host alone
            )
        except httpx2.HTTPError as error:
            raise _unavailable(f"no answer from {self.url}: {type(error).__name__}") from None
        try:
            said = answer.json()
            fault = said.get("error") or {}
        except (ValueError, AttributeError):
            raise _unavailable(f"{self.url} does not answer as embedmigrate serve does") from None
        if answer.status_code == httpx2.codes.OK and said.get("success") is True:
            return dict(said)
        message = f"{self.url} refuses: {fault.get('message', answer.status_code)}"
        if answer.status_code >= _UNAVAILABLE:
            raise _unavailable(message)
        raise ConfigError(
            message,
            code="remote_refused",
            hint="check EMBEDMIGRATE_TOKEN, --url and --job",
            details={"http_status": answer.status_code, "code": fault.get("code")},
        )


def _unavailable(message: str) -> EmbedMigrateError:
    return RemoteUnavailable(
        message,
        code="remote_unavailable",
        hint="is embedmigrate serve running there, and is --url right?",
    )


def _checked(url: str, *, allow_http: bool) -> str:
    """Without a slash at the end."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise ConfigError(
            "--url is not an address such as https://db1.internal:5001",
            code="url_invalid",
            hint="the one that embedmigrate serve prints, or its proxy's",
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "--url must not hold a user or a password",
            code="url_invalid",
            hint="export EMBEDMIGRATE_TOKEN=...",
        )
    if parts.scheme == "http" and host not in _LOOPBACK and not allow_http:
        raise ConfigError(
            f"the token would be sent unencrypted to {host}",
            code="url_insecure",
            hint="use https, or --allow-http where the network itself is trusted",
        )
    return url.rstrip("/")
