"""What `compactds doctor` looks at; every check says what it found and, if that is bad, what to do."""

import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from compactds.configs.sizes import counted, format_bytes

_ENOUGH_BYTES = 2_000_000_000
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Check:
    """Hold the outcome of one check."""

    name: str
    state: Literal["ok", "warning", "problem"]
    detail: str
    remedy: str = ""


def all_checks(folder: Path, port: int) -> Iterator[Check]:
    """Yield the checks in order, each run when it is asked for."""
    yield check_python()
    yield from check_packages()
    yield check_cpu()
    yield check_memory()
    yield check_disk(folder)
    yield check_encoder()
    yield check_faiss()
    yield check_port(port)


def check_python() -> Check:
    """Say which Python runs."""
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("python", "ok", found)


def check_packages() -> Iterator[Check]:
    """Check that every package compactds needs is installed, and say their versions."""
    found, missing = [], []
    for requirement in sorted({*(requires("compactds") or ()), "torch"}, key=str.lower):
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Check("packages", "ok", ", ".join(found))
    for name in missing:
        yield Check(name, "problem", "not installed", f"pip install {name}")


def check_cpu() -> Check:
    """Check how many cores may be used, and which vector instructions they have."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        known = re.search(r"^flags\s*:(.*)$", _CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        known = None
    flags = set(known[1].split()) if known else set()
    having = [flag for flag in _CPU_FLAGS if flag in flags]
    detail = f"{counted(cores, 'core')}, {platform.machine()} {' '.join(having)}".rstrip()
    if known and "avx2" not in flags:
        return Check("cpu", "warning", detail, "Without AVX2, searching and encoding are slow.")
    return Check("cpu", "ok", detail)


def check_memory() -> Check:
    """Check how much memory is left: what the system has available, or a container's limit."""
    try:
        known = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMORY_INFO.read_text(), re.MULTILINE)
    except OSError:
        known = None
    if not known:
        return Check("memory", "warning", "unknown", "Builds need up to 2 GB.")
    available = int(known[1]) * 1024
    try:
        limit = _MEMORY_LIMIT.read_text().strip()
    except OSError:
        limit = "max"
    available = min(available, int(limit)) if limit.isdigit() else available
    if available < _ENOUGH_BYTES:
        return Check("memory", "warning", f"{format_bytes(available)} available", "Builds need up to 2 GB.")
    return Check("memory", "ok", f"{format_bytes(available)} available")


def check_disk(folder: Path) -> Check:
    """Check how much room a folder's disk has."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", "problem", f"{folder}: {error.strerror}", "Give --path a folder that exists.")
    detail = f"{format_bytes(free)} free at {folder.absolute()}"
    if free < _ENOUGH_BYTES:
        return Check("disk", "warning", detail, "A store takes about as much as its text; builds twice that.")
    return Check("disk", "ok", detail)


def check_encoder() -> Check:
    """Check that the default encoder is installed, and that its weights are the published ones."""
    from importlib.util import find_spec

    from compactds.datastore.encoders.locate import locate
    from compactds.datastore.encoders.presets import PRESETS
    from compactds.datastore.errors import EncoderError

    preset = PRESETS["minilm"]
    if preset.package is None or find_spec(preset.package) is None:
        return Check(
            "encoder",
            "warning",
            f"{preset.model} is not installed",
            "It will be downloaded when it is first used.",
        )
    try:
        return Check("encoder", "ok", f"{preset.model}, weights as published, at {locate('minilm', preset)}")
    except EncoderError as error:
        return Check("encoder", "problem", error.message, error.remedy)


def check_faiss() -> Check:
    """Check that faiss finds the nearest of three vectors."""
    try:
        import faiss
        import numpy as np

        vectors = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
        index = faiss.IndexFlatIP(2)
        index.add(vectors)
        scores, rows = index.search(np.array([[0.6, 0.8]], dtype=np.float32), 3)
    except (ImportError, AttributeError) as error:
        return Check(
            "faiss", "problem", f"cannot be used: {error}", "pip install --force-reinstall faiss-cpu"
        )
    if rows.tolist() != [[1, 0, 2]] or not np.allclose(scores, [[0.8, 0.6, -0.6]]):
        return Check("faiss", "problem", "finds the wrong vectors", "pip install --force-reinstall faiss-cpu")
    return Check("faiss", "ok", f"{faiss.__version__} searches correctly")


def check_port(port: int) -> Check:
    """Check that the server's port on this machine is free."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = "Stop what listens there, or serve with --port."
            return Check("port", "warning", f"{port} cannot be bound: {error.strerror}", remedy)
    return Check("port", "ok", f"{port} is free")
