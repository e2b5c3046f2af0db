"""What `init` found, as the text of embedmigrate.toml."""

import json
import re
from typing import Any

from embedmigrate.app.values import Proposal, Setup

_HEAD = """\
# Written by embedmigrate init. Every setting: embedmigrate config show
#
# No secret belongs in here. The database URL stays in the environment: DATABASE_URL, or PGHOST,
# PGUSER and PGDATABASE, with the password in ~/.pgpass; so does the provider's key, OPENAI_API_KEY.
"""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def document(found: Setup) -> str:
    return "\n".join([_HEAD, *(_job(job) for job in found.jobs)])


def key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _job(job: Proposal) -> str:
    lines = [f"[jobs.{key(job.name)}]"]
    lines += [f"# {_one_line(f'{label}: {value}')}" for label, value in job.found.items()]
    lines += [f"# cannot run yet: {_one_line(problem)}" for problem in job.problems]
    lines += [f"{key(name)} = {_value(value)}" for name, value in job.settings.items()]
    lines += [f"# {_one_line(note)}" for note in job.notes]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A basic string: JSON escapes the same way, but for the one control character above."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def _one_line(text: str) -> str:
    return _CONTROL.sub(" ", text)
