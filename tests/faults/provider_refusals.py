"""A provider that will not serve us, and one that is not there: how soon and how the run ends."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests import tables
from tests.faults.arena import arena
from tests.faults.judging import Judge
from tests.faults.series import Outcome, series
from tests.provider import Reply, mangle_vectors, openai_error
from tests.servers import PostgresServer
from tests.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.jobs import Job

WORKERS = 8
BATCH = 10
ROWS = 1200
MAX_WAIT = 2.0


@dataclass
class Case:
    """How the provider refuses, and what has to come of it."""

    code: int
    prepare: Callable[[Job], contextlib.AbstractContextManager[str | None]]
    """Gives another base URL, or none."""
    requests: int = WORKERS
    """At most, of those that are refused."""
    seconds: float = 4.0
    """At most, from the first refusal to the end of the process; the run's own measure where the
    refusal is not one of the provider's answers."""
    stored: int = 0
    """Rows at least."""
    options: tuple[str, ...] = ()


@dataclass
class After:
    """For `Provider.intercept`: serves some requests well, and then the refusal for ever."""

    refusal: Reply
    well: int = 0
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, texts: tuple[str, ...]) -> Reply | None:
        with self.lock:
            if self.well > 0:
                self.well -= 1
                return None
            self.refused += 1
            return self.refusal


def _answers(status: int, code: str, *, well: int = 0) -> Callable[[Job], _Prepared]:
    body = openai_error("Refused.", code, code)

    @contextlib.contextmanager
    def prepare(job: Job) -> Iterator[str | None]:
        job.provider.intercept = After(Reply(status, body), well).look
        yield None

    return prepare


