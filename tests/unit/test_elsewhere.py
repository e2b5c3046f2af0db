"""What travels to another process comes whole, and without a secret."""

from __future__ import annotations

import pickle

import pytest

from embedmigrate.config import load
from embedmigrate.config.elsewhere import portable, variables
from embedmigrate.errors import BadReply, ConfigError, RateLimited, RejectedInput, TargetError
from embedmigrate.secrets import Secret

KEY, URL = "sk-canary-0123456789", "postgresql://me:S3cr3t@db/prod"
ENVIRON = {"OPENAI_API_KEY": KEY, "DATABASE_URL": URL}


def test_a_secret_is_never_pickled() -> None:
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(Secret(KEY))
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(load({}, environ=ENVIRON).settings)


def test_settings_travel_without_secrets_and_find_them_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load({"table": "articles", "rpm": 60.0}, environ=ENVIRON).settings
    packed = pickle.dumps(portable(settings))
    assert KEY.encode() not in packed
    assert b"S3cr3t" not in packed
    for name, value in variables(settings, URL).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EMBEDMIGRATE_TABLE", "another")
    there = pickle.loads(packed).completed().settings  # noqa: S301  our own
    assert there == settings


def test_secrets_that_no_actor_needs_stay_here_as_well() -> None:
    given = ("EMBEDMIGRATE_ADMIN_TOKEN", "EMBEDMIGRATE_VIEWER_TOKEN", "EMBEDMIGRATE_TOKEN")
    tokens = dict.fromkeys(given, "canary-0123456789-0123456789-0123456789")
    tokens["EMBEDMIGRATE_LOCK_DATABASE_URL"] = URL
    packed = pickle.dumps(portable(load({}, environ=ENVIRON | tokens).settings))
    assert b"canary-" not in packed
    assert b"S3cr3t" not in packed


def test_what_a_node_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = portable(load({}, environ=ENVIRON).settings)
    monkeypatch.setenv("DATABASE_URL", URL)
    with pytest.raises(ConfigError, match=r"^OPENAI_API_KEY is not set for the ") as error:
        given.completed()
    assert error.value.code == "actor_lacks_secret"


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slow down", retry_after=2.5, code="rate_limited", status=429),
        RejectedInput("no", code="input_rejected", status=400),
        BadReply("nonsense", code="bad_reply"),
        TargetError("gone", code="target_changed", facts=("a", "b"), hint="look"),
    ],
)
def test_an_error_comes_whole(error: Exception) -> None:
    there = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert type(there) is type(error)
    assert vars(there) == vars(error)
    assert str(there) == str(error)
