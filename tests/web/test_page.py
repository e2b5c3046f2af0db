"""The admin page in a real browser, before a real server, database, provider and job."""

from __future__ import annotations

import contextlib
import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from playwright.sync_api import Browser, expect

from tests import tables
from tests.e2e.jobs import Job, ok
from tests.web.browser import CHROMIUM, AdminPage, chromium
from tests.web.sites import ADMIN, VIEWER, Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tables import Session

    OpenTab: TypeAlias = Callable[..., AdminPage]
    Serve: TypeAlias = Callable[..., Served]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)

TOKENS = {"EMBEDMIGRATE_ADMIN_TOKEN": ADMIN, "EMBEDMIGRATE_VIEWER_TOKEN": VIEWER}
ROWS = 600
SLOW = {"batchSize": "10", "concurrency": "2"}
"""At the latency below some forty rows a second."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def job(job: Job, session: Session) -> Job:
    """Six hundred rows, and a provider that is slow enough to watch."""
    tables.articles(session, ROWS, gaps=False)
    job.provider.latency = 0.5
    return job


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers; a job outlives the server that started it, and is stopped by itself."""
    started: list[tuple[Job, Served]] = []

    def start(job: Job, *words: str) -> Served:
        started.append((job, Served.start(job, TOKENS, *words)))
        return started[-1][1]

    yield start
    for job, server in started:
        job.run(command="stop")
        server.end()


@pytest.fixture
def served(job: Job, serve: Serve) -> Served:
    return serve(job)


@pytest.fixture
def tab(browser: Browser, served: Served) -> Iterator[OpenTab]:
    """Opens the page in a profile of its own."""
    with tabs(browser, served) as open_tab:
        yield open_tab


@contextlib.contextmanager
def tabs(browser: Browser, served: Served) -> Iterator[OpenTab]:
    """In the end none may have complained, or asked another host, or put a token into a URL."""
    opened: list[AdminPage] = []

    def open_tab(token: str | None = ADMIN, **context: Any) -> AdminPage:
        page = browser.new_context(**{"locale": "en-GB", **context}).new_page()
        opened.append(AdminPage(page, served.address))
        if token:
            opened[-1].sign_in(token)
            opened[-1].expect_visible("#panel")
        return opened[-1]

    yield open_tab
    for each in opened:
        each.page.context.close()
    assert [said for each in opened for said in each.complaints] == []
    asked = {url for each in opened for url in each.asked}
    assert all(url.startswith((served.address, "data:")) for url in asked), asked
    assert not any(ADMIN in url or VIEWER in url for url in asked)


def test_signing_in(tab: OpenTab) -> None:
    """A wrong token is refused in words, the right one is kept by this tab and no longer."""
    page = tab(token=None)
    page.expect_visible("#sign-in")
    page.sign_in("wrong")
    page.expect_text("#token-error", "This token is not known here.")
    page.expect_hidden("#panel")
    page.sign_in(ADMIN)
    page.expect_visible("#panel")
    page.expect_text("#coverage", "0.0%")
    page.expect_text("#coverage-rows", "0 of 600 rows with text have their vector")
    page.page.reload()
    page.expect_visible("#panel")
    assert page.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.at("#sign-out").click()
    page.expect_visible("#sign-in")
    page.page.reload()
    page.expect_visible("#sign-in")


