"""Requests and texts that are too large for the provider, or that it cuts off in silence."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedmigrate.embedders.tokens import token_counter
from tests import tables
from tests.faults.arena import arena
from tests.faults.judging import Judge, failures
from tests.faults.series import Outcome, series
from tests.provider import Body, Reply, openai_error
from tests.verifier import Rows, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.jobs import Job
    from tests.tables import Session

MODEL = "text-embedding-3-small"
LIMIT = 8192


@dataclass(frozen=True)
class Ceiling:
    """A limit of one request: attributes of the provider, or an answer of its own."""

    limits: dict[str, int] = field(default_factory=dict)
    inputs: int = 0
    refusal: Reply | None = None
    bytes: int = 60
    """Of one text, about."""
    unit: str = "copper lantern "

    def set(self, job: Job) -> None:
        for name, limit in self.limits.items():
            setattr(job.provider, name, limit)
        if self.refusal is not None:
            job.provider.intercept = lambda texts: (
                self.refusal if len(texts) > self.inputs else None
            )


def _says(status: int, message: str) -> Reply:
    return Reply(status, openai_error(message))


CEILINGS: dict[str, Ceiling] = {
    "10 inputs, 400": Ceiling(
        inputs=10, refusal=_says(400, "batch size is invalid, it should not be larger than 10.")
    ),
    "2 MB body": Ceiling({"max_body_bytes": 2_000_000}, bytes=3000),
    "300,000 tokens of four bytes": Ceiling({"max_tokens_per_request": 300_000}, bytes=3000),
    "300,000 tokens, emoji": Ceiling({"max_tokens_per_request": 100_000}, bytes=900, unit="🦉"),
    "32 inputs, 422": Ceiling(
        inputs=32, refusal=_says(422, "batch size 2048 > maximum allowed batch size 32")
    ),
    "32 inputs, 413": Ceiling({"max_inputs": 32}),
    "64 inputs, 413": Ceiling(inputs=64, refusal=_says(413, "input batch size 2048 > 64")),
}


@series("too-large", rows=("P10",), short=3, long=5 * len(CEILINGS))
def too_large(rounds: int, seed: int) -> Outcome:
    """Requests of 2,048 texts against one ceiling after the other."""
    judge, chance = Judge(seed), random.Random(seed)
    refused: dict[str, int] = {}
    with arena() as job:
        for number in range(rounds):
            name = [*CEILINGS][number % len(CEILINGS)]
            found = _under(CEILINGS[name], job, judge, chance)
            refused[name] = max(refused.get(name, 0), found)
            judge.holds(found <= 12, f"P10: {found} requests were refused ({name})")
    figures = {"refused_requests_at_most": refused, "bound": 12, "missing_at_exit_0": 0}
    return Outcome(rounds, figures, tuple(judge.broken))


def _under(ceiling: Ceiling, job: Job, judge: Judge, chance: random.Random) -> int:
    rows = chance.randint(4100, 6200) if ceiling.bytes < 100 else chance.randint(2100, 4200)
    session = job.database.connect()
    session.execute("DROP TABLE IF EXISTS articles")
    tables.articles(session, rows, gaps=False)
    times = ceiling.bytes // len(ceiling.unit.encode())
    session.execute("UPDATE articles SET body = body || repeat(%s, %s)", (ceiling.unit, times))
    table = Verifier(session)
    job.provider.reset()
    ceiling.set(job)
    most = ("--batch-size", "2048", "--batch-bytes", "8000000")
    done = job.run(*most, "--restart", timeout=120)
    judge.run(done, 0)
    judge.table(table)
    judge.paid_once(job)
    return sum(r.status != 200 for r in job.provider.requests)


COUNTER = token_counter(MODEL)
UNITS = ("copper ", "日本語の文章 ", "🦉🧭 ", "naïve Ωmega ", "مرحبا ")


def text_of_tokens(tokens: int, number: int, unit: str) -> str:
    """A text of exactly so many tokens, as our own counter counts them."""
    text = f"Text {number}: "
    step = max(1, COUNTER(unit * 100) // 100)
    text += unit * max(0, (tokens - COUNTER(text)) // (step + 1))
    while (left := tokens - COUNTER(text)) > 0:
        text += " a" * max(1, left // 2)
    while COUNTER(text) > tokens:
        text = text[:-1]
    assert COUNTER(text) == tokens, (COUNTER(text), tokens, unit)
    return text


@series("too-long", rows=("P11",), short=15, long=300)
def too_long(rounds: int, seed: int) -> Outcome:
    """Texts of 8,191, 8,192 and 8,193 tokens among others, under each policy, and for a model
    whose limit only the provider knows."""
    judge, chance = Judge(seed), random.Random(seed)
    places = chance.sample(range(1, rounds * 10), rounds)
    tokens = {place: LIMIT - 1 + n % 3 for n, place in enumerate(places)}
    texts = {
        place: text_of_tokens(tokens[place], place, UNITS[n // 3 % len(UNITS)])
        for n, place in enumerate(places)
    }
    over = {str(place) for place in places if tokens[place] > LIMIT}
    cut = {texts[int(key)]: COUNTER.truncate(texts[int(key)], LIMIT) for key in over}
    with arena() as job:
        session = job.database.connect()
        tables.articles(session, rounds * 10, gaps=False)
        with session.cursor() as cursor:
            cursor.executemany(
                "UPDATE articles SET body = %s WHERE id = %s",
                [(text, place) for place, text in texts.items()],
            )
        job.provider.intercept = _counting
        _policy(job, session, judge, 3, over, ("--on-too-long", "fail"))
        _policy(job, session, judge, 0, over, ("--on-too-long", "skip"))
        sent = Rows(sent=lambda text: cut.get(text, text))
        _policy(job, session, judge, 0, set(), ("--on-too-long", "truncate"), sent)
        _policy(job, session, judge, 3, over, ("--model", "a-model-of-their-own"))
        refused = sum(r.status == 400 for r in job.provider.requests)
    figures = {
        "long_texts": rounds,
        "over_the_limit": len(over),
        "counter": COUNTER.name,
        "runs": 4,
        "requests_refused_where_only_the_provider_knows": refused,
        "other_rows_failed": 0,
    }
    return Outcome(rounds, figures, tuple(judge.broken))


def _counting(texts: tuple[str, ...]) -> Reply | None:
    """OpenAI's answer to a text of more than 8,192 tokens."""
    longest = max((COUNTER(text) for text in texts if len(text) > 1000), default=0)
    if longest <= LIMIT:
        return None
    message = (
        f"This model's maximum context length is {LIMIT} tokens, however you requested"
        f" {longest} tokens ({longest} in your prompt; 0 for the completion)."
    )
    return Reply(400, openai_error(message))


