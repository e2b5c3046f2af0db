"""How many requests may be in flight: a number that the operator gave, or one that is found."""

from math import inf
from statistics import fmean, median

_RECOVERY = 8
"""Clean rounds of requests before one more is let in flight after a 429 lowered the number."""

_ROUND = 8
"""Answers of a round at least: the median of fewer says little."""
_INFLATED = 2.0
"""Times the lowest latency seen, above which requests wait for one another at the provider."""
_NARROWING = 0.7
"""What a refusal leaves, as in CUBIC (RFC 9438); the rate that is learned does the rest."""
_UNTOLD = 5
_UNTOLD_SHARE = 12
"""Where the provider does not say what is left, all that is in flight may be refused at once: no
more than a twelfth of what was answered is risked, half of it in what follows."""
_STALE = 20
"""Inflated rounds after which the lowest latency is measured anew: the texts may have grown."""


class Fixed:
    """Never more than was asked for; halves on a 429, and recovers by one after clean rounds.

    Additive increase, multiplicative decrease, as in TCP (Chiu and Jain, 1989).
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = most
        self._clean = 0

    def succeeded(self) -> None:
        if self.allowed < self.most:
            self._clean += 1
            if self._clean >= self.allowed * _RECOVERY:
                self.allowed += 1
                self._clean = 0

    def limited(self, *, first: bool) -> None:
        """A 429; the `first` one of a cooldown narrows."""
        self._clean = 0
        if first:
            self.allowed = max(1, self.allowed // 2)


class Found:
    """Grows while it pays: while requests wait for a place, latency is low and the writer keeps up.

    Doubles in each round at first, then adds one a round. The latency of a round is compared with
    the lowest one, as TCP Vegas (Brakmo, 1994) and Netflix's concurrency limits do.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = 1
        self._doubling = True
        self._answers = 0
        self._lowest: dict[object, float] = {}
        self._inflated = 0
        self._round: list[tuple[object, float, bool, int]] = []

    def answered(
        self, seconds: float, *, wanted: bool, writing: int, told: bool, job: object = None
    ) -> None:
        """One good answer.

        Args:
            seconds: How long it took.
            job: Whose it was: a latency is compared with those of the same job, whose requests
                are of one size.
            wanted: Somebody waits for a place, and nothing else than the places holds them up.
            writing: Batches on their way into the table.
            told: The provider says how much is left.
        """
        self._answers += 1
        self._round.append((job, seconds, wanted, writing))
        if self._doubling and wanted and writing <= max(1, self.allowed // 2):
            self._grow(told=told)
        if len(self._round) >= max(_ROUND, self.allowed):
            self._judge(told=told)
            self._round.clear()

    def limited(self) -> None:
        self.allowed = max(1, int(self.allowed * _NARROWING))

    def _judge(self, *, told: bool) -> None:
        writing = fmean(writing for _, _, _, writing in self._round)
        wanted = fmean(wanted for _, _, wanted, _ in self._round)
        inflation = self._inflation()
        if inflation > _INFLATED:
            self._relieve(inflation)
        elif writing > max(1, self.allowed):
            self._narrow(self.allowed * _NARROWING)
        elif wanted > 1 / 2 and writing <= max(1, self.allowed // 2) and not self._doubling:
            self._grow(told=told)

    def _inflation(self) -> float:
        """This round's median latency in lowest ones; of several jobs, the mean over answers."""
        took: dict[object, list[float]] = {}
        for job, seconds, _, _ in self._round:
            took.setdefault(job, []).append(seconds)
        ratios = []
        for job, seconds_each in took.items():
            latency = median(seconds_each)
            lowest = self._lowest[job] = min(self._lowest.get(job, inf), latency)
            ratio = latency / lowest if lowest else inf if latency else 1.0
            ratios += [ratio] * len(seconds_each)
        return fmean(ratios)

    def _relieve(self, inflation: float) -> None:
        self._inflated += 1
        if self._inflated < _STALE:
            self._narrow(self.allowed * _INFLATED / inflation + 1)
        else:
            self._inflated = 0
            self._narrow(self.allowed / 2)
            self._lowest.clear()

    def _grow(self, *, told: bool) -> None:
        risked = self.most if told else max(_UNTOLD, self._answers // _UNTOLD_SHARE)
        if self.allowed < min(self.most, risked):
            self.allowed += 1

    def _narrow(self, width: float) -> None:
        self.allowed = max(1, min(self.allowed, int(width)))
        self._doubling = False
