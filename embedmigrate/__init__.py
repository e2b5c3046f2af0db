"""Fill pgvector columns in PostgreSQL: fast, resumable, honest about what it did and cost."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """Look the version up when asked: importlib.metadata is slow to import."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("embedmigrate")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
