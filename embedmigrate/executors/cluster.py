"""Ray itself: a cluster of the run's own or the operator's, kept quiet, and its actors."""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from embedmigrate.engine.model import Batch
from embedmigrate.errors import ClusterUnavailable, ConfigError
from embedmigrate.executors.actor import Actor
from embedmigrate.executors.member import Died, Remote
from embedmigrate.executors.messages import Build, Done, Down, Introduction, Up
from embedmigrate.secrets import redact

T = TypeVar("T")

_STORE_LEAST, _STORE_MOST = 128 * 1024**2, 2 * 1024**3
"""Bytes of the object store, through which batches travel."""
_KNOCKING = 10.0
_BESIDE_BATCHES = 16
"""Calls of an actor at once beside its batches: the poll, a message, its opening and closing."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is wanted of Ray.

    Attributes:
        address: A running cluster's; None for one that lives as long as the run.
        each: Batches that an actor has at once.
        batch_bytes: Of a batch at most.
        environment: For the processes of a cluster of the run's own: with secrets.
    """

    address: str | None
    actors: int
    cpus: float
    gpus: float
    each: int
    batch_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@contextlib.contextmanager
def cluster(spec: Spec) -> Iterator[Callable[[Build], Remote]]:
    """Connect to Ray; yields what starts an actor.

    Raises:
        ConfigError: Ray is not installed, or does not take the settings.
        ClusterUnavailable: There is no cluster at the address, or none can be started.
    """
    with contextlib.ExitStack() as stack:
        if spec.address is None:
            folder = tempfile.mkdtemp(prefix="em-ray-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            ray = _connected({**_quiet(), **_locked(), **spec.environment}, _own(spec, folder))
        else:
            _knock(spec.address)
            ray = _connected(_quiet(), {"address": spec.address})
        stack.callback(ray.shutdown)
        actors = ray.remote(Actor).options(
            num_cpus=spec.cpus,
            num_gpus=spec.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=spec.each + _BESIDE_BATCHES,
            scheduling_strategy="SPREAD",
        )
        threads = max(1, math.floor(spec.cpus))
        yield lambda build: _RayActor(ray, actors.remote(build, threads))


def _quiet() -> dict[str, str]:
    """No reports to Ray's makers."""
    return {"RAY_USAGE_STATS_ENABLED": "0"}


def _locked() -> dict[str, str]:
    """Whoever may run code in the cluster may read its secrets: nobody else on this machine."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _own(spec: Spec, folder: str) -> dict[str, Any]:
    # What a person asks for on one machine they get, also where it is more than there are cores.
    cores = max(os.cpu_count() or 1, math.ceil(spec.actors * spec.cpus))
    store = 2 * spec.actors * spec.each * spec.batch_bytes
    return {
        "address": "local",
        "num_cpus": cores,
        "include_dashboard": False,
        "object_store_memory": min(_STORE_MOST, max(_STORE_LEAST, store)),
        "_temp_dir": folder,
    }


def _connected(environment: Mapping[str, str], arguments: dict[str, Any]) -> Any:
    """The module, after `ray.init`; its processes inherit `environment`, which then goes again."""
    before = {name: os.environ.get(name) for name in environment}
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    os.environ.update(environment)
    try:
        ray = _imported()
        ray.init(
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.CRITICAL,
            **arguments,
        )
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  Ray has a dozen of its own for it
        raise _no_cluster(arguments["address"], error) from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.signal(signal.SIGTERM, handler)  # Ray puts its own in its place
    return ray


def _knock(address: str) -> None:
    """Ray would try for minutes, and tell so on stderr by itself."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCKING).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _imported() -> Any:
    try:
        import ray  # noqa: PLC0415  a second, and only where it is asked for
    except ImportError:
        raise ConfigError(
            "--executor ray needs the package ray, which is not installed",
            code="extra_missing",
            hint='pip install "embedmigrate[ray]"',
        ) from None
    return ray


def _no_cluster(address: str, error: Exception) -> ClusterUnavailable:
    where = "Ray cannot be started" if address == "local" else f"no Ray cluster at {address}"
    words = redact(str(error)).strip().splitlines()
    return ClusterUnavailable(
        where,
        code="cluster_unavailable",
        facts=(words[0][:300],) if words else (),
        hint="ray start --head starts one; leave --ray-address out for one of the run's own",
    )


class _RayActor:
    """An actor's methods, with Ray's errors as Died."""

    def __init__(self, ray: Any, handle: Any) -> None:
        self._ray = ray
        self._handle = handle

    async def open(self) -> Introduction:
        return cast(Introduction, await self._settled(self._handle.open.remote()))

    async def work(self, batch: Batch) -> Done:
        return cast(Done, await self._settled(self._handle.work.remote(batch)))

    async def poll(self) -> list[Up]:
        return cast(list[Up], await self._settled(self._handle.poll.remote()))

    async def tell(self, messages: Sequence[Down]) -> None:
        await self._settled(self._handle.tell.remote(messages))

    async def close(self) -> list[Up]:
        return cast(list[Up], await self._settled(self._handle.close.remote()))

    def kill(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone, and the cluster as well
            self._ray.kill(self._handle)

    async def _settled(self, reference: Awaitable[T]) -> T:
        errors = self._ray.exceptions
        try:
            return await reference
        except errors.RayTaskError:
            raise
        except errors.RayError as error:
            raise Died(_reason(error)) from None


def _reason(error: Exception) -> str:
    """The one line that says why: Ray adds a page of advice and, at times, of a traceback."""
    lines = [line.strip() for line in redact(str(error)).splitlines() if line.strip()]
    telling = ("Error:", "exit type", "exit_type", "node", "memory")
    return next((one for one in lines[1:] if any(w in one for w in telling)), lines[0])[:300]
