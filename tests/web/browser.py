"""Debian's Chromium, driven by Playwright, and the admin page in it."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import ConsoleMessage, Request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""It has to run as root, and to leave the network alone."""
PATIENCE = 30
"""Seconds; the machine that tests has other things to do."""
_UNANSWERED = re.compile(r"Failed to load resource|net::ERR_")
"""What Chromium says of any request that is refused or gets no answer."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Headless; its profile goes with it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class AdminPage:
    """One tab; what it complains of and where it sends requests is kept."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.goto(self.url)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _UNANSWERED.search(message.text):
            self.complaints.append(message.text)

    def _on_request(self, request: Request) -> None:
        self.asked.append(request.url)

    def at(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def sign_in(self, token: str) -> None:
        self.at("#token").fill(token)
        self.at("#token").press("Enter")

    def expect_text(
        self, selector: str, text: str | re.Pattern[str], seconds: float = PATIENCE
    ) -> None:
        """Within so long; a string is the whole text."""
        expect(self.at(selector)).to_have_text(text, timeout=seconds * 1000)

    def expect_state(self, word: str, seconds: float = PATIENCE) -> None:
        self.expect_text("#state", word, seconds)

    def expect_visible(self, selector: str, seconds: float = PATIENCE) -> None:
        expect(self.at(selector)).to_be_visible(timeout=seconds * 1000)

    def expect_hidden(self, selector: str, seconds: float = PATIENCE) -> None:
        expect(self.at(selector)).to_be_hidden(timeout=seconds * 1000)

    def progress(self) -> float:
        """What the bar of the run shows, from 0 to 1."""
        return float(self.at("#run-bar").evaluate("bar => bar.value"))

    def wait_for_progress(self, above: float, seconds: float = PATIENCE) -> float:
        self.page.wait_for_function(
            "above => document.getElementById('run-bar').value > above",
            arg=above,
            timeout=seconds * 1000,
        )
        return self.progress()

    def buttons(self) -> list[str]:
        """Those that can be seen."""
        return [each.inner_text() for each in self.at("button:visible").all()]

    def start(self, **options: str) -> None:
        """Through the dialog: options, preview, confirm."""
        self.at("#start").click()
        for name, value in options.items():
            self.at(f"#start-form [name={name}]").fill(value)
        self.at("#plan").click()
        expect(self.at("#confirm-start")).to_be_enabled(timeout=PATIENCE * 1000)
        self.at("#confirm-start").click()
        self.expect_hidden("#start-dialog")

    def confirm(self) -> None:
        """Says yes to the question that is open."""
        self.at("#ask-yes").click()
        self.expect_hidden("#ask-dialog")
