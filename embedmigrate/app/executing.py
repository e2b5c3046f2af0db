"""`--executor`: who does the batches; a Ray cluster and its actors, where they are asked for."""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from importlib.util import find_spec

from embedmigrate import __version__
from embedmigrate.app.opening import Opening
from embedmigrate.app.workplace import Workshop
from embedmigrate.config.elsewhere import portable, variables
from embedmigrate.errors import ConfigError
from embedmigrate.executors.cluster import Spec, cluster
from embedmigrate.executors.messages import Introduction
from embedmigrate.executors.team import Plan, Team
from embedmigrate.postgres import embedded
from embedmigrate.secrets import redact

_SCALE = ("ray_address", "actors", "cpus_per_actor", "gpus_per_actor")


def check(opening: Opening) -> str:
    """What can be said without starting anything.

    Raises:
        ConfigError: Settings that contradict each other, or Ray is not installed.
    """
    s, origins = opening.settings, opening.origins
    if s.executor == "local":
        for key in _SCALE:
            if key in origins:
                raise ConfigError(
                    f"--{key.replace('_', '-')} (from {origins[key]}) needs --executor ray",
                    code="setting_invalid",
                    hint="add --executor ray, or leave it out",
                )
        return "in this process"
    _check_spelling(opening)
    if find_spec("ray") is None:
        raise ConfigError(
            "--executor ray needs the package ray, which is not installed",
            code="extra_missing",
            hint='pip install "embedmigrate[ray]"',
        )
    where = f"on the cluster at {redact(s.ray_address)}" if s.ray_address else "on this machine"
    gpus = f" and {s.gpus_per_actor:g} GPU" if s.gpus_per_actor else ""
    return (
        f"{s.actors} actors with {s.cpus_per_actor:g} CPU{gpus} each, {where}, "
        f"ray {version('ray')}; not started"
    )


def _check_spelling(opening: Opening) -> None:
    s = opening.settings
    if s.gpus_per_actor > 1 and s.gpus_per_actor % 1:
        raise ConfigError(
            f"--gpus-per-actor {s.gpus_per_actor:g}: Ray shares one GPU, and no more than one",
            code="setting_invalid",
            hint="a whole number, or a part of one",
        )
    if s.ray_address and s.ray_address.startswith("ray://"):
        raise ConfigError(
            "--ray-address ray:// is Ray's client protocol, which this does not speak",
            code="ray_address_unsupported",
            hint="run embedmigrate on a node of the cluster with --ray-address auto",
        )
    url = s.database_url.reveal() if s.database_url else ""
    shown = opening.origins.get("database_url", "").startswith("--")
    if shown and ("password" in url or ":" in url.partition("://")[2].rpartition("@")[0]):
        raise ConfigError(
            "Ray records the command line, and --database-url in it holds a password",
            code="secret_in_command_line",
            hint="export DATABASE_URL instead",
        )
    if s.ray_address and embedded.is_embedded(url):
        raise ConfigError(
            "an embedded database can be reached from this machine only",
            code="database_unreachable_for_actors",
            hint="leave --ray-address out, or use a PostgreSQL server",
        )


@contextlib.asynccontextmanager
async def open_team(opening: Opening, run_id: str) -> AsyncIterator[Team | None]:
    """The actors, each with everything opened and checked; None where this process does it all.

    Raises:
        ConfigError: An actor lacks something or would work on something else.
        ClusterUnavailable: No cluster, or no actor.
    """
    s, choice = opening.settings, opening.choice
    if s.executor == "local":
        yield None
        return
    spec = Spec(
        s.ray_address,
        s.actors,
        s.cpus_per_actor,
        s.gpus_per_actor,
        choice.concurrency,
        choice.limits.bytes,
        {} if s.ray_address else variables(s, opening.url),
    )
    shop = Workshop(portable(s), run_id)
    mine = Introduction("", __version__, opening.fingerprint())
    with cluster(spec) as hire:
        team = Team(Plan(s.actors, choice.concurrency, s.max_wait, mine), lambda: hire(shop))
        try:
            await team.muster()
            yield team
        finally:
            await team.dismiss()
