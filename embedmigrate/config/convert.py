"""The words of a flag, a variable or a file → the value of a setting.

Not by pydantic-settings: importing it would take most of the time in which `status` has to
answer (docs/decisions/0003-one-settings-class.md).
"""

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from embedmigrate.config.settings import CountOrAuto, Setting
from embedmigrate.secrets import Secret

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TRUTH = {"1": True, "true": True, "yes": True, "on": True}
_TRUTH |= {"0": False, "false": False, "no": False, "off": False}


def convert(setting: Setting, value: Any) -> Any:
    """`value` in the setting's own type, within its bounds.

    Raises:
        ValueError: What it must be instead; the value itself is not quoted.
    """
    kind = setting.kind
    if kind is bool:
        return _truth(value)
    if kind in {int, float, CountOrAuto}:
        return _bounded(setting, _duration(value) if setting.option.duration else value)
    if get_origin(kind) is tuple:
        return _names(value)
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind))
    if isinstance(value, Path | Secret) and isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004  whoever calls collects one kind of error
    return kind(value)


def _truth(value: Any) -> bool:
    found = _TRUTH.get(str(value).lower())
    if found is None:
        raise ValueError("must be true or false")
    return found


def _bounded(setting: Setting, value: Any) -> float | str:
    if setting.kind == CountOrAuto and value == "auto":
        return "auto"
    number, option = _number(value, whole=setting.kind is not float), setting.option
    if option.ge is not None and number < option.ge:
        raise ValueError(f"must be at least {option.ge}")
    if option.gt is not None and number <= option.gt:
        raise ValueError(f"must be above {option.gt}")
    if option.le is not None and number > option.le:
        raise ValueError(f"must be at most {option.le}")
    return number


def _number(value: Any, *, whole: bool) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    words = value.strip().replace("_", "") if isinstance(value, str) else ""
    pattern = r"[+-]?\d+" if whole else r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
    if not re.fullmatch(pattern, words, re.ASCII | re.IGNORECASE):
        raise ValueError("must be a whole number" if whole else "must be a number")
    return int(words) if whole else float(words)


def _duration(value: Any) -> Any:
    """`1.5s`, `500ms`, `10m`, `2h` or `1h30m` as seconds; a bare number is seconds already."""
    if not isinstance(value, str) or not re.search("[a-z]", value):
        return value
    parts = re.findall(r"(\d+\.?\d*)(ms|s|m|h|d)", value)
    if "".join(number + unit for number, unit in parts) != value:
        raise ValueError("must be a time such as 30s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _names(value: Any) -> tuple[str, ...]:
    """A list; or a single string of the environment, comma-separated."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError("must be a list of names")


def _choice(value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}")
    return str(value)
