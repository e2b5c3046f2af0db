"""A provider that fails, throttles, refuses a text, or answers 200 with something else."""

from __future__ import annotations

import email.utils
import itertools
import json
import math
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from tests import tables
from tests.e2e.jobs import shuffling, summary_of
from tests.faults.arena import arena
from tests.faults.judging import Judge, failures
from tests.faults.series import Outcome, series
from tests.provider import Body, Reply, base64_of, openai_error, vector_from
from tests.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.jobs import Job

Item = dict[str, Any]

# P12, P14: replies of which nothing may be believed


def _duplicate_index(answer: Body) -> object:
    answer["data"][-1]["index"] = answer["data"][0]["index"]
    return answer


def _index_too_large(answer: Body) -> object:
    answer["data"][0]["index"] = len(answer["data"])
    return answer


def _index_missing(answer: Body) -> object:
    del answer["data"][0]["index"]
    return answer


def _set_index(value: object) -> Callable[[Body], object]:
    def mangle(answer: Body) -> object:
        answer["data"][-1]["index"] = value
        return answer

    return mangle


def _one_less(answer: Body) -> object:
    answer["data"].pop()
    return answer


def _one_more(answer: Body) -> object:
    last = answer["data"][-1]
    answer["data"].append({**last, "index": last["index"] + 1})
    return answer


def _ragged(answer: Body) -> object:
    answer["data"][0]["embedding"] = [0.5, 0.5, 0.5]
    return answer


