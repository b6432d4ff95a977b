"""This device and what a process takes of it: a card, cores, memory, versions of libraries."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

ISA = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni",
       "amx_int8", "neon", "asimd", "asimddp", "i8mm", "sve", "sve2", "bf16")  # fmt: skip
LIBRARIES = ("numpy", "llama-cpp-python", "onnxruntime")
CHILDLESS = ("android", "ios")  # an app there cannot start another program
BUSY = 0.15  # share of the time for which threads wait for a core: more, and others compute too
# What OpenMP reads of the environment, once, about how its threads wait for each other.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def peak_rss_bytes() -> int:
    """Most memory this process has held; 0 where the system does not say."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", _read("/proc/self/status"))
    if peak:
        return int(peak[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used) * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, others KiB


def device_card() -> dict[str, Any]:
    """What this device is: processor, cores, instruction sets, memory, system, library versions."""
    info = _read("/proc/cpuinfo")
    named = re.search(r"^(?:model name|Hardware|Processor)\s*:\s*(.+)$", info, re.MULTILINE)
    flagged = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = set(flagged[1].split()) if flagged else set()
    return {
        "cpu": named[1].strip() if named else processor(),
        "machine": platform.machine(),
        "n_cores": n_cores(),
        "isa": [name for name in ISA if name in flags],
        "memory_bytes": _memory_bytes(),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": library_versions(),
    }


def processor() -> str:
    """The kind of processor in a word or a line, as far as no process has to be started to ask."""
    named = "" if sys.platform in CHILDLESS else platform.processor()
    return named or platform.machine()


def n_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux and Android; the others use all
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def waited_s() -> float:
    """Seconds that this process's threads have waited for a core so far; 0 where not known.

    While it grows, others compute on the cores that we use.
    """
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:  # only Linux and Android tell
        return 0.0
    said = [_read(str(task / "schedstat")).split() for task in tasks]
    return sum(int(numbers[1]) for numbers in said if len(numbers) == 3) / 1e9


def is_busy() -> bool:
    """Whether the system says that much was computed here in the last minute; else False."""
    try:
        return os.getloadavg()[0] > n_cores() / 2
    except (AttributeError, OSError):  # Windows, some of Android
        return False


class Others:
    """Whether others compute on the cores that we use, since this was made.

    clock: seconds of the time that ours would take alone: of the wall while all threads compute, or
    `time.process_time` where they rest in between.
    """

    def __init__(
        self, clock: Callable[[], float] = perf_counter, waited: Callable[[], float] = waited_s
    ) -> None:
        self._clock, self._waited = clock, waited
        self._start, self._before = clock(), waited()

    @property
    def compute(self) -> bool:
        """Threads waited for a core for more than BUSY of the time."""
        return self._waited() - self._before > BUSY * (self._clock() - self._start)


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that decide speed, without importing them.

    Read off the folders that installing makes: importing importlib.metadata takes as long as all of
    the package's own modules that are needed before a model is opened.
    """
    folders = {name.replace("-", "_"): name for name in LIBRARIES}
    found: dict[str, str] = {}
    for place in sys.path:
        try:
            entries = os.listdir(place or ".")
        except OSError:
            continue
        for entry in entries:
            folder, _, rest = entry.partition("-")
            if rest.endswith(".dist-info") and folder in folders:
                found.setdefault(folders[folder], rest.removesuffix(".dist-info"))
    missing = {name: _version(name) for name in LIBRARIES if name not in found}
    return found | {name: said for name, said in missing.items() if said}


def version() -> str:
    """The installed EdgeSpec's version, "source" when it runs from a source tree."""
    return _version("edgespec") or "source"


def _version(name: str) -> str:
    """Of an installed package; "" if it is not."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def free_memory() -> int | None:
    """Bytes that can still be taken, None where the system does not say."""
    free = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    return int(free[1]) * 1024 if free else None


def _memory_bytes() -> int:
    known = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    if known:
        return int(known[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 0


def _read(path: str) -> str:
    """A small system file, empty where the system has none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
