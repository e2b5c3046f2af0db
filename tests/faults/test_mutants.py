"""Each defect that can be switched on is found; without it, the same eyes see nothing."""

import pytest

from tests.faults.detection import MOST_ROUNDS, look_for
from tests.faults.mutants import MUTANTS
from tests.servers import PostgresServer

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_mutant_is_found(name: str, postgres: PostgresServer) -> None:
    number, what = look_for(name, mutated=True, server=postgres)
    assert 1 <= number <= MOST_ROUNDS, f"{name} survived"
    assert what


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_tool_is_not_taken_for_the_mutant(name: str, postgres: PostgresServer) -> None:
    assert look_for(name, mutated=False, server=postgres) == (0, "")
