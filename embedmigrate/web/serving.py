"""Opens the address, puts the application behind it, and serves until a signal ends it."""

import logging
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn

from embedmigrate.app.records import now
from embedmigrate.config import Loaded, Settings
from embedmigrate.errors import ConfigError
from embedmigrate.secrets import redact
from embedmigrate.web.connections import Deadlined, Server
from embedmigrate.web.door import Door, is_loopback
from embedmigrate.web.gate import Audited, Gate
from embedmigrate.web.jobs import Jobs
from embedmigrate.web.routes import Desk
from embedmigrate.web.site import site
from embedmigrate.web.streaming import Closing
from embedmigrate.web.tokens import tokens_of

_BACKLOG = 128
_GOODBYE_SECONDS = 2
_SWITCH_SECONDS = 0.0005


def serve(
    loaded: Loaded,
    flags: Mapping[str, Any],
    *,
    say: Callable[[str], None],
    started: Callable[[str], None],
) -> None:
    """Until SIGINT or SIGTERM; the jobs go on.

    Args:
        loaded: The settings.
        flags: Those of the command line, which each job is given as well.
        say: Takes a line for the log: who did what, and what went wrong.
        started: Takes the address, once it is open.

    Raises:
        ConfigError: No token, no database, or an address that cannot be opened.
    """
    s = loaded.settings
    tokens = tokens_of(s)
    desk, closing = _desk(flags)
    listening = _listen(s)
    port = listening.getsockname()[1]
    door = Door.of(s.host, port, s.allowed_host, s.cors_origin)
    app = Gate(site(desk), door=door, tokens=tokens, audit=_auditing(say), warn=_warning(say))
    config = uvicorn.Config(
        app,
        http=Deadlined,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # it quotes what strangers send
    # Counts run in threads beside the loop; by default one of them may hold it up for 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    started(f"http://{_shown(s.host)}:{port}")
    with listening:
        Server(config, closing.announce).run(sockets=[listening])


def _desk(flags: Mapping[str, Any]) -> tuple[Desk, Closing]:
    closing = Closing()
    return Desk(Jobs(flags), closing), closing


def _listen(s: Settings) -> socket.socket:
    """An open address.

    Raises:
        ConfigError: It is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in s.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((s.host, s.port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {s.host}:{s.port}: {error.strerror}",
            code="address_unavailable",
            facts=("Jobs that are running go on.",),
            hint="choose another with --host and --port; ss -ltnp shows who listens",
        ) from None
    return listening


def _auditing(say: Callable[[str], None]) -> Callable[[Audited], None]:
    def audit(a: Audited) -> None:
        action = "".join(c if c.isprintable() and c != " " else "?" for c in a.path[:100])
        say(
            redact(
                f"{now()} audit role={a.role} address={a.address} action={a.method}:{action} "
                f"job={a.job} status={a.status}"
            )
        )

    return audit


def _warning(say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda words: say(redact(f"{now()} error {words}"))


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def check_exposed(s: Settings) -> str | None:
    """What is to be said of an address that others can reach."""
    if is_loopback(s.host):
        return None
    return (
        f"{s.host} can be reached from other machines, and tokens travel unencrypted: "
        "put a proxy with TLS in front"
    )