def _policy(
    job: Job,
    session: Session,
    judge: Judge,
    code: int,
    over: set[str],
    options: tuple[str, ...],
    rows: Rows | None = None,
) -> None:
    session.execute("UPDATE articles SET embedding = NULL")
    table = Verifier(session, rows or Rows())
    job.provider.forget()
    done = job.run(*options, "--restart", timeout=120)
    judge.run(done, code)
    judge.table(table, without=over)
    judge.paid_once(job)
    if code:
        failed = failures(job)
        judge.holds(failed.keys() == over, f"{len(failed)} rows failed instead of {len(over)}")
        codes = Counter(failure["code"] for failure in failed.values())
        judge.holds(set(codes) == {"input_too_long"}, f"failed with {codes}")


@series("silent-truncation", rows=("P20",), short=3, long=60)
def silent_truncation(rounds: int, seed: int) -> Outcome:
    """Servers that read 512 tokens of each text and say so in `usage` only; and honest ones."""
    judge, chance = Judge(seed), random.Random(seed)
    warned = silent = 0
    with arena() as job:
        session = job.database.connect()
        for number in range(rounds):
            reads = (512, 2048, 10**6)[number % 3]
            words = chance.randint(3000, 6000)
            session.execute("DROP TABLE IF EXISTS articles")
            tables.articles(session, 200, gaps=False)
            session.execute(
                "UPDATE articles SET body = body || repeat(' copper', %s) WHERE id %% 20 = %s",
                (words, chance.randrange(20)),
            )
            told = _read_no_more_than(reads, job, session, judge)
            honest = reads > 8192
            judge.holds(told == (not honest), f"P20: reading {reads}, warned {told} times")
            warned, silent = warned + told, silent + (honest and not told)
    figures = {"warned": warned, "honest_servers_not_accused": silent, "counter": COUNTER.name}
    return Outcome(rounds, figures, tuple(judge.broken))


def _read_no_more_than(tokens: int, job: Job, session: Session, judge: Judge) -> int:
    table = Verifier(session)
    job.provider.reset()
    job.provider.intercept, job.provider.mangle = _charging(tokens)
    done = job.run("--restart", "--batch-size", "20")
    judge.run(done, 0)
    judge.table(table)
    return done.stderr.count("code=silent_truncation")


def _charging(
    most: int,
) -> tuple[Callable[[tuple[str, ...]], Reply | None], Callable[[Body], object]]:
    """Counts as the model does, but no more than `most` of each text."""
    charged: dict[str, int] = {}

    def look(texts: tuple[str, ...]) -> None:
        for text in texts:
            charged[text.partition(":")[0]] = min(most, COUNTER(text))
        mine.set(sum(charged[text.partition(":")[0]] for text in texts))

    def mangle(answer: Body) -> object:
        answer["usage"]["prompt_tokens"] = mine.get()
        return answer

    mine = _PerThread()
    return look, mangle


class _PerThread:
    """What one thread of the provider has found out about the request that it is answering."""

    def __init__(self) -> None:
        import threading

        self._local = threading.local()

    def set(self, value: int) -> None:
        self._local.value = value

    def get(self) -> int:
        return int(self._local.value)
