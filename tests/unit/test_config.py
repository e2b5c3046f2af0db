"""Each layer yields to the one above it, every problem is named at once, and no secret with it."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmigrate import secrets
from embedmigrate.config import Loaded, Settings, load, load_jobs, options
from embedmigrate.errors import ConfigError, Exit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "c4n4ry-secret"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, empty; nothing is remembered afterwards."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("embedmigrate.config.files._SYSTEM_FILE", tmp_path / "etc.toml")
    before = set(secrets._KNOWN)
    yield here
    secrets._KNOWN.clear()
    secrets._KNOWN.update(before)


def loaded(flags: dict[str, Any] | None = None, **environ: str) -> Loaded:
    return load(flags or {}, environ=environ)


def refused(flags: dict[str, Any] | None = None, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loaded(flags, **environ)
    assert caught.value.exit_code is Exit.USAGE
    return caught.value


def shown(error: ConfigError) -> str:
    return repr((error.message, error.facts, error.hint, error.details, error.args))


def secret(found: Loaded, name: str = "database_url") -> str | None:
    value = getattr(found.settings, name)
    return value.reveal() if value else None


LAYERS = ["flag", "environment", "conventional", "dotenv", "dotenv conventional", "job", "file"]


@pytest.mark.parametrize(
    "given",
    [set(pair) for pair in itertools.combinations(LAYERS, 2)]
    + [{one} for one in LAYERS]
    + [set(LAYERS)],
)
def test_the_highest_layer_that_gives_a_value_wins(folder: Path, given: set[str]) -> None:
    flags: dict[str, Any] = {}
    environ: dict[str, str] = {"PGHOST": "lowest"}
    dotenv = ["# nothing"]
    toml = {"file": "", "job": "[jobs.nightly]\n"}
    for name in given:
        url = f"postgresql://{name.replace(' ', '-')}/app"
        match name:
            case "flag":
                flags["database_url"] = url
            case "environment":
                environ["EMBEDMIGRATE_DATABASE_URL"] = url
            case "conventional":
                environ["DATABASE_URL"] = url
            case "dotenv":
                dotenv.append(f"EMBEDMIGRATE_DATABASE_URL={url}")
            case "dotenv conventional":
                dotenv.append(f"DATABASE_URL={url}")
            case _:
                toml[name] += f'database_url = "{url}"\n'
    (folder / ".env").write_text("\n".join(dotenv))
    (folder / "embedmigrate.toml").write_text(toml["file"] + toml["job"])
    found = loaded(flags | {"job": "nightly"}, **environ)
    winner = next(layer for layer in LAYERS if layer in given).replace(" ", "-")
    assert secret(found) == f"postgresql://{winner}/app"


def test_without_anything_every_setting_has_its_default() -> None:
    found = loaded()
    assert found.settings == Settings()
    assert (found.origins, found.files, found.jobs, found.warnings) == ({}, (), (), ())


def test_the_origin_of_each_value_is_named(folder: Path) -> None:
    (folder / ".env").write_text("EMBEDMIGRATE_RPM=60\nOPENAI_API_KEY=sk-from-dotenv\n")
    (folder / "embedmigrate.toml").write_text('table = "t"\n[jobs.a]\nlimit = 5\n')
    found = loaded({"batch_size": 7, "job": "a"}, EMBEDMIGRATE_TPM="9", DATABASE_URL="dbname=a")
    assert found.origins == {
        "batch_size": "--batch-size",
        "job": "--job",
        "tpm": "environment EMBEDMIGRATE_TPM",
        "database_url": "environment DATABASE_URL",
        "rpm": ".env EMBEDMIGRATE_RPM",
        "api_key": ".env OPENAI_API_KEY",
        "limit": "embedmigrate.toml [jobs.a]",
        "table": "embedmigrate.toml",
    }
    assert found.files == ("embedmigrate.toml", ".env")
    assert found.jobs == ("a",)


def test_empty_variables_are_not_set(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text('table = "t"\n')
    found = loaded(EMBEDMIGRATE_TABLE="", DATABASE_URL="", OPENAI_API_KEY="")
    assert found.settings.table == "t"
    assert found.settings.database_url is None
    assert found.settings.api_key is None


def test_the_first_configuration_file_that_there_is_is_read(folder: Path) -> None:
    home = folder / "home"
    places = [
        folder / "embedmigrate.toml",
        folder / "pyproject.toml",
        home / ".config" / "embedmigrate" / "config.toml",
        folder.parent / "etc.toml",
    ]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "[tool.embedmigrate]\n" if path.name == "pyproject.toml" else ""
        path.write_text(f'{head}table = "{path.name}"\n')
    for path in places:
        found = loaded(HOME=str(home))
        assert found.settings.table == path.name
        path.unlink()
    assert loaded(HOME=str(home)).settings.table == "base_resumes"


def test_a_pyproject_of_another_program_is_passed_over(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.other]\ntable = "x"\n')
    (folder.parent / "etc.toml").write_text('table = "system"\n')
    assert loaded().settings.table == "system"


def test_files_that_are_named_must_be_there(folder: Path) -> None:
    assert refused({"config": "missing.toml"}).code == "config_missing"
    assert refused(EMBEDMIGRATE_CONFIG="missing.toml").code == "config_missing"
    assert refused({"env_file": "missing.env"}).code == "env_file_missing"
    (folder / "other.env").write_text("EMBEDMIGRATE_TABLE=other\n")
    assert loaded({"env_file": "other.env"}).settings.table == "other"


def test_a_value_of_dotenv_is_taken_literally(folder: Path) -> None:
    (folder / ".env").write_text("EMBEDMIGRATE_TABLE='a$HOME'\nHOME=x\n")
    assert loaded().settings.table == "a$HOME"


@pytest.mark.parametrize("content", ["table = ", "table = 'x", "\xff", "[jobs"])
def test_a_file_that_is_not_toml_is_named(folder: Path, content: str) -> None:
    (folder / "embedmigrate.toml").write_bytes(content.encode("latin1"))
    error = refused()
    assert error.code == "config_invalid"
    assert "embedmigrate.toml" in error.message


@pytest.mark.parametrize(
    "content",
    [
        "jobs = 3",
        'jobs = "nightly"',
        "jobs = ['x']",
        "[jobs]\nnightly = 3",
        "job = 3",
        "job = []",
        "provider = [1]",
    ],
)
def test_a_file_of_another_shape_is_refused(folder: Path, content: str) -> None:
    (folder / "embedmigrate.toml").write_text(content + "\n")
    assert refused().message


@pytest.mark.parametrize("content", ["tool = 3", "[tool]\nembedmigrate = 3"])
def test_a_pyproject_of_another_shape_is_no_crash(folder: Path, content: str) -> None:
    (folder / "pyproject.toml").write_text(content + "\n")
    assert loaded().settings == Settings()


def test_a_job_that_is_unknown_is_answered_with_those_there_are(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text("[jobs.a]\n[jobs.b]\n")
    error = refused({"job": "c"})
    assert error.code == "job_unknown"
    assert error.facts == ("It has: a, b.",)
    assert refused(EMBEDMIGRATE_JOB="c").code == "job_unknown"


def test_a_file_may_choose_its_own_job(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text('job = "a"\n[jobs.a]\ntable = "of a"\n')
    assert loaded().settings.table == "of a"


@pytest.mark.parametrize(
    ("key", "near"),
    [("tabel", "table"), ("batchsize", "batch_size"), ("api-key", "api_key"), ("zzzz", None)],
)
def test_an_unknown_key_is_answered_with_the_nearest(
    folder: Path, key: str, near: str | None
) -> None:
    (folder / "embedmigrate.toml").write_text(f"{key} = 1\n")
    error = refused()
    assert error.code == "config_key_unknown"
    assert f'unknown setting "{key}" in embedmigrate.toml' in error.message
    assert (f'did you mean "{near}"?' in error.message) == (near is not None)


def test_every_unknown_key_is_named_in_one_error(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text("tabel = 1\n[jobs.a]\nlimmit = 1\n")
    error = refused({"job": "a"})
    assert error.message == "2 problems"
    assert {fact.split('"')[1] for fact in error.facts} == {"tabel", "limmit"}


def test_every_wrong_value_is_named_in_one_error_with_its_origin(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text("limit = 0\n")
    error = refused({"batch_size": "many"}, EMBEDMIGRATE_PROVIDER="acme", EMBEDMIGRATE_GRACE="soon")
    assert (error.code, error.message) == ("setting_invalid", "4 problems")
    found = "\n".join(error.facts)
    assert "--batch-size 'many' (from --batch-size)" in found
    assert "--provider 'acme' (from environment EMBEDMIGRATE_PROVIDER)" in found
    assert "--grace 'soon' (from environment EMBEDMIGRATE_GRACE)" in found
    assert "--limit 0 (from embedmigrate.toml)" in found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("1.5", 1.5),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86_400),
        ("1m500ms", 60.5),
    ],
)
def test_times_are_read_with_and_without_units(text: str, seconds: float) -> None:
    assert loaded(EMBEDMIGRATE_MAX_DURATION=text).settings.max_duration == pytest.approx(seconds)
    assert loaded({"max_duration": text}).settings.max_duration == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "1x", "h", "1h 30m", "-5s", "-5", "1.2.3s", "..s", "0", "nan", "1w"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert refused({"max_duration": text}).code == "setting_invalid"


def test_numbers_of_a_file_are_seconds(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text("grace = 5\nmax_wait = '1h'\n")
    found = loaded().settings
    assert (found.grace, found.max_wait) == (5, 3600)


@pytest.mark.parametrize(
    ("text", "names"),
    [("a", ("a",)), ("a,b", ("a", "b")), (" a , b ,", ("a", "b"))],
)
def test_lists_are_comma_separated_in_the_environment(text: str, names: tuple[str, ...]) -> None:
    assert loaded(EMBEDMIGRATE_TEXT_COLUMN=text).settings.text_column == names


def test_lists_are_lists_in_a_file(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text('text_column = ["a, b", "c"]\n')
    assert loaded().settings.text_column == ("a, b", "c")


def test_gentle_is_slow_unless_a_flag_says_otherwise(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text("batch_size = 500\nconcurrency = 30\n")
    found = loaded({"gentle": True, "concurrency": 2})
    assert (found.settings.batch_size, found.settings.delay) == (10, 1000)
    assert found.settings.concurrency == 2
    assert found.origins["batch_size"] == "--gentle"


@pytest.mark.parametrize(
    ("text", "batch_size"), [("1", 10), ("true", 10), ("YES", 10), ("0", None), ("false", None)]
)
def test_gentle_may_come_from_the_environment(text: str, batch_size: int | None) -> None:
    assert loaded(EMBEDMIGRATE_GENTLE=text).settings.batch_size == batch_size


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"PGHOST": "db"}, "host='db'"),
        ({"PGDATABASE": "app"}, "dbname='app'"),
        (
            {"PGHOST": "db", "PGPORT": "5433", "PGDATABASE": "app", "PGUSER": "ada"},
            "host='db' port='5433' dbname='app' user='ada'",
        ),
        ({"PGDATABASE": r"it's \ odd"}, r"dbname='it\'s \\ odd'"),
        ({"PGSERVICE": "production", "PGHOST": "db"}, "service='production'"),
        ({"PGPORT": "5433"}, None),
        ({"PGUSER": "ada"}, None),
        ({"PGPASSWORD": CANARY}, None),
        ({}, None),
    ],
)
def test_the_variables_of_libpq_name_a_database(environ: dict[str, str], url: str | None) -> None:
    assert secret(load({}, environ=environ)) == url


def test_a_service_name_is_quoted_as_the_others_are() -> None:
    from psycopg.conninfo import conninfo_to_dict

    url = secret(loaded(PGSERVICE=r"it's \ odd"))
    assert url is not None
    assert conninfo_to_dict(url) == {"service": r"it's \ odd"}


def test_the_variables_of_libpq_may_stand_in_dotenv(folder: Path) -> None:
    (folder / ".env").write_text("PGHOST=from-dotenv\nPGDATABASE=app\n")
    assert secret(loaded()) == "host='from-dotenv' dbname='app'"
    assert secret(loaded(PGHOST="real")) == "host='real' dbname='app'"


@pytest.mark.parametrize(
    ("provider", "key", "url"),
    [("openai", "of openai", "https://openai"), ("azure", "of azure", "https://azure")],
)
def test_each_provider_has_variables_of_its_own(provider: str, key: str, url: str) -> None:
    found = loaded(
        {"provider": provider},
        OPENAI_API_KEY="of openai",
        AZURE_OPENAI_API_KEY="of azure",
        OPENAI_BASE_URL="https://openai",
        AZURE_OPENAI_ENDPOINT="https://azure",
    )
    assert (secret(found, "api_key"), found.settings.base_url) == (key, url)


def test_a_local_provider_takes_no_key(folder: Path) -> None:
    assert loaded({"provider": "local"}, OPENAI_API_KEY="x").settings.api_key is None


def test_secrets_are_read_from_files_without_the_line_end(folder: Path) -> None:
    (folder / "key").write_text("sk-of-a-file\r\n")
    (folder / "url").write_text("postgresql://from-file/app\n")
    found = loaded({"api_key_file": "key", "database_url_file": "url"})
    assert secret(found, "api_key") == "sk-of-a-file"
    assert secret(found) == "postgresql://from-file/app"
    assert (found.origins["api_key"], found.origins["database_url"]) == ("key", "url")


def test_a_key_may_be_the_output_of_a_command() -> None:
    found = loaded({"api_key_command": "echo sk-of-a-$((40 + 2))"})
    assert secret(found, "api_key") == "sk-of-a-42"
    assert found.origins["api_key"] == "--api-key-command"


def test_a_file_named_by_a_flag_wins_over_the_environment(folder: Path) -> None:
    (folder / "key").write_text("sk-of-a-file")
    (folder / "url").write_text("postgresql://from-file/app")
    found = loaded(
        {"api_key_file": "key", "database_url_file": "url"},
        OPENAI_API_KEY="sk-of-the-environment",
        DATABASE_URL="postgresql://environment/app",
        PGHOST="libpq",
    )
    assert secret(found, "api_key") == "sk-of-a-file"
    assert secret(found) == "postgresql://from-file/app"


def test_a_command_named_by_a_flag_wins_over_the_environment() -> None:
    found = loaded({"api_key_command": "echo sk-of-a-command"}, OPENAI_API_KEY="sk-environment")
    assert secret(found, "api_key") == "sk-of-a-command"


def test_the_environment_wins_over_a_file_named_by_the_configuration(folder: Path) -> None:
    (folder / "key").write_text("sk-of-a-file")
    (folder / "embedmigrate.toml").write_text('api_key_file = "key"\n')
    assert secret(loaded(OPENAI_API_KEY="sk-environment"), "api_key") == "sk-environment"


def test_a_command_is_not_run_when_the_key_is_there(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text('api_key_command = "touch ran; echo x"\n')
    assert secret(loaded(OPENAI_API_KEY="sk-environment"), "api_key") == "sk-environment"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "flags",
    [
        {"api_key_file": "missing"},
        {"database_url_file": "missing"},
        {"api_key_file": "."},
        {"api_key_file": "latin1"},
        {"api_key_command": f"echo {CANARY}; echo {CANARY} >&2; exit 3"},
        {"api_key_command": "no-such-command-at-all"},
    ],
)
def test_a_secret_that_cannot_be_read_is_an_error_without_its_content(
    folder: Path, flags: dict[str, str]
) -> None:
    (folder / "latin1").write_bytes(CANARY.encode() + b"\xe9")
    error = refused(flags)
    assert error.code == "secret_unreadable"
    assert CANARY not in shown(error)


@pytest.mark.parametrize("key", ["api_key", "database_url", "lock_database_url"])
@pytest.mark.parametrize("value", [f'["{CANARY}"]', f'{{x = "{CANARY}"}}', "12345678"])
def test_no_error_shows_the_value_of_a_secret(folder: Path, key: str, value: str) -> None:
    (folder / "embedmigrate.toml").write_text(f"{key} = {value}\nlimit = 0\n")
    error = refused()
    assert f"--{key.replace('_', '-')}" in shown(error)
    assert CANARY not in shown(error)
    assert "12345678" not in shown(error)


def test_no_other_error_shows_a_secret_that_was_loaded(folder: Path) -> None:
    error = refused(
        {"limit": 0},
        OPENAI_API_KEY=CANARY,
        DATABASE_URL=f"postgresql://ada:{CANARY}@db/app",
        EMBEDMIGRATE_LOCK_DATABASE_URL=f"postgresql://ada:{CANARY}@db/app",
    )
    assert CANARY not in shown(error)


def test_settings_do_not_show_their_secrets() -> None:
    found = loaded(OPENAI_API_KEY=CANARY, DATABASE_URL=f"postgresql://ada:{CANARY}@db/app")
    assert CANARY not in repr(found)
    assert CANARY not in f"{found.settings} {found.settings.api_key}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:pa%20ss%2Fword@db/app",
        "postgresql://ada:pass@word@db/app",
        "postgresql://ada:pass:word@db/app",
    ],
)
def test_secrets_are_known_to_the_redactor_once_they_are_loaded(url: str) -> None:
    loaded(OPENAI_API_KEY=f" {CANARY} ", DATABASE_URL=url)
    password = url.partition("ada:")[2].rpartition("@")[0]
    from urllib.parse import unquote

    for word in (CANARY, password, unquote(password)):
        assert word not in secrets.redact(f"it said: {word}!")


def test_a_password_on_the_command_line_is_warned_of() -> None:
    (warning,) = loaded({"database_url": f"postgresql://ada:{CANARY}@db/app"}).warnings
    assert "ps" in warning
    assert CANARY not in warning
    assert loaded({"database_url": "postgresql://ada@db/app"}).warnings == ()
    assert loaded(DATABASE_URL=f"postgresql://ada:{CANARY}@db/app").warnings == ()


@pytest.mark.parametrize("table", ["", "[jobs.a]\n"])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_secret_in_a_file_that_others_can_read_is_warned_of(
    folder: Path, table: str, mode: int
) -> None:
    path = folder / "embedmigrate.toml"
    path.write_text(f'{table}api_key = "{CANARY}"\n')
    path.chmod(mode)
    assert any("chmod 600" in w for w in loaded().warnings) == (mode == 0o644)


def test_every_setting_has_a_variable_of_its_own() -> None:
    for key in options():
        name = f"EMBEDMIGRATE_{key.upper()}"
        with_it = {name: "0"}
        try:
            found = load({}, environ=with_it)
        except ConfigError as error:
            told = error.message + " ".join(error.facts)
            assert key.replace("_", "-") in told or "0 cannot be read" in told or key in SELECTORS
        else:
            assert key in found.origins, key


SELECTORS = {"api_key_command", "config", "env_file", "job"}
toml_values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(alphabet="0123456789smhd.,xé -", max_size=6)
    | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=3,
)


@settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(st.sampled_from(sorted(set(options()) - SELECTORS)), toml_values, max_size=3)
)
def test_whatever_a_file_holds_it_is_settings_or_a_list_of_problems(values: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert set(values) <= set(load(values, environ={}).origins)


@pytest.mark.parametrize(("given", "kept"), [("auto", "auto"), ("12", 12), (12, 12)])
def test_concurrency_is_a_number_or_found(given: object, kept: object) -> None:
    assert loaded({}).settings.concurrency == "auto"
    assert loaded({"concurrency": given}).settings.concurrency == kept


@pytest.mark.parametrize("given", ["0", "257", "many", "1.5", ""])
def test_no_other_concurrency_is_taken(given: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded({"concurrency": given})
    assert "--concurrency" in str(raised.value)


JOBS = """
rpm = 300
all_jobs = true
[jobs.a]
table = "a"
resume_from = "17"
[jobs.b]
table = "b"
rpm = 60
"""


def test_each_job_has_settings_of_its_own(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text(JOBS)
    flags = {"batch_size": 7, "retry_failed": "last"}
    jobs = load_jobs(loaded(flags), flags, environ={})
    assert {name: (one.settings.table, one.settings.rpm) for name, one in jobs.items()} == {
        "a": ("a", 300),
        "b": ("b", 60),
    }
    assert {one.settings.batch_size for one in jobs.values()} == {7}
    assert [one.settings.resume_from for one in jobs.values()] == ["17", None]


@pytest.mark.parametrize(
    ("flags", "environ", "dotenv", "named"),
    [
        ({"job": "a"}, {}, "", "--job"),
        ({"where": "true"}, {}, "", "--where"),
        ({"resume_from": "17"}, {}, "", "--resume-from"),
        ({"retry_failed": "abc123"}, {}, "", "--retry-failed"),
        ({}, {"EMBEDMIGRATE_TABLE": "a"}, "", "EMBEDMIGRATE_TABLE"),
        ({}, {}, "EMBEDMIGRATE_VECTOR_COLUMN=v", "EMBEDMIGRATE_VECTOR_COLUMN"),
    ],
)
def test_what_one_job_has_is_refused_for_all(
    folder: Path, flags: dict[str, Any], environ: dict[str, str], dotenv: str, named: str
) -> None:
    """Where it does not come from the file: it would be every job's."""
    (folder / "embedmigrate.toml").write_text(JOBS)
    (folder / ".env").write_text(dotenv)
    with pytest.raises(ConfigError) as caught:
        load_jobs(loaded(flags, **environ), flags, environ=environ)
    assert caught.value.code == "all_jobs_conflict"
    assert named in caught.value.message
    assert "all_jobs (from embedmigrate.toml)" in caught.value.message


def test_actors_are_for_one_job(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text(JOBS.replace("[jobs.", 'executor = "ray"\n[jobs.', 1))
    flags = {"all_jobs": True}
    with pytest.raises(ConfigError) as caught:
        load_jobs(loaded(flags), flags, environ={})
    assert caught.value.code == "all_jobs_conflict"
    assert "--executor ray" in caught.value.message


def test_a_file_without_jobs_has_nothing_for_all() -> None:
    with pytest.raises(ConfigError) as caught:
        load_jobs(loaded({"all_jobs": True}), {"all_jobs": True}, environ={})
    assert caught.value.code == "jobs_missing"
    assert caught.value.message == "--all-jobs: no job in any file"


def test_a_command_for_the_key_is_run_once_for_all_jobs(folder: Path) -> None:
    (folder / "embedmigrate.toml").write_text(JOBS)
    flags = {"api_key_command": f"echo asked >> {folder}/asked; echo sk-of-all"}
    jobs = load_jobs(loaded(flags), flags, environ={})
    assert {secret(one, "api_key") for one in jobs.values()} == {"sk-of-all"}
    assert (folder / "asked").read_text() == "asked\n"
