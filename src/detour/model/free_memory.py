"""How many bytes are free on a device. Knows torch and Linux; knows no models."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that may still be taken; 0 where nobody tells.

    On Linux what the kernel calls available (proc(5)), or less in a container with a limit of its
    own (memory.max of cgroup v2).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
        free = int(found[1]) * 1024 if found else 0
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            limit = int((CGROUP / "memory.max").read_text())
            taken = int((CGROUP / "memory.current").read_text())
            return max(0, min(free, limit - taken))
        return free
    return 0