def _truncated(answer: Body) -> object:
    whole = json.dumps(answer).encode()
    return whole[: len(whole) * 2 // 3]


STRUCTURAL: dict[str, Callable[[Body], object]] = {
    "duplicate index": _duplicate_index,
    "index of no text": _index_too_large,
    "one index missing": _index_missing,
    "index -1": _set_index(-1),
    "index true": _set_index(value=True),
    "index as text": _set_index("0"),
    "index 1.5": _set_index(1.5),
    "one vector less": _one_less,
    "one vector more": _one_more,
    "no vectors": lambda answer: {**answer, "data": []},
    "data null": lambda answer: {**answer, "data": None},
    "data of numbers": lambda answer: {**answer, "data": [1.0] * len(answer["data"])},
    "error at 200": lambda _: openai_error("upstream failed", "server_error"),
    "login page": lambda _: b"<!doctype html><html><body>Log in</body></html>",
    "empty body": lambda _: b"",
    "truncated JSON": _truncated,
    "two widths": _ragged,
    "a list": lambda answer: answer["data"],
}

# P15: one vector of the reply is none, or not one that may be stored


def _components(change: Callable[[list[float]], object]) -> Callable[[Item], None]:
    def damage(item: Item) -> None:
        item["embedding"] = change(vector_from(item["embedding"]).tolist())

    return damage


UNSOUND: dict[str, Callable[[Item], None]] = {
    "null": _components(lambda _: None),
    "null component": _components(lambda v: [None, *v[1:]]),
    "NaN in base64": _components(lambda v: _base64([math.nan, *v[1:]])),
    "infinity in base64": _components(lambda v: _base64([math.inf, *v[1:]])),
    "all zero": _components(lambda v: [0.0] * len(v)),
    "1e39": _components(lambda v: [1e39, *v[1:]]),
    "a number": _components(lambda _: 7),
    "components as text": _components(lambda v: [str(c) for c in v]),
    "not base64": _components(lambda _: "§ no base64 §"),
    "nested": _components(lambda v: [[c] for c in v]),
    "booleans": _components(lambda v: [True] * len(v)),
    "an object": _components(lambda v: {"values": v}),
    "nothing": _components(lambda _: []),
}


def _base64(components: list[float]) -> str:
    return base64_of(vector_from(components))


# P13, P19: other ways to say the same, which have to be understood


def _in_base64(step: int) -> Callable[[Body], object]:
    def mangle(answer: Body) -> object:
        for item in answer["data"][::step]:
            if _is_vector(item["embedding"]):  # poison stays what it is
                item["embedding"] = _base64(item["embedding"])
        return answer

    return mangle


def _is_vector(embedding: object) -> bool:
    return isinstance(embedding, list) and all(isinstance(c, float) for c in embedding)


def _unnumbered(answer: Body) -> object:
    for item in answer["data"]:
        del item["index"]
    return answer


UNUSUAL: dict[str, Callable[[Body], object]] = {
    "all base64": _in_base64(1),
    "some base64": _in_base64(2),
    "no index at all": _unnumbered,
    "shuffled": lambda answer: {**answer, "data": answer["data"][::-1]},
    "usage missing": lambda answer: {"data": answer["data"]},
}


class Mangler:
    """Damages a share of the replies, each kind in its turn, and every vector of a `poison` text.

    The same texts meet two malformed replies at most, and a sound text that is asked for alone
    has a sound vector, so that in the end exactly the rows with a poison text are without one.
    """

    def __init__(self, seed: int, rate: float, poison: dict[str, str]) -> None:
        self.injected = Counter[str]()
        self._rate = rate
        self._poison = poison
        self._chance = random.Random(seed)
        self._kinds = itertools.cycle([*STRUCTURAL, *UNSOUND, *UNUSUAL])
        self._met = Counter[str]()
        self._lock = threading.Lock()
        self._texts = threading.local()

    def look(self, texts: tuple[str, ...]) -> None:
        """For `Provider.intercept`: the thread that mangles the reply has read the question."""
        self._texts.now = texts

    def mangle(self, answer: Body) -> object:
        texts: tuple[str, ...] = self._texts.now
        sound = []
        for text, item in zip(texts, answer["data"], strict=True):
            if text in self._poison:
                UNSOUND[self._poison[text]](item)
            else:
                sound.append(item)
        kind = self._kind(texts, sound)
        if kind in UNSOUND:
            UNSOUND[kind](sound[len(sound) // 2])
        elif kind:
            return _as_json((STRUCTURAL | UNUSUAL)[kind](answer))
        with self._lock:
            self._chance.shuffle(answer["data"])
        return _as_json(answer)

    def _kind(self, texts: tuple[str, ...], sound: list[Item]) -> str:
        """What to do to this reply; nothing mostly."""
        with self._lock:
            if self._chance.random() >= self._rate or self._met[texts[0]] == 2:
                return ""
            if len(sound) < 3:
                return ""
            kind = next(self._kinds)
            self._met[texts[0]] += 1
            self.injected[kind] += 1
            return kind


def _as_json(answer: object) -> bytes:
    return answer if isinstance(answer, bytes) else orjson.dumps(answer)


@series("malformed-replies", rows=("P12", "P13", "P14", "P15", "P19"), short=2000, long=100_000)
def malformed_replies(rounds: int, seed: int) -> Outcome:
    """`rounds` vectors; 1 % of the replies are malformed, or as much as gives each kind a turn."""
    judge = Judge(seed)
    batch = 16
    kinds = len(STRUCTURAL) + len(UNSOUND) + len(UNUSUAL)
    rate = max(0.01, 1.5 * kinds * batch / rounds)
    chance = random.Random(seed)
    marked = chance.sample(range(1, rounds + 1), min(rounds // 100, 10 * len(UNSOUND)))
    poison = dict(zip(map(tables.text_of, marked), itertools.cycle(UNSOUND), strict=False))
    mangler = Mangler(seed, rate, poison)
    with arena() as job:
        tables.articles(job.database.connect(), rounds, gaps=False)
        table = Verifier(job.database.connect())
        job.provider.intercept, job.provider.mangle = mangler.look, mangler.mangle
        done = job.run("--batch-size", str(batch), "--concurrency", "16", timeout=900)
        judge.run(done, 3 if marked else 0)
        judge.table(table, without={str(n) for n in marked})
        failed = failures(job)
        judge.holds(failed.keys() == {str(n) for n in marked}, f"failed: {sorted(failed)[:9]}")
        codes = Counter(failure["code"] for failure in failed.values())
        judge.holds(set(codes) <= {"bad_vector", "bad_reply"}, f"failed with {codes}")
        left_out = set(mangler.injected) ^ {*STRUCTURAL, *UNSOUND, *UNUSUAL}
        judge.holds(not left_out, f"never injected: {left_out}")
        judge.holds(not job.provider.errors, f"in the provider: {job.provider.errors[:1]}")
        requests = len(job.provider.requests)
    figures = {
        "vectors": rounds,
        "requests": requests,
        "malformed_replies": mangler.injected.total(),
        "kinds": len(mangler.injected),
        "texts_with_unsound_vectors_for_ever": len(marked),
        "wrong_vectors": 0,
        "unsound_vectors_stored": 0,
    }
    return Outcome(rounds, figures, tuple(judge.broken))


@series("one-bad-text", rows=("P9",), short=12, long=400)
def one_bad_text(rounds: int, seed: int) -> Outcome:
    """`rounds` requests of 2,048 texts, each with one that is refused wherever it stands."""
    judge, chance, size = Judge(seed), random.Random(seed), 2048
    places = [0, size - 1, size // 2, size // 2 - 1, 1][:rounds]
    places += [chance.randrange(size) for _ in range(rounds - len(places))]
    extra: list[int] = []
    with arena() as job:
        session = job.database.connect()
        for first in range(0, rounds, 25):
            session.execute("DROP TABLE IF EXISTS articles")
            _one_table_of_bad_texts(job, places[first : first + 25], size, judge, extra)
    figures = {
        "texts": rounds * size,
        "extra_requests_at_most": max(extra),
        "extra_requests_on_average": round(sum(extra) / len(extra), 1),
        "bound": 24,
        "good_texts_missing": 0,
    }
    return Outcome(rounds, figures, tuple(judge.broken))


def _one_table_of_bad_texts(
    job: Job, places: list[int], size: int, judge: Judge, extra: list[int]
) -> None:
    tables.articles(job.database.connect(), len(places) * size, gaps=False)
    table = Verifier(job.database.connect())
    bad = {n * size + place + 1 for n, place in enumerate(places)}
    texts = {tables.text_of(n) for n in bad}
    job.provider.forget()
    job.provider.reject = texts.__contains__
    done = job.run("--batch-size", str(size), "--restart", "--concurrency", "4", timeout=600)
    judge.run(done, 3)
    judge.table(table, without={str(n) for n in bad})
    judge.holds(failures(job).keys() == {str(n) for n in bad}, "other rows failed")
    judge.paid_once(job)
    asked = Counter(_number(r.texts[0]) // size for r in job.provider.requests)
    extra += [asked[n] - 1 for n in range(len(places))]
    judge.holds(max(extra) <= 24, f"P9: {max(extra)} extra requests for one bad text")


def _number(text: str) -> int:
    """Counted from 0."""
    return int(text.split()[1]) - 1


class Storms:
    """For `Provider.intercept`: every now and then 429 to everybody, for as long as it says."""

    FORMS = ("seconds", "ms", "date", "reset")

    def __init__(self, seed: int, every: int) -> None:
        self.sent: list[tuple[float, float]] = []
        """When each 429 was sent, and when the time that it named was over."""
        self.storms = 0
        self._chance = random.Random(seed)
        self._every = every
        self._next = every
        self._until = 0.0
        self._form = "seconds"
        self._lock = threading.Lock()

    def look(self, texts: tuple[str, ...]) -> Reply | None:
        with self._lock:
            now = time.monotonic()
            if now >= self._until:
                self._next -= 1
                if self._next > 0:
                    return None
                self._next = self._chance.randint(1, 2 * self._every)
                self._form = self.FORMS[self.storms % len(self.FORMS)]
                self.storms += 1
                self._until = now + (1.0 if self._form == "seconds" else 0.3)
            return self._too_many(now)

    def _too_many(self, now: float) -> Reply:
        """What is asked for may be a little more than what is left, never less."""
        left = self._until - now
        match self._form:
            case "seconds":
                left = float(max(1, math.ceil(left)))
                headers = {"retry-after": f"{left:.0f}"}
            case "ms":
                headers = {"retry-after-ms": f"{left * 1000:.3f}"}
            case "date":
                then = math.ceil(time.time() + left)
                left = then - time.time()
                headers = {"retry-after": email.utils.formatdate(then, usegmt=True)}
            case _:
                headers = {
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-requests": f"{math.ceil(left * 1000)}ms",
                }
        self.sent.append((now, now + left))
        message = openai_error("Rate limit reached", "requests", "rate_limit_exceeded")
        return Reply(429, message, headers)


IN_FLIGHT = 0.1
"""Seconds that a request may take to arrive which was on its way when the 429 was sent."""


@series("provider-storm", rows=("P1", "P2", "P5", "P12"), short=300, long=10_000)
def provider_storm(rounds: int, seed: int) -> Outcome:
    """At least `rounds` requests: a fifth fails, some are cut, and 429s come in waves."""
    judge, workers, batch = Judge(seed), 16, 8
    storms = Storms(seed, every=50)
    with arena() as job:
        rows = int(rounds * 0.82) * batch
        tables.articles(job.database.connect(), rows, gaps=False)
        table = Verifier(job.database.connect())
        provider = job.provider
        provider.random = random.Random(seed)
        provider.fail_rate, provider.fail_status = 0.2, [500, 502, 503, 504, 529, 408, 409]
        provider.reset_rate, provider.mangle = 0.01, shuffling(seed)
        provider.intercept = storms.look
        options = ("--batch-size", str(batch), "--concurrency", str(workers), "--retries", "20")
        done = job.run(*options, timeout=1200)
        judge.run(done, 0)
        judge.table(table)
        judge.paid_once(job)
        judge.holds(not provider.errors, f"in the provider: {provider.errors[:1]}")
        requests = provider.requests
        seconds = summary_of(done).get("duration_s", "")
    arrivals = sorted(r.at for r in requests)
    early = [at for at in arrivals if any(s + IN_FLIGHT < at < u for s, u in storms.sent)]
    judge.holds(not early, f"P1: {len(early)} requests before the time that a 429 named")
    answers = Counter(r.status for r in requests)
    judge.holds(len(requests) >= rounds, f"only {len(requests)} requests")
    figures = {
        "requests": len(requests),
        "answers": {str(status or "cut"): n for status, n in sorted(answers.items())},
        "storms": storms.storms,
        "early_requests": len(early),
        "wrong_vectors": 0,
        "texts_sent_again_after_an_answer": 0,
        "seconds_of_the_run": seconds,
    }
    return Outcome(len(requests), figures, tuple(judge.broken))
