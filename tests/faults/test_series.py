"""The short form of every series, as CI runs it."""

import importlib
import pkgutil

import pytest

import tests.faults
from tests.faults.series import REGISTRY

for _module in pkgutil.iter_modules(tests.faults.__path__):
    if not _module.name.startswith(("_", "test_", "conftest")):
        importlib.import_module(f"tests.faults.{_module.name}")


@pytest.mark.faults
@pytest.mark.parametrize("name", list(REGISTRY))
def test_the_invariants_hold(name: str) -> None:
    outcome = REGISTRY[name].run(REGISTRY[name].short, 1)
    assert outcome.broken == ()
    assert outcome.rounds > 0
