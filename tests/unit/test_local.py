"""Models that run in this process give what the column takes, and say what is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedmigrate.embedders.fake import HashEmbedder
from embedmigrate.embedders.local import (
    SentenceTransformerEmbedder,
    WordLlamaEmbedder,
    open_local,
)
from embedmigrate.errors import ConfigError, ProviderError, RejectedInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from embedmigrate.engine.model import Embedded
    from embedmigrate.engine.ports import Embedder
    from embedmigrate.engine.vectors import Vectors


def embed(embedder: Embedder, *texts: str) -> Embedded:
    return asyncio.run(embedder.embed(texts))


@pytest.fixture(scope="module")
def wordllama() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


@pytest.fixture(params=["wordllama", "hash"])
def embedder(request: pytest.FixtureRequest, wordllama: WordLlamaEmbedder) -> Embedder:
    return wordllama if request.param == "wordllama" else HashEmbedder(1536)


def test_vectors_have_the_shape_that_the_column_takes(embedder: Embedder) -> None:
    embedded = embed(embedder, "a nurse", "a cook", "a nurse")
    vectors = embedded.vectors
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, embedder.dimensions)
    assert vectors.flags.c_contiguous
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])
    assert embedded.tokens > 0


def test_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    alone = embed(embedder, "a nurse").vectors[0]
    among = embed(embedder, "a cook of many words " * 50, "a nurse", "x").vectors[1]
    assert np.array_equal(alone, among)


def test_nothing_gives_nothing(embedder: Embedder) -> None:
    embedded = embed(embedder)
    assert embedded.vectors.shape == (0, embedder.dimensions)
    assert embedded.tokens == 0


def test_hash_vectors_are_the_same_everywhere() -> None:
    vector = embed(HashEmbedder(4), "a nurse").vectors[0]
    assert vector == pytest.approx([-0.170458, 0.571551, 0.517783, 0.613330], abs=1e-5)
    assert embed(HashEmbedder(4), "12345678").tokens == 2


def test_hash_vectors_of_different_texts_are_far_apart() -> None:
    vectors = embed(HashEmbedder(1536), *(str(number) for number in range(200))).vectors
    similar = vectors @ vectors.T - np.eye(200, dtype=np.float32)
    assert np.abs(similar).max() < 0.2


def test_wordllama_knows_meaning(wordllama: WordLlamaEmbedder) -> None:
    vectors = embed(wordllama, "a doctor in a hospital", "a nurse", "a roof of tiles").vectors
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_wordllama_agrees_with_its_library(wordllama: WordLlamaEmbedder) -> None:
    from pathlib import Path

    import wordllama as library

    package = Path(library.__file__).parent
    model = library.WordLlama.load(cache_dir=package, disable_download=True)
    texts = ["a nurse", "a cook of many words " * 9, "東京 naïve <s> 😀"]
    expected = model.embed(texts, norm=True)
    assert np.allclose(embed(wordllama, *texts).vectors, expected, atol=1e-5)


def test_wordllama_takes_texts_of_a_megabyte(wordllama: WordLlamaEmbedder) -> None:
    embedded = embed(wordllama, "x" * 1_000_000, *["a nurse"] * 63)
    assert embedded.vectors.shape == (64, 256)
    assert np.isfinite(embedded.vectors).all()


def test_an_empty_text_gives_zeros_instead_of_warnings(wordllama: WordLlamaEmbedder) -> None:
    assert not embed(wordllama, "").vectors.any()


def test_what_is_not_unicode_is_refused(wordllama: WordLlamaEmbedder) -> None:
    with pytest.raises(RejectedInput) as caught:
        embed(wordllama, "fine", "a \ud800 b")
    assert caught.value.code == "input_not_unicode"


def test_the_event_loop_goes_on_while_the_model_works(wordllama: WordLlamaEmbedder) -> None:
    async def both() -> int:
        work = asyncio.create_task(wordllama.embed(["a nurse who works at night " * 20] * 2000))
        turns = 0
        while not work.done():
            await asyncio.sleep(0.001)
            turns += 1
        await work
        return turns

    assert asyncio.run(both()) > 20


def test_closing_ends_the_thread() -> None:
    async def life() -> None:
        embedder = WordLlamaEmbedder()
        await embedder.embed(["a nurse"])
        await embedder.aclose()

    before = threading.active_count()
    asyncio.run(life())
    for thread in threading.enumerate():
        if thread.name.startswith("local-model") and threading.active_count() > before:
            thread.join(5)
    assert threading.active_count() <= before


def test_loading_is_silent_and_leaves_logging_alone() -> None:
    code = (
        "import logging; from embedmigrate.embedders.local import open_local; open_local(None); "
        "root = logging.getLogger(); assert not root.handlers; assert root.level == logging.WARNING"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_module_is_light() -> None:
    code = (
        "import sys, embedmigrate.embedders.local, embedmigrate.embedders.fake; "
        "print({'numpy', 'wordllama', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("model", [None, "wordllama"])
def test_the_default_is_wordllama(model: str | None) -> None:
    assert isinstance(open_local(model), WordLlamaEmbedder)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no such folder") as caught:
        open_local("/nowhere/bge-small")
    assert caught.value.code == "model_not_found"
    assert caught.value.hint


def test_wordllama_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ConfigError) as caught:
        open_local(None)
    assert caught.value.code == "extra_missing"
    assert caught.value.hint == 'pip install "embedmigrate[local]"'
    assert logging.getLogger().level == logging.WARNING


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="it is installed"
)
def test_sentence_transformers_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_local(str(tmp_path))
    assert caught.value.code == "extra_missing"
    assert caught.value.hint == "pip install sentence-transformers"


class StandIn:
    """What `SentenceTransformer` looks like from here; the real one brings two gigabytes."""

    def __init__(self, path: str, *, local_files_only: bool) -> None:
        assert local_files_only
        if not path.endswith("good"):
            raise OSError("no modules.json")

    def encode(
        self, texts: Sequence[str], *, normalize_embeddings: bool, show_progress_bar: bool
    ) -> Vectors:
        assert normalize_embeddings
        assert not show_progress_bar
        if "too much" in texts:
            raise RuntimeError("out of memory")
        return np.full((5, len(texts)), 0.5, np.float32).T


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    (tmp_path / "good").mkdir()
    return tmp_path


def test_a_folder_is_opened_by_sentence_transformers(stand_in: Path) -> None:
    embedder = open_local(str(stand_in / "good"))
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert embedder.dimensions == 5
    vectors = embed(embedder, "one", "two").vectors
    assert vectors.shape == (2, 5)
    assert vectors.flags.c_contiguous


def test_a_folder_without_a_model(stand_in: Path) -> None:
    with pytest.raises(ConfigError, match=r"modules\.json") as caught:
        open_local(str(stand_in))
    assert caught.value.code == "model_not_found"


def test_a_model_that_fails_raises_a_providers_error(stand_in: Path) -> None:
    embedder = open_local(str(stand_in / "good"))
    with pytest.raises(ProviderError, match="out of memory") as caught:
        embed(embedder, "too much")
    assert caught.value.code == "local_model_failed"
