"""Rows → batches: cut by rows, by UTF-8 bytes and by tokens; rows too long are told apart here."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from embedmigrate.engine.model import Batch, CountTokens, Failure, Key, Limits, Row


class OnTooLong(StrEnum):
    FAIL = "fail"
    TRUNCATE = "truncate"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Intake:
    """Counts a row's tokens and applies the policy for texts above the model's limit.

    Where the count is only an estimate (`exact` is false) no row is failed on its word: the
    provider decides, and its refusal is isolated by halving.
    """

    count: CountTokens
    truncate: Callable[[str, int], str]
    exact: bool
    policy: OnTooLong = OnTooLong.FAIL

    def admit(self, row: Row, limit: int | None) -> Row | Failure:
        tokens = self.count(row.text)
        if limit is None or tokens <= limit:
            return row._replace(tokens=tokens)
        if self.policy is OnTooLong.TRUNCATE:
            text = self.truncate(row.text, limit)
            return row._replace(text=text, tokens=self.count(text))
        if self.policy is OnTooLong.FAIL and not self.exact:
            return row._replace(tokens=tokens)
        return Failure(
            row.key,
            "input_too_long",
            f"{'' if self.exact else 'about '}{tokens} tokens, model limit {limit}",
            attempts=0,
            skipped=self.policy is OnTooLong.SKIP,
        )


class _Cut:
    """The batch that is being filled."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.refused: list[Failure] = []
        self.bytes = 0
        self.tokens = 0
        self.last: Key | None = None

    def fits(self, row: Row, size: int, limits: Limits) -> bool:
        return not self.rows or (
            len(self.rows) < limits.rows
            and self.bytes + size <= limits.bytes
            and self.tokens + row.tokens <= limits.tokens
        )

    def add(self, row: Row, size: int) -> None:
        self.rows.append(row)
        self.bytes += size
        self.tokens += row.tokens

    def batch(self, numbers: Iterator[int], *, force: bool) -> Batch:
        if self.last is None:
            raise ValueError("an empty batch has no last key")
        rows, refused = tuple(self.rows), tuple(self.refused)
        return Batch(next(numbers), rows, self.last, refused, force)


async def batches(
    rows: AsyncIterator[Row],
    limits: Callable[[], Limits],
    intake: Intake,
    numbers: Iterator[int],
    *,
    force: bool = False,
) -> AsyncIterator[Batch]:
    """Cut `rows` into batches that respect the limits as they are at that moment.

    A single text above the byte or token limit of a request travels alone: only the provider
    can say whether it takes it. Refused rows ride along, so that the cursor passes them in order.
    """
    cut = _Cut()
    async for row in rows:
        now = limits()
        admitted = intake.admit(row, now.text_tokens)
        if isinstance(admitted, Failure):
            cut.refused.append(admitted)
        else:
            size = len(admitted.text.encode("utf-8", "surrogatepass"))
            if not cut.fits(admitted, size, now):
                yield cut.batch(numbers, force=force)
                cut = _Cut()
            cut.add(admitted, size)
        cut.last = row.key
        if len(cut.rows) >= now.rows or len(cut.refused) >= now.rows:
            yield cut.batch(numbers, force=force)
            cut = _Cut()
    if cut.last is not None:
        yield cut.batch(numbers, force=force)
