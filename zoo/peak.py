"""How much memory a stretch of code takes at its peak, and how much there is."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


class PeakMemory:
    """Measures, as a context, by how much the memory in use grew at its peak.

    On CUDA what the allocator handed out; elsewhere the resident size of the process, looked at
    every five milliseconds.

    Args:
        device: whose memory.

    Attributes:
        growth: bytes, after the context has ended; 0 where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.device, self.growth = device, 0

    @property
    def source(self) -> str:
        """Where the number comes from, in words."""
        return "CUDA's allocator" if self.cuda else "growth of the process' resident size"

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        self._before = self._peak = _resident()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.growth = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        self._ended.set()
        self._watcher.join()
        self.growth = max(self._peak, _resident()) - self._before


def _resident() -> int:
    """Bytes of this process that lie in memory; 0 where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def available(device: torch.device) -> int | None:
    """Bytes that are free on a device; a container's limit counts. None where unknown."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the allocator keeps for later is free
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = MEMINFO.read_text().splitlines()
        line = next(text for text in lines if text.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = int((CGROUP / "memory.max").read_text())
        found.append(limit - int((CGROUP / "memory.current").read_text()))
    return max(0, min(found)) if found else None