def test_start_watch_stop(tab: OpenTab, job: Job, session: Session) -> None:
    """Nothing is sent before the confirmation, the bar moves, and a stop keeps what was stored."""
    page = tab()
    page.expect_state("no run yet")
    page.at("#start").click()
    for name, value in SLOW.items():
        page.at(f"[name={name}]").fill(value)
    page.at("[name=maxCost]").fill("0.00000001")
    page.at("#plan").click()
    page.expect_visible("#plan-checks [data-status=failed]")
    expect(page.at("#confirm-start")).to_be_disabled()
    page.at("[name=maxCost]").fill("")
    page.at("#plan").click()
    page.expect_text("#plan-rows", "600")
    page.expect_text("#plan-time-note", re.compile("60 requests"))
    page.expect_text("#plan-cost", re.compile(r"^\$0\.\d+$"))
    page.expect_text("#confirm-start", "Start: 600 rows")
    page.at("[name=limit]").fill("550")
    expect(page.at("#confirm-start")).to_be_disabled()
    assert job.provider.arrived == 0
    page.at("#plan").click()
    page.expect_text("#confirm-start", "Start: 550 rows")
    page.at("#confirm-start").click()
    page.expect_state("running")
    first = page.wait_for_progress(0)
    assert page.wait_for_progress(first) > first
    page.expect_text("#done-rows", re.compile(r"^\d+ of 550 rows$"))
    page.expect_visible("#chart")
    assert {len(request.texts) for request in job.provider.requests} == {10}
    page.at("#stop").click()
    page.expect_visible("#ask-dialog")
    assert page.at("#state").inner_text() == "running"
    page.confirm()
    page.expect_state("stopped")
    stored = session.execute("SELECT count(embedding) FROM articles").fetchone()
    assert stored
    assert 0 < stored[0] < 550
    page.expect_text("#coverage-rows", f"{stored[0]} of 600 rows with text have their vector")
    page.expect_visible("#start")
    page.page.reload()
    page.expect_state("stopped")
    page.expect_visible("#chart")
    assert page.at("#chart-line").get_attribute("d")
    assert page.at("#chart-before").get_attribute("d") == "", "the past of the run is not known"


def test_the_command_line_and_the_page_see_the_same(tab: OpenTab, job: Job) -> None:
    """A run that the command line began moves the bar, and its stop shows."""
    page = tab()
    page.expect_state("no run yet")
    process = job.start("--batch-size", "10", "--concurrency", "2")
    page.expect_state("running")
    first = page.wait_for_progress(0)
    page.wait_for_progress(first)
    ok(job.run(command="stop"))
    page.expect_state("stopped")
    assert process.wait(10) == 6
    page.expect_visible("#start")
    page.expect_hidden("#stop")


def test_a_failed_row_is_shown_and_retried(tab: OpenTab, job: Job, session: Session) -> None:
    """What failed stands in the table by kind; a retry sends it, and nothing else, again."""
    job.provider.latency = 0.0
    bad = {tables.text_of(7), tables.text_of(300)}
    job.provider.reject = lambda text: text in bad
    page = tab()
    page.start()
    page.expect_state("completed with errors")
    page.expect_text("#failed", "2")
    rows = page.at("#errors tbody tr")
    expect(rows).to_have_count(2)
    assert {row.split("\t")[0] for row in rows.all_inner_texts()} == {"7", "300"}
    kind = rows.first.locator("td").nth(1).inner_text()
    page.at("#kind").select_option(kind)
    expect(rows).to_have_count(2)
    job.provider.reject = None
    job.provider.forget()
    page.at("#retry").click()
    page.expect_text("#ask-text", re.compile("the 2 rows that failed"))
    page.confirm()
    page.expect_state("completed")
    expect(rows).to_have_count(0)
    page.expect_text("#coverage", "100.0%")
    assert set(job.provider.texts_sent) == bad
    left = session.execute("SELECT count(*) FROM articles WHERE embedding IS NULL").fetchone()
    assert left == (0,)


def test_a_viewer_only_looks(tab: OpenTab, job: Job) -> None:
    """A viewer sees the run and no button, and the API refuses what the page does not offer."""
    page = tab(VIEWER)
    page.expect_text("#role", "viewer")
    page.expect_state("no run yet")
    assert page.buttons() == []
    answer = page.page.evaluate(
        """async (token) => {
          const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
          const path = "api/admin/embeddings/generate-all";
          const reply = await fetch(path, { method: "POST", headers, body: "{}" });
          return [reply.status, (await reply.json()).error.code];
        }""",
        VIEWER,
    )
    assert answer == [403, "role_forbidden"]
    process = job.start("--batch-size", "10", "--concurrency", "2")
    page.expect_state("running")
    page.wait_for_progress(0)
    assert page.buttons() == []
    ok(job.run(command="stop"))
    process.wait(10)
    page.expect_state("stopped")
    assert page.buttons() == []
    assert job.sent() < ROWS


