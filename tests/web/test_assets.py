"""The files of the page, without a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from embedmigrate.web.assets import assets

if TYPE_CHECKING:
    from tests.web.sites import Site

NAMES = sorted(assets())
_LOADED = re.compile(r'(?:src|href)="page/([^"]+)"|from "\./([^"]+)"')
_MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
)
_INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", re.IGNORECASE
)


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in NAMES)])
def test_the_page_is_served_under_a_strict_policy(site: Site, path: str) -> None:
    answer = site("GET", path, token=None)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    kind = {"js": "text/javascript", "css": "text/css"}.get(path.rpartition(".")[2], "text/html")
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["none.js", "", "..%2fsite.py", "%2e%2e/site.py", "page.css/x"])
def test_nothing_else_is_served(site: Site, name: str) -> None:
    assert site("GET", f"/page/{name}", token=None).status_code == 401
    answer = site("GET", f"/page/{name}")
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_the_page_loads_what_there_is_and_nothing_from_elsewhere() -> None:
    """Every file is used, every file that is named exists, and no other host is."""
    texts = {name: asset.content.decode() for name, asset in assets().items()}
    named = {a or b for text in texts.values() for a, b in _LOADED.findall(text)}
    assert named | {"index.html"} == set(NAMES)
    assert [name for name, text in texts.items() if "://" in text] == []


def test_data_never_becomes_markup() -> None:
    texts = {name: asset.content.decode() for name, asset in assets().items()}
    assert [name for name, text in texts.items() if _MARKUP.search(text)] == []
    assert _INLINE.findall(texts["index.html"]) == []
