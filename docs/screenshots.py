"""Makes the pictures of the admin page in `docs/images`: a real server, job and browser.

`python docs/screenshots.py` takes about two minutes. The rows come from a seed; Chromium has to be
there (`apt-get install chromium`).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import tables  # noqa: E402  found by the line above
from tests.conftest import CommandLine  # noqa: E402
from tests.e2e.jobs import Job, ok  # noqa: E402
from tests.provider import FAILURES, Provider, Reply  # noqa: E402
from tests.servers import Database, PostgresServer  # noqa: E402
from tests.web.browser import AdminPage, chromium  # noqa: E402
from tests.web.sites import ADMIN, Served  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).with_name("images")
_ROWS = 60_000
_DONE_BEFORE = 16_000
_DIMENSIONS = 64
_WIDE = (1000, 820)
_NARROW = (360, 760)


def main() -> None:
    """Write all of them."""
    IMAGES.mkdir(exist_ok=True)
    server = PostgresServer.start()
    try:
        server.create_database("prod")
        with tempfile.TemporaryDirectory() as folder, Provider() as provider:
            database = Database("prod", server.dsn("prod"), server)
            job = Job(CommandLine(Path(folder)), database, provider, (), _DIMENSIONS)
            try:
                _fill(job)
                _take(job)
            finally:
                job.run(command="stop")
                job.cli.kill_all()
                database.disconnect()
    finally:
        server.stop()


def _fill(job: Job) -> None:
    """A table of which a part is done; a few rows of the rest will fail."""
    session = job.database.connect()
    session.execute("CREATE EXTENSION vector")
    tables.base_resumes(session, _ROWS, width=_DIMENSIONS)
    job.provider.recording = False
    ok(job.run("--limit", str(_DONE_BEFORE), "--batch-size", "512"))
    document = json.dumps({"title": "Translator", "summary": "river copper lantern " * 4000})
    session.execute(
        "UPDATE base_resumes SET data = %s WHERE id = (SELECT id FROM base_resumes"
        " WHERE embedding IS NULL ORDER BY id OFFSET 9000 LIMIT 1)",
        [document],
    )


def _take(job: Job) -> None:
    job.provider.latency = 0.5
    job.provider.reject = lambda text: "Children's Clinic" in text and len(text) % 1499 == 0
    served = Served.start(job, {"EMBEDMIGRATE_ADMIN_TOKEN": ADMIN})
    with chromium() as browser:
        wide = _open(browser, served, _WIDE)
        _options(wide)
        _save(wide, "admin-page-start", whole=False)
        wide.at("#confirm-start").click()
        time.sleep(24)
        _refuse_for(job.provider, seconds=4)
        time.sleep(20)
        _save(wide, "admin-page")
        wide.page.set_viewport_size(_size(_NARROW))
        _save(wide, "admin-page-narrow")
        wide.page.set_viewport_size(_size(_WIDE))
        wide.expect_state("completed with errors", 180)
        wide.page.emulate_media(color_scheme="dark")
        wide.expect_text("#coverage", "99.9%")
        wide.expect_visible("#retry")
        _save(wide, "admin-page-dark")
    served.end()


def _open(browser: Browser, served: Served, size: tuple[int, int]) -> AdminPage:
    page = browser.new_context(
        locale="en-GB", viewport=_size(size), reduced_motion="reduce"
    ).new_page()
    opened = AdminPage(page, served.address)
    opened.sign_in(ADMIN)
    opened.expect_text("#errors-note", "No row failed in the last run.")
    return opened


def _options(page: AdminPage) -> None:
    page.at("#start").click()
    for name, value in {"batchSize": "32", "concurrency": "8", "maxCost": "1"}.items():
        page.at(f"[name={name}]").fill(value)
    page.at("#plan").click()
    page.expect_text("#confirm-start", re.compile("rows"))


def _refuse_for(provider: Provider, seconds: float) -> None:
    """As a provider does whose limit is reached."""
    headers = {"retry-after": "3"}
    provider.intercept = lambda _texts: Reply(429, FAILURES[429], headers)
    time.sleep(seconds)
    provider.intercept = None


def _save(page: AdminPage, name: str, *, whole: bool = True) -> None:
    path = IMAGES / f"{name}.png"
    page.page.screenshot(path=path, full_page=whole, animations="disabled")
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def _size(size: tuple[int, int]) -> Any:
    return {"width": size[0], "height": size[1]}


if __name__ == "__main__":
    main()
