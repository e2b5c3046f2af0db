"""No secret survives the redactor, wherever in a string it stands."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate import secrets
from embedmigrate.secrets import hint_of, redact, remember

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "c4n4ry-of-a-secret"

printable = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation)
surroundings = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    before = set(secrets._KNOWN)
    secrets._KNOWN.clear()
    yield
    secrets._KNOWN.clear()
    secrets._KNOWN.update(before)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:secret@db/app", "postgresql://ada:***@db/app"),
        ("postgresql://:secret@db/app", "postgresql://:***@db/app"),
        ("postgresql://ada:se@cr@et@db/app", "postgresql://ada:***@db/app"),
        ("postgresql://ada:se/cr/et@db/app", "postgresql://ada:***@db/app"),
        ("postgresql://ada:se:cret@db/app", "postgresql://ada:***@db/app"),
        ("postgresql://ada:se?cr#et@db/app", "postgresql://ada:***@db/app"),
        ("postgresql://ada:s%40cret@db:5432/app?x=1", "postgresql://ada:***@db:5432/app?x=1"),
        ("http://proxy:secret@10.0.0.1:3128 refused", "http://proxy:***@10.0.0.1:3128 refused"),
        ("host=db password=secret user=ada", "host=db password=*** user=ada"),
        ("host=db password = secret user=ada", "host=db password = *** user=ada"),
        ("host=db password='se cret' user=ada", "host=db password=*** user=ada"),
        (r"host=db password='se\'cr et' user=ada", "host=db password=*** user=ada"),
        ("PASSWORD=secret", "PASSWORD=***"),
        ("Authorization: Bearer secret", "Authorization: Bearer ***"),
        ("authorization: bearer secret", "authorization: bearer ***"),
        ("api-key: secret", "api-key: ***"),
        ("key sk-proj-abc_DEF-0123456789 rejected", "key sk-*** rejected"),
        ("(sk-abcdefgh)", "(sk-***)"),
    ],
)
def test_each_form_of_a_secret_is_masked_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "postgresql://db/app",
        "postgresql://ada@db:5432/app",
        "https://api.openai.com/v1",
        "the password is wrong",
        "no password supplied",
        "task-12345678901",
        "risk-averse",
        "sk-short",
        "12:30:05 row 7 failed",
        "ratio 1:2 at db@host",
    ],
)
def test_ordinary_words_are_left_alone(text: str) -> None:
    assert redact(text) == text


@settings(deadline=None, max_examples=200)
@given(surroundings, surroundings)
def test_a_known_secret_never_survives(before: str, after: str) -> None:
    remember(CANARY)
    assert CANARY not in redact(f"{before}{CANARY}{after}")


@settings(deadline=None, max_examples=200)
@given(printable.filter(lambda p: len(p) >= 4), surroundings)
def test_any_password_that_was_told_is_masked_in_any_place(password: str, around: str) -> None:
    secrets._KNOWN.clear()
    remember(password)
    shown = redact(f"{around} {password} {around}{password}")
    assert password not in shown.replace("***", "\0")


@settings(deadline=None, max_examples=300)
@given(printable, printable)
def test_the_password_of_a_url_is_masked_whatever_its_characters(left: str, right: str) -> None:
    password = f"{left}{CANARY}{right}"
    for text in (
        f"postgresql://ada:{password}@db.example/app",
        f"cannot connect to postgresql://ada:{password}@db.example:5432/app: timeout",
        f"Authorization: Bearer {password}",
    ):
        assert CANARY not in redact(text)


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=string.printable, max_size=15), st.text(string.printable, max_size=15))
def test_the_password_of_a_keyword_string_is_masked_whatever_its_characters(
    left: str, right: str
) -> None:
    quoted = f"{left}{CANARY}{right}".replace("\\", r"\\").replace("'", r"\'")
    shown = redact(f"host=db password='{quoted}' dbname=app")
    assert CANARY not in shown
    assert shown == "host=db password=*** dbname=app"


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=8), surroundings)
def test_an_openai_key_is_masked_although_nobody_told_of_it(key: str, around: str) -> None:
    assert f"sk-{key}" not in redact(f"{around} sk-{key} {around}")


@settings(deadline=None, max_examples=100)
@given(surroundings)
def test_what_has_been_masked_is_not_masked_again(text: str) -> None:
    remember(CANARY)
    once = redact(f"{text} postgresql://a:{CANARY}@b password={CANARY} sk-{CANARY} {text}")
    assert redact(once) == once


def test_a_secret_that_holds_another_is_masked_whole() -> None:
    remember("abcd")
    remember("abcd-efgh")
    assert redact("abcd-efgh abcd") == "*** ***"


@pytest.mark.parametrize("short", [None, "", "a", "abc"])
def test_words_too_short_to_be_secrets_mask_nothing(short: str | None) -> None:
    remember(short)
    assert redact("a word of abc") == "a word of abc"


@pytest.mark.parametrize("key", ["", "short", "sk-0123456789abcdef"])
def test_a_short_key_is_not_hinted_at(key: str) -> None:
    assert hint_of(key) == "***"


def test_a_long_key_is_recognised_by_its_ends() -> None:
    hint = hint_of("sk-proj-0123456789abcdef9xQ2")
    assert hint == "sk-...9xQ2"
    assert "0123" not in hint
