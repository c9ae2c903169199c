"""Measure what processes hold in memory: all of their own, without files of a store that are mapped.

Pages of mapped vectors and passages count towards a process as the system shows it, but the system takes
them back whenever something else needs the memory. They are left out, so that a figure says what a machine
must have.
"""

import os
import resource
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

SAMPLED_EVERY_S = 0.02
CHILDREN_EVERY_S = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def can_measure() -> bool:
    """Tell whether this system says what a process holds: Linux does."""
    return Path("/proc/self/statm").exists() and Path("/proc/self/smaps").exists()


def private_bytes(process: int | str = "self") -> int:
    """Return the memory of a process that no file backs; 0 if it has ended."""
    try:
        resident, shared = Path(f"/proc/{process}/statm").read_text().split()[1:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


def library_bytes(process: int | str = "self") -> int:
    """Return what is in memory of the programs and libraries that a process has mapped."""
    total, counted = 0, False
    try:
        lines = Path(f"/proc/{process}/smaps").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split(maxsplit=5)
        if not fields[0].endswith(":"):
            counted = len(fields) == 6 and (".so" in fields[5] or "/bin/" in fields[5])
        elif counted and fields[0] == "Rss:":
            total += 1024 * int(fields[1])
        elif counted and fields[0] == "Anonymous:":
            total -= 1024 * int(fields[1])
    return total


def held_bytes() -> int:
    """Return what this process holds: its own memory, and the libraries it has loaded."""
    return private_bytes() + library_bytes()


def peak_resident_bytes() -> int:
    """Return the most this process ever had in memory, pages of mapped files included."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        # Elsewhere, what the program held that became this process may be in the figure.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


class MemoryWatch:
    """Note the most memory this process and the ones it started hold while a block runs.

    Libraries are counted once, at the end: they stay. `peak_bytes` is 0 on systems that cannot be asked.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.peaks: dict[str, int] = {}
        self._stage = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compactds-memory", daemon=True)

    def stage(self, name: str) -> None:
        """Say what begins now; `peaks` tells the most that each stage held."""
        self._stage = name

    def __enter__(self) -> "MemoryWatch":
        if can_measure():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.ident:
            return
        self._ended.set()
        self._thread.join()
        libraries = library_bytes()
        self.peaks = {name: size + libraries for name, size in self.peaks.items()}
        self.peak_bytes = max(self.peaks.values(), default=0)

    def _run(self) -> None:
        looked, others = -CHILDREN_EVERY_S, 0
        while not self._ended.wait(SAMPLED_EVERY_S):
            now = time.monotonic()
            if now - looked >= CHILDREN_EVERY_S:
                looked, others = now, sum(map(private_bytes, _children()))
            held = private_bytes() + others
            self.peaks[self._stage] = max(held, self.peaks.get(self._stage, 0))


def _children() -> list[int]:
    """Return the processes that this one has started and that run."""
    own, found = os.getpid(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == own:
                found.append(int(folder.name))
    return found
