"""The files of the admin page: the same for everybody, and nothing in them needs a token."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

PREFIX = "/page/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads its own files and asks this server; nothing inline, and nobody else."""
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    kind: str


@functools.cache
def assets() -> Mapping[str, Asset]:
    """By name, read once: what is not in here is not served."""
    folder = files("embedmigrate.web").joinpath("page")
    return {
        file.name: Asset(file.read_bytes(), _KINDS[file.name.rpartition(".")[2]])
        for file in folder.iterdir()
        if file.is_file()
    }
