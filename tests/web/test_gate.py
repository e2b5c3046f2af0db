"""What a request has to be before a route sees it."""

from __future__ import annotations

import asyncio
import random
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from embedmigrate.web.gate import MOST_BYTES
from embedmigrate.web.routes import BASE
from tests.web.sites import ADMIN, HOST, VIEWER, Site, bearer, site_of

if TYPE_CHECKING:
    import httpx2
    from fastapi import FastAPI
    from starlette.types import Message

STATUS = f"{BASE}/status"
STOP = f"{BASE}/stop"
READING = (
    STATUS,
    f"{BASE}/stats",
    f"{BASE}/errors",
    "/api/admin/whoami",
    "/metrics",
    "/openapi.json",
)
ACTING = ("generate-all", "generate-one", "stop", "retry-failed", "plan")


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    """In the one shape."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", [*READING, "/events", "/nowhere", f"{BASE}/"])
@pytest.mark.parametrize(
    "token", [None, "", "x", ADMIN[:-1], ADMIN + "x", VIEWER.upper(), ADMIN * 99]
)
def test_nothing_is_said_without_a_right_token(site: Site, path: str, token: str | None) -> None:
    answer = site("GET", path, token=token)
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz"])
def test_what_needs_no_token_holds_nothing_of_this_server(site: Site, path: str) -> None:
    answer = site("GET", path, token=None)
    assert answer.status_code == 200
    for word in ("nowhere", "base_resumes", "nobody", ADMIN):
        assert word not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Basic {ADMIN}"},
        {"authorization": ADMIN},
        {"authorization": f"bearer{ADMIN}"},
        {"cookie": f"token={ADMIN}"},
        {"x-api-key": ADMIN},
    ],
)
def test_a_token_counts_in_one_place_only(site: Site, headers: dict[str, str]) -> None:
    refused(site("GET", STATUS, token=None, headers=headers), 401, "unauthorized")
    refused(site("GET", f"{STATUS}?token={ADMIN}", token=None), 401, "unauthorized")


def test_ten_thousand_wrong_tokens_open_nothing(site: Site) -> None:
    """Nor does any of them change what the right one gets."""
    chance = random.Random(5)
    letters = string.ascii_letters + string.digits + "-_"

    def wrong(number: int) -> str:
        if number % 4 == 0:  # a right one with one character changed
            place = chance.randrange(len(ADMIN))
            return f"{ADMIN[:place]}{'y' if ADMIN[place] != 'y' else 'z'}{ADMIN[place + 1 :]}"
        return "".join(chance.choices(letters, k=chance.choice((1, 31, 32, len(ADMIN), 64, 500))))

    found = asyncio.run(_statuses(site, [wrong(n) for n in range(10_000)]))
    assert set(found) == {401, 429}
    assert found.count(401) == 10
    assert site("GET", STATUS).status_code == 200


async def _statuses(site: Site, tokens: list[str]) -> list[int]:
    """Straight into the application: the client would take most of the time."""
    found = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    for token in tokens:
        headers = [(b"host", HOST.encode()), (b"authorization", f"Bearer {token}".encode())]
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": STATUS,
            "raw_path": STATUS.encode(),
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
        }
        await site.app(scope, receive, send)
    return found


def test_an_address_that_guesses_is_told_to_wait_and_others_are_not(application: FastAPI) -> None:
    now = [1000.0]
    site = site_of(application, clock=lambda: now[0])
    for _ in range(10):
        refused(site("GET", STATUS, token="wrong"), 401, "unauthorized")
    late = site("GET", STATUS, token="wrong")
    refused(late, 429, "too_many_attempts")
    assert 0 < int(late.headers["retry-after"]) <= 60
    refused(site("GET", STATUS, token="wrong", address="10.1.2.3"), 401, "unauthorized")
    now[0] += 61
    refused(site("GET", STATUS, token="wrong"), 401, "unauthorized")


@pytest.mark.parametrize("path", READING[1:])
def test_a_viewer_may_look(site: Site, path: str) -> None:
    """Though the database does not answer, which is a trouble of its own."""
    answer = site("GET", path, token=VIEWER)
    assert answer.status_code in {200, 503}
    assert ADMIN not in answer.text
    assert VIEWER not in answer.text


@pytest.mark.parametrize("action", ACTING)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_viewer_may_do_nothing(site: Site, action: str, method: str) -> None:
    refused(site(method, f"{BASE}/{action}", token=VIEWER, json={}), 403, "role_forbidden")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5001",
        "127.0.0.1:80",
        "127.0.0.1.evil.example:5001",
        "localhost",
    ],
)
@pytest.mark.parametrize("path", [STATUS, "/", "/healthz", "/nowhere"])
def test_another_name_that_leads_here_is_refused(site: Site, host: str, path: str) -> None:
    """DNS rebinding: the browser takes the page of that name for the same site."""
    refused(site("GET", path, host=host), 421, "host_unknown")


def test_names_can_be_added(application: FastAPI) -> None:
    site = site_of(application, allowed=("db.internal", "proxy.example:8443"))
    for host in ("db.internal", "DB.internal:5001", "proxy.example:8443", "localhost:5001"):
        assert site("GET", "/healthz", host=host).status_code == 200
    refused(site("GET", "/healthz", host="proxy.example"), 421, "host_unknown")


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://127.0.0.1:3000", "file://", "http://127.0.0.1"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_other_origins_are_refused(site: Site, origin: str, method: str) -> None:
    answer = site(method, STOP if method == "POST" else STATUS, headers={"origin": origin})
    refused(answer, 403, "origin_forbidden")
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_may_call(site: Site) -> None:
    answer = site("POST", STOP, headers={"origin": f"http://{HOST}"})
    assert answer.json() == {"success": True, "stopped": False, "runId": None}
    assert "access-control-allow-origin" not in answer.headers


def test_an_origin_that_is_named_may_call(application: FastAPI) -> None:
    site = site_of(application, origins=("https://admin.example",))
    origin = {"origin": "https://admin.example"}
    asking = {"access-control-request-method": "POST"}
    preflight = site("OPTIONS", STOP, token=None, headers=origin | asking)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    answer = site("POST", STOP, headers=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://admin.example"
    wrong = site("POST", STOP, headers=origin, token="wrong")
    assert wrong.headers["access-control-allow-origin"] == "https://admin.example"
    assert "access-control-allow-credentials" not in answer.headers
    refused(site("GET", STATUS, headers={"origin": "null"}), 403, "origin_forbidden")


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "json",
    ],
)
def test_only_json_is_read(site: Site, kind: str) -> None:
    """The first three are what a page of another site can send without asking."""
    headers = {"content-type": kind}
    answer = site("POST", f"{BASE}/generate-all", headers=headers, content=b'{"batchSize":1}')
    refused(answer, 415, "media_type_unsupported")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"nul", b"{'a':1}"])
def test_what_is_not_json_is_said_to_be_none(site: Site, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    refused(
        site("POST", f"{BASE}/generate-one", headers=headers, content=content), 400, "json_invalid"
    )


def test_a_large_body_is_refused(site: Site) -> None:
    headers = {"content-type": "application/json"}
    large = b'{"resumeId":"' + b"x" * MOST_BYTES + b'"}'
    refused(
        site("POST", f"{BASE}/generate-one", headers=headers, content=large), 413, "body_too_large"
    )


def test_a_large_body_is_refused_that_does_not_announce_its_length(site: Site) -> None:
    sent = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        sent.append(1000)
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    found = []

    async def send(message: Message) -> None:
        found.append(message.get("status"))

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{BASE}/generate-one",
        "query_string": b"",
        "headers": [(b"host", HOST.encode()), (b"authorization", f"Bearer {ADMIN}".encode())],
        "client": ("127.0.0.1", 1),
    }

    async def ask() -> None:
        await site.app(scope, receive, send)

    asyncio.run(ask())
    assert found[0] == 413
    assert sum(sent) <= MOST_BYTES + 1000


@pytest.mark.parametrize(
    "body",
    [
        {"sql": "DROP TABLE articles"},
        {"where": "true"},
        {"baseUrl": "https://evil.example"},
        {"apiKey": "sk-x"},
        {"table": "other"},
        {"stateDir": "/etc"},
        {"batch_size": 5},
        {"batchSize": 0},
        {"batchSize": 5000},
        {"batchSize": "5"},
        {"batchSize": True},
        {"delayBetweenBatches": -1},
        {"skipExisting": "no"},
        {"resumeFrom": ""},
        {"resumeFrom": 5},
        {"concurrency": "many"},
        {"limit": 0},
        {"maxCost": 0},
        {"retryFailed": "../x"},
        [],
        None,
        "x",
    ],
)
def test_a_run_takes_known_fields_within_their_bounds(site: Site, body: object) -> None:
    refused(site("POST", f"{BASE}/generate-all", json=body), 422, "request_invalid")


def test_what_is_refused_is_not_repeated(site: Site) -> None:
    """A field that does not belong there may hold a secret."""
    answer = site("POST", f"{BASE}/generate-all", json={"limit": "canary-value"})
    assert "canary-value" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_allowed(site: Site, method: str) -> None:
    answer = site(method, STATUS)
    refused(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


def test_what_is_not_there_is_not_found(site: Site) -> None:
    refused(site("GET", "/nowhere"), 404, "not_found")
    refused(site("GET", f"{STATUS}?job=other"), 404, "job_unknown")
    refused(site("GET", f"{BASE}/errors?runId=abcdef"), 404, "report_missing")


def test_a_get_changes_nothing(site: Site) -> None:
    """The state directory is the working directory's; only a run makes it."""
    for path in READING:
        site("GET", path)
    assert list(Path.cwd().iterdir()) == []


def test_every_action_is_on_record_and_no_secret_is(site: Site) -> None:
    site("POST", STOP)
    site("POST", STOP, token=VIEWER)
    site("POST", STOP, token="wrong", address="10.0.0.9")
    site("GET", STATUS)
    listed = [(a.role, a.address, a.status) for a in site.audited]
    assert listed == [
        ("admin", "127.0.0.1", 200),
        ("viewer", "127.0.0.1", 403),
        ("nobody", "10.0.0.9", 401),
    ]
    assert "0123456789" not in str(site.audited)


def test_answers_may_not_be_kept_framed_or_guessed_at(site: Site) -> None:
    for path in ("/", STATUS, "/nowhere"):
        headers = site("GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_headers_of_a_request_are_those_that_were_sent(site: Site) -> None:
    """A proxy's word for the address is not taken: anybody can write it."""
    headers = bearer("wrong") | {"x-forwarded-for": "10.9.9.9"}
    site("POST", STOP, token=None, headers=headers)
    assert site.audited[-1].address == "127.0.0.1"
