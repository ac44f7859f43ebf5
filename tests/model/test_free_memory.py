"""What is free, as the kernel and a container tell it."""

from pathlib import Path

import pytest
import torch

from detour.model import free_memory as told
from detour.model.free_memory import free_memory

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   500 kB\n")
    monkeypatch.setattr(told, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(told, "CGROUP", tmp_path)
    return tmp_path


def test_what_the_kernel_says(machine: Path) -> None:
    assert free_memory(CPU) == 500 * 1024


@pytest.mark.parametrize(
    ("limit", "taken", "free"),
    [
        ("max", "5", 512000),
        ("300000", "100000", 200000),
        ("100", "200", 0),
        ("900000", "1", 512000),
    ],
)
def test_a_containers_limit(machine: Path, limit: str, taken: str, free: int) -> None:
    (machine / "memory.max").write_text(limit)
    (machine / "memory.current").write_text(taken)
    assert free_memory(CPU) == free


def test_pages_of_files_are_let_go(machine: Path) -> None:
    (machine / "memory.max").write_text("300000")
    (machine / "memory.current").write_text("290000")
    (machine / "memory.stat").write_text("anon 90000\ninactive_file 200000\nslab 5\n")
    assert free_memory(CPU) == 210000


def test_nobody_tells(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert free_memory(CPU) is None
