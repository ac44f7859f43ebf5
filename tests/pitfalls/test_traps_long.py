"""Put every trap back, in a copy of the source, and see its tests fail: they can."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pitfalls.traps import TRAPS, Trap

import detour

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
SOURCE = Path(detour.__file__).parent


def copy_of_source(folder: Path, trap: Trap) -> Path:
    """All files as links, but for those that the trap changes."""
    for file in SOURCE.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            link = folder / "detour" / file.relative_to(SOURCE)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    for name, before, after in trap.edits:
        changed = folder / "detour" / name
        told = changed.read_text("utf-8")
        changed.unlink()
        changed.write_text(told.replace(before, after), "utf-8")
    return folder


def outcome(source: Path, tests: tuple[str, ...]) -> str:
    """What pytest says of these tests, run on that source."""
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "--tb=no",
         "tests/pitfalls", "-k", " or ".join(tests)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return told.stdout + told.stderr


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_trap_is_seen(trap: Trap, tmp_path: Path) -> None:
    told = outcome(copy_of_source(tmp_path, trap), trap.tests)
    failed = set(re.findall(r"^FAILED \S+::(test_pitfall_\w+)", told, re.MULTILINE))
    assert failed == set(trap.tests), told


def test_without_a_trap_nothing_fails(tmp_path: Path) -> None:
    """The copy itself is no reason to fail."""
    none = Trap(0, "nothing", ("test_pitfall_02", "test_pitfall_09", "test_pitfall_12"), ())
    told = outcome(copy_of_source(tmp_path, none), none.tests)
    assert "FAILED" not in told
    assert re.search(r"\d+ passed|\[100%\]", told), told
