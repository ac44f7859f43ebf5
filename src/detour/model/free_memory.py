"""How many bytes are free on a device. Knows torch and Linux; knows no models."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Bytes that may still be taken; None where nobody tells.

    On Linux what the kernel calls available (proc(5)), or less in a container with a limit of its
    own (memory.max of cgroup v2), whose files' pages are let go where others want the room. On a
    GPU with what torch holds and does not use.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    with suppress(OSError):
        free = _named("MemAvailable", MEMINFO.read_text(), 1024)
        if free is None:
            return None
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            limit = int((CGROUP / "memory.max").read_text())
            taken = int((CGROUP / "memory.current").read_text())
            with suppress(OSError):
                taken -= _named("inactive_file", (CGROUP / "memory.stat").read_text()) or 0
            return max(0, min(free, limit - taken))
        return free
    return None


def _named(name: str, told: str, unit: int = 1) -> int | None:
    found = re.search(rf"^{name}:?\s+(\d+)(?: kB)?$", told, re.MULTILINE)
    return int(found[1]) * unit if found else None
