"""Every pitfall has traps, every trap still fits the source, and names tests that are there."""

import re
from collections import Counter
from pathlib import Path

import pytest
from tests.pitfalls.traps import TRAPS, Trap

import detour

HERE = Path(__file__).parent
SOURCE = Path(detour.__file__).parent
each = pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)


def known_tests() -> set[str]:
    told = "".join(path.read_text("utf-8") for path in HERE.glob("test_*.py"))
    return set(re.findall(r"^def (test_pitfall_\w+)", told, re.MULTILINE))


def test_all_twelve_have_a_trap_and_a_test() -> None:
    assert {trap.pitfall for trap in TRAPS} == set(range(1, 13))
    assert {int(name[13:15]) for name in known_tests()} == set(range(1, 13))
    assert max(Counter(trap.name for trap in TRAPS).values()) == 1


def test_every_test_has_a_trap() -> None:
    assert known_tests() == {test for trap in TRAPS for test in trap.tests}


@each
def test_the_edits_fit_the_source(trap: Trap) -> None:
    for file, before, after in trap.edits:
        assert (SOURCE / file).read_text("utf-8").count(before) == 1, (file, before)
        assert before != after
