"""What of a row is embedded, and which rows hold nothing to embed."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.postgres.text import BLANK, blank, readable

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_the_blank_characters_are_those_of_isspace_and_the_invisible_marks() -> None:
    spaces = {chr(n) for n in range(sys.maxunicode + 1) if chr(n).isspace()}
    assert set(BLANK) == spaces | set(INVISIBLE)
    assert len(BLANK) == len(set(BLANK))


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.sampled_from(BLANK) | st.sampled_from("aé0."), max_size=8))
def test_a_text_is_blank_when_every_character_is(text: str) -> None:
    assert blank(text) == all(c.isspace() or c in INVISIBLE for c in text)


@pytest.mark.parametrize("text", [".", "0", "\x00", "\u00ad", "👻", "\t a \n"])
def test_a_text_with_one_other_character_is_not_blank(text: str) -> None:
    assert not blank(text)


def test_a_document_is_read_as_lines_of_path_and_value() -> None:
    document = """
    {"name": "Ada Lovelace", "skills": ["mathematics", "engines"],
     "jobs": [{"title": "analyst", "years": 2.50}, {"title": "translator", "open": true}],
     "address": {"city": "London", "zip": null}, "notes": ""}
    """
    assert readable(document).splitlines() == [
        "name: Ada Lovelace",
        "skills: mathematics, engines",
        "jobs title: analyst",
        "jobs years: 2.50",
        "jobs title: translator",
        "jobs open: true",
        "address city: London",
    ]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ('"alone"', "alone"),
        ("7", "7"),
        ("true", "true"),
        ("false", "false"),
        ("null", ""),
        ("{}", ""),
        ("[]", ""),
        ('["a", "b"]', "a, b"),
        ('[["a"], "b", ["c", ["d"]]]', "b\na\nc\nd"),
        ('{"": "x"}', "x"),
        ('{"a": {"": "x"}}', "a: x"),
        ('{"a": ["", null, "  ", "x"]}', "a: x"),
        ('{"a": "  padded\\n"}', "a: padded"),
        ('{"a": "\\u200b"}', ""),
        ('{"b": 1, "a": 2}', "b: 1\na: 2"),
        ('{"a": "two\\nlines"}', "a: two\nlines"),
        ('{"a": 0, "b": false}', "a: 0\nb: false"),
    ],
)
def test_each_kind_of_value_has_its_form(document: str, text: str) -> None:
    assert readable(document) == text


@pytest.mark.parametrize(
    "number",
    ["1.10", "1E5", "-0", "-0.0", "1e-7", "12345678901234567890123", "0.1000000000000000055511"],
)
def test_numbers_keep_their_spelling(number: str) -> None:
    assert readable(f'{{"n": {number}}}') == f"n: {number}"


def test_an_integer_of_many_digits_is_no_error() -> None:
    assert readable("9" * 10_000) == "9" * 10_000


def strings(value: Any) -> list[str]:
    """The values, strings and numbers alike, in the order of the document."""
    if isinstance(value, dict):
        return [s for inner in value.values() for s in strings(inner)]
    if isinstance(value, list):
        return [s for inner in value for s in strings(inner)]
    return [] if value is None or isinstance(value, bool) else [str(value).strip(BLANK)]


@settings(deadline=None, max_examples=200)
@given(documents)
def test_no_value_is_lost(document: Any) -> None:
    text = readable(json.dumps(document))
    for value in strings(document):
        assert value in text


@settings(deadline=None, max_examples=100)
@given(documents, st.randoms(use_true_random=False))
def test_the_text_is_the_same_on_every_run_and_whatever_the_white_space(
    document: Any, order: random.Random
) -> None:
    text = readable(json.dumps(document))
    indent = order.choice([None, 1, "\t"])
    assert readable(json.dumps(document, indent=indent)) == text
    assert readable(json.dumps(document, ensure_ascii=order.random() < 0.5)) == text


@settings(deadline=None, max_examples=150)
@given(documents)
def test_a_document_is_blank_exactly_when_it_has_no_value_to_say(document: Any) -> None:
    def says(value: Any) -> bool:
        match value:
            case dict():
                return any(map(says, value.values()))
            case list():
                return any(map(says, value))
            case None:
                return False
            case str():
                return not blank(value)
            case _:
                return True

    assert blank(readable(json.dumps(document))) == (not says(document))
