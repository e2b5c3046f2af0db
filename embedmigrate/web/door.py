"""Which requests come in at all: by host, origin and method, before anything else looks at them."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from embedmigrate.web.refusals import Refusal

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_ALLOWED_HEADERS = "authorization, content-type"
_ALLOWED_METHODS = "GET, POST"
_PREFLIGHT_SECONDS = "600"


def is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Door:
    """What Host and Origin may say.

    Attributes:
        hosts: Values of Host, lower case: a page of another name that leads here (DNS rebinding)
            is refused.
        origins: Of other sites whose pages may call.
    """

    hosts: frozenset[str]
    origins: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(
        cls, host: str, port: int, allowed: tuple[str, ...] = (), origins: tuple[str, ...] = ()
    ) -> "Door":
        mine = {*_LOOPBACK, f"[{host}]" if ":" in host else host}
        named = {name.lower() for name in allowed}
        with_port = {f"{name}:{port}" for name in mine | {n for n in named if _bare(n)}}
        return cls(frozenset(with_port | named), frozenset(o.lower().rstrip("/") for o in origins))

    def check_host(self, given: list[str]) -> None:
        if len(given) != 1 or given[0].lower() not in self.hosts:
            raise Refusal(
                421,
                "host_unknown",
                "this server does not answer under that name: --allowed-host adds one",
            )

    def check_origin(self, given: list[str], host: str) -> str | None:
        """The origin of an allowed other site, None where there is none or it is our own page."""
        if not given:
            return None
        origin = given[0].lower()
        if len(given) == 1 and origin in self.origins:
            return origin
        try:
            parts = urlsplit(origin)
        except ValueError:
            parts = urlsplit("")
        own = parts.scheme in {"http", "https"} and parts.netloc == host.lower()
        if len(given) > 1 or not own or parts.path:
            raise Refusal(
                403,
                "origin_forbidden",
                "pages of that origin may not call: --cors-origin allows one",
            )
        return None


def cors_headers(origin: str) -> dict[str, str]:
    return {"access-control-allow-origin": origin, "vary": "Origin"}


def preflight_headers(origin: str) -> dict[str, str]:
    return cors_headers(origin) | {
        "access-control-allow-headers": _ALLOWED_HEADERS,
        "access-control-allow-methods": _ALLOWED_METHODS,
        "access-control-max-age": _PREFLIGHT_SECONDS,
    }


def _bare(name: str) -> bool:
    """Without a port of its own."""
    return not name.rpartition(":")[2].isdigit() or name.endswith("]")