@contextlib.contextmanager
def _closed_port(job: Job) -> Iterator[str | None]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def _self_signed(job: Job) -> Iterator[str | None]:
    """Counts what is read in clear behind the handshake: nothing may be."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
        files = ("-keyout", str(key), "-out", str(certificate))
        subprocess.run(
            ["openssl", "req", "-x509", *kind, *files, *subject],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with _listening(context) as (port, received):
            yield f"https://127.0.0.1:{port}/v1"
        assert received.total() == 0, "bytes were sent over a connection that is not trusted"


@contextlib.contextmanager
def _listening(context: ssl.SSLContext | None) -> Iterator[tuple[int, Counter[str]]]:
    """A server that answers nothing and counts the bytes that it is sent."""
    received, stop = Counter[str](), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    client, _ = listener.accept()
                    with client:
                        client.settimeout(1)
                        end = context.wrap_socket(client, server_side=True) if context else client
                        received["bytes"] += len(end.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1]), received
        finally:
            stop.set()
            thread.join()


def _redirects(status: int) -> Callable[[Job], _Prepared]:
    @contextlib.contextmanager
    def prepare(job: Job) -> Iterator[str | None]:
        with _listening(None) as (port, received):
            to = {"location": f"http://127.0.0.1:{port}/v1/embeddings"}
            job.provider.intercept = After(Reply(status, b"", to)).look
            yield None
        assert received.total() == 0, "a redirect was followed"

    return prepare


def _wrong_width(well: int) -> Callable[[Job], _Prepared]:
    """From then on vectors are twice as wide, as if the server had another model loaded."""

    @contextlib.contextmanager
    def prepare(job: Job) -> Iterator[str | None]:
        answers = itertools.count()
        widen = mangle_vectors(lambda vector: vector.repeat(2))
        job.provider.mangle = lambda answer: answer if next(answers) < well else widen(answer)
        yield None

    return prepare


_Prepared = contextlib.AbstractContextManager[str | None]
BRIEF = ("--max-wait", f"{MAX_WAIT:g}s")

CASES: dict[str, Case] = {
    "P3 insufficient_quota": Case(7, _answers(429, "insufficient_quota")),
    "P3 quota in the middle": Case(7, _answers(429, "insufficient_quota", well=20), stored=200),
    "P4 401": Case(7, _answers(401, "invalid_api_key")),
    "P4 404": Case(7, _answers(404, "model_not_found")),
    "P6 500 for ever": Case(5, _answers(500, "server_error"), 99, MAX_WAIT + 5, options=BRIEF),
    "P6 429 for ever": Case(
        5, _answers(429, "rate_limit_exceeded"), 99, MAX_WAIT + 5, options=BRIEF
    ),
    "P7 closed port": Case(5, _closed_port, 0, MAX_WAIT + 5, options=BRIEF),
    "P7 self-signed certificate": Case(7, _self_signed, 0),
    "P16 wrong width": Case(10, _wrong_width(0), 1),
    "P17 wrong width from the 500th vector on": Case(10, _wrong_width(50), stored=400),
    "P18 301": Case(7, _redirects(301)),
    "P18 307": Case(7, _redirects(307)),
    # of the long form only
    "P3 billing": Case(7, _answers(429, "billing_hard_limit_reached")),
    "P3 402": Case(7, _answers(402, "payment_required")),
    "P4 403": Case(7, _answers(403, "forbidden")),
    "P4 405": Case(7, _answers(405, "")),
    "P4 401 in the middle": Case(7, _answers(401, "invalid_api_key", well=20), stored=200),
    "P6 503 in the middle": Case(
        5, _answers(503, "server_error", well=20), 999, MAX_WAIT + 5, stored=200, options=BRIEF
    ),
    "P18 302": Case(7, _redirects(302)),
    "P18 308": Case(7, _redirects(308)),
}


@series(
    "provider-refusals",
    rows=("P3", "P4", "P6", "P7", "P16", "P17", "P18"),
    short=12,
    long=10 * len(CASES),
)
def provider_refusals(rounds: int, seed: int) -> Outcome:
    """Each case in its turn, in an order of its own for each seed, three at a time."""
    judge, chance = Judge(seed), random.Random(seed)
    names = [*CASES] * -(-rounds // len(CASES))
    turns = names[:rounds]
    chance.shuffle(turns)
    lock, figures = threading.Lock(), dict[str, dict[str, float]]()
    server = PostgresServer.from_environment()

    def work() -> None:
        with arena(server) as job:
            while True:
                with lock:
                    if not turns:
                        return
                    name = turns.pop()
                seconds, refused = _one(job, name, judge)
                job.database.disconnect()
                with lock:
                    known = figures.setdefault(name, {"seconds_at_most": 0, "refused_at_most": 0})
                    known["seconds_at_most"] = max(known["seconds_at_most"], round(seconds, 1))
                    known["refused_at_most"] = max(known["refused_at_most"], refused)

    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.stop()
    judge.holds(not turns, f"never tried: {turns}")
    return Outcome(rounds, {"cases": figures}, tuple(judge.broken))


def _one(job: Job, name: str, judge: Judge) -> tuple[float, int]:
    case, session = CASES[name], job.database.connect()
    session.execute("DROP TABLE IF EXISTS articles")
    tables.articles(session, ROWS, gaps=False)
    table = Verifier(session)
    job.provider.reset()
    options = ("--batch-size", str(BATCH), "--concurrency", str(WORKERS), "--restart")
    try:
        with case.prepare(job) as url:
            env = {"OPENAI_BASE_URL": url} if url else {}
            done = job.run(*options, *case.options, env=env)
    except (AssertionError, TimeoutError) as wrong:
        judge.holds(False, f"{name}: {str(wrong)[:300]}")
        return 0.0, 0
    ended = time.monotonic()
    refusals = [r.at for r in job.provider.requests if r.status != 200]
    told = re.search(r"duration_s=(\d+)", done.stderr)  # where nobody has heard the first refusal
    seconds = ended - refusals[0] if refusals else float(told[1]) if told else math.inf
    before = len(judge.broken)
    judge.run(done, case.code)
    judge.holds(not table.wrong(), "I1: wrong vectors")
    judge.holds(not table.touched(), "I3: rows touched")
    stored = len(table.embedded())
    judge.holds(stored >= case.stored and (case.stored or not stored), f"{stored} rows were stored")
    statuses = Counter(r.status for r in job.provider.requests)
    refused = statuses.total() - statuses[200]
    if name.startswith(("P16", "P17")):
        refused = statuses[200] - stored // BATCH
    judge.holds(refused <= case.requests, f"{refused} requests were refused")
    judge.holds(seconds <= case.seconds, f"it took {seconds:.1f} s")
    judge.holds("sk-test-0123456789" not in done.stdout + done.stderr, "the key was shown")
    judge.broken[before:] = [f"{name}: {words}" for words in judge.broken[before:]]
    return seconds, refused