def test_the_server_is_restarted(tab: OpenTab, served: Served, serve: Serve, job: Job) -> None:
    """The page says that the connection is lost, and goes on by itself; so does the job."""
    page = tab()
    page.start(**SLOW)
    page.wait_for_progress(0)
    job.provider.latency = 3.0  # or the job is done before there is a server again
    served.end(signal.SIGKILL)
    page.expect_visible("#lost")
    page.expect_text("#lost", "Connection lost, trying again.")
    before = page.progress()
    serve(job, "--port", served.address.rpartition(":")[2])
    page.expect_hidden("#lost")
    page.expect_state("running")
    job.provider.latency = 0.5
    page.wait_for_progress(before)
    ok(job.run(command="stop"))
    page.expect_state("stopped")


def test_by_keyboard_on_a_narrow_screen(tab: OpenTab) -> None:
    """Sign in, open the dialog, leave it: no mouse, and nothing wider than 360 px."""
    page = tab(token=None, viewport={"width": 360, "height": 740})
    keys = page.page.keyboard
    assert page.page.evaluate("document.activeElement.id") == "token"
    keys.type(ADMIN)
    keys.press("Enter")
    page.expect_text("#coverage", "0.0%")
    assert _overflow(page) == 0
    for _ in range(6):
        if page.page.evaluate("document.activeElement.id") == "start":
            break
        keys.press("Tab")
    keys.press("Enter")
    page.expect_visible("#start-dialog")
    assert page.page.evaluate("document.activeElement.name") == "batchSize"
    keys.type("20")
    keys.press("Enter")
    page.expect_text("#confirm-start", "Start: 600 rows")
    page.page.wait_for_function("() => document.activeElement.id === 'confirm-start'")
    assert _overflow(page) == 0
    keys.press("Escape")
    page.expect_hidden("#start-dialog")
    assert page.page.evaluate("document.activeElement.id") == "start"


def _overflow(page: AdminPage) -> int:
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(page.page.evaluate(script))


HOSTILE = "<img src=x onerror=alert(1)>"
JOBS = """
[jobs.articles]
table = "articles"
text_column = "body"

[jobs.notes]
table = "notes"
text_column = "body"
"""


@pytest.fixture
def two_jobs(job: Job, session: Session) -> Job:
    """Beside the articles three notes, one of which has markup for a key."""
    session.execute("CREATE TABLE notes (id text PRIMARY KEY, body text, embedding vector(8))")
    for key in ("a", "b", HOSTILE):
        session.execute("INSERT INTO notes VALUES (%s, %s)", [key, f"text of {key}"])
    (job.cli.folder / "embedmigrate.toml").write_text(JOBS, "utf-8")
    return replace(job, options=())


def test_several_jobs_and_markup_in_a_key(two_jobs: Job, browser: Browser, serve: Serve) -> None:
    """Each job has its own figures; what comes from a table is text, whatever it looks like."""
    two_jobs.provider.latency = 0.0
    two_jobs.provider.reject = lambda text: HOSTILE in text
    with tabs(browser, serve(two_jobs)) as open_tab:
        page = open_tab(locale="de-DE")
        page.at("#job").select_option("articles")
        page.expect_text("#coverage-rows", "0 of 600 rows with text have their vector")
        page.at("#job").select_option("notes")
        page.expect_text("#coverage-rows", "0 of 3 rows with text have their vector")
        page.start()
        page.expect_state("completed with errors")
        page.expect_text("#errors tbody td:first-child", HOSTILE)
        page.expect_text("#coverage", "66,6\u00a0%")
        assert page.at("main img").count() == 0
        page.page.reload()
        page.expect_state("completed with errors")
        page.at("#job").select_option("")  # the default job, whose table is not there
        page.expect_text("#coverage-note", re.compile("base_resumes"))
        page.expect_text("#coverage", "\u2013")
        page.expect_hidden("#errors")
        page.at("#job").select_option("articles")
        page.expect_state("no run yet")
        page.expect_hidden("#errors")
