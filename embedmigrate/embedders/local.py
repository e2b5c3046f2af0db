"""Models that run in this process, on files that are here already: nothing is downloaded."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from embedmigrate.engine.model import Embedded
from embedmigrate.errors import ConfigError, ProviderError, RejectedInput

if TYPE_CHECKING:
    from embedmigrate.engine.ports import Embedder
    from embedmigrate.engine.vectors import Vectors

DEFAULT = "wordllama"


def open_local(model: str | None) -> "Embedder":
    """WordLlama, or the sentence-transformers model in a folder.

    Raises:
        ConfigError: The library is not installed, or the folder holds no model.
    """
    if model in {None, DEFAULT}:
        return WordLlamaEmbedder()
    folder = Path(model or "").expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"local model {model}: there is no such folder",
            code="model_not_found",
            facts=("A local model is a folder that sentence-transformers has saved.",),
            hint="--provider local --model wordllama   (installed with the extra `local`)",
        )
    return SentenceTransformerEmbedder(folder)


class _LocalEmbedder(ABC):
    """Runs the model in one thread, so that neither the event loop nor another call waits in it."""

    dimensions: int

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="local-model")

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Unit vectors, and the model's own tokens where it counts them."""
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts))
        try:
            return await work
        except UnicodeEncodeError:
            message = "the text is not valid Unicode"
            raise RejectedInput(message, code="input_not_unicode") from None
        except Exception as error:
            raise ProviderError(
                f"the local model failed: {type(error).__name__}: {error}",
                code="local_model_failed",
                hint="a smaller --batch-size needs less memory",
            ) from error

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    @abstractmethod
    def _embed(self, texts: list[str]) -> Embedded: ...


class WordLlamaEmbedder(_LocalEmbedder):
    """The 256-dimension model in WordLlama's wheel: the mean of static token vectors."""

    dimensions = 256

    def __init__(self) -> None:
        super().__init__()
        try:
            with _root_logger_as_it_was():
                import wordllama  # noqa: PLC0415
        except ImportError as error:
            raise _missing("wordllama", 'pip install "embedmigrate[local]"') from error
        # WordLlama looks for its tokenizer in a folder that its wheel does not have; through the
        # cache's name it finds the one that is there.
        package = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
        self._table = model.embedding
        self._tokenizer = model.tokenizer
        self._tokenizer.no_padding()

    def _embed(self, texts: list[str]) -> Embedded:
        """Not `model.embed`: that pads 64 texts to the longest, gigabytes for one of a megabyte."""
        import numpy as np  # noqa: PLC0415

        for text in texts:
            text.encode()  # the tokenizer calls a lone surrogate a TypeError
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for vector, encoding in zip(vectors, encodings, strict=True):
            tokens, counts = np.unique(np.asarray(encoding.ids, np.intp), return_counts=True)
            vector[:] = counts.astype(np.float32) @ self._table[tokens]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms, norms, 1)
        return Embedded(vectors, sum(len(encoding.ids) for encoding in encodings))


class SentenceTransformerEmbedder(_LocalEmbedder):
    """A model that sentence-transformers has saved in a folder; it cuts texts to its own length."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        except ImportError as error:
            raise _missing("sentence-transformers", "pip install sentence-transformers") from error
        try:
            self._model = SentenceTransformer(str(folder), local_files_only=True)
            self.dimensions = self._encode(["width"]).shape[1]
        except Exception as error:
            raise ConfigError(
                f"local model {folder} cannot be loaded: {type(error).__name__}: {error}",
                code="model_not_found",
                hint="--provider local --model wordllama",
            ) from error

    def _embed(self, texts: list[str]) -> Embedded:
        return Embedded(self._encode(texts), 0)

    def _encode(self, texts: list[str]) -> "Vectors":
        import numpy as np  # noqa: PLC0415

        vectors = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.ascontiguousarray(vectors, np.float32)


def _missing(package: str, command: str) -> ConfigError:
    message = f"the local model needs {package}, which is not installed"
    return ConfigError(message, code="extra_missing", hint=command)


@contextmanager
def _root_logger_as_it_was() -> Iterator[None]:
    """WordLlama sends every INFO message of the process to stderr from its import on."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
