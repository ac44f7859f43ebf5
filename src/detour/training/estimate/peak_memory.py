"""The most memory that something takes, above what was taken before it.

On a GPU torch counts what it allocates. On a CPU Linux counts the pages that are really there
(proc(5): VmHWM, begun anew by writing 5 to clear_refs). Knows devices; knows no models.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Begins to look when it is made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before: int | None = torch.cuda.memory_allocated(device)
        else:
            self._before = _pages("VmRSS") if _begun_anew() else None

    def above(self) -> int | None:
        """Bytes; None where the operating system does not tell."""
        if self._before is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        most = _pages("VmHWM")
        return None if most is None else max(0, most - self._before)  # its counters lag a little


def _begun_anew() -> bool:
    with suppress(OSError):
        _CLEAR.write_text("5")
        return True
    return False


def _pages(name: str) -> int | None:
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None
