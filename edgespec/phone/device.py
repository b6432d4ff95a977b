"""What a phone is: where an app's files lie, which cores are fast, how warm and how empty it is.

The app says all but the cores; nothing here is of Android alone.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.device import free_memory, n_cores
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import in_words
from edgespec.store.pairs import n_bytes

MOST_THREADS = 4  # llama.android's limit, too; not measured on a phone
WARM, HOT = 2, 3  # Android's THERMAL_STATUS_MODERATE and _SEVERE
LOW_PERCENT = 15  # of a battery that is not being charged
FREQUENCIES = "/sys/devices/system/cpu"
PURGE = -101  # M_PURGE of Android's mallopt, from Android 9 on


@dataclass(frozen=True)
class Place:
    """Where the app keeps what. files: its own folder. libraries: of its native libraries.

    Both "" on a computer, where nothing is set.
    """

    files: str = ""
    libraries: str = ""

    def settle(self) -> None:
        """Have EdgeSpec and its libraries look there; before a model is opened."""
        if self.files:
            os.environ["EDGESPEC_HOME"] = str(Path(self.files) / "edgespec")
        if self.libraries:
            os.environ["LLAMA_CPP_LIB_PATH"] = self.libraries
            onnx = Path(self.libraries) / "libonnxruntime.so"
            if onnx.is_file():
                os.environ["ORT_DYLIB_PATH"] = str(onnx)


@dataclass(frozen=True)
class Limits:
    """What is used of the device: threads, 0 for as many as usual; tokens drafted a round, None for
    as many as pay. why: in a few words, "" where nothing is limited.
    """

    threads: int = 0
    draft_tokens: int | None = None
    why: str = ""


def limits(conditions: Mapping[str, Any], usual: int) -> Limits:
    """What may be used as things are; usual: threads on a cool device.

    conditions: thermal (Android's status, 0 cool to 6), battery (percent), charging, saving.
    Raises: UsageError for others, or values that are not numbers.
    """
    known = {"thermal": 0, "battery": 100, "charging": False, "saving": False}
    unknown = set(conditions) - set(known)
    values = {**known, **conditions}
    if unknown or not all(isinstance(value, (int, float)) for value in values.values()):
        raise UsageError(f"conditions are {dict(conditions)!r:.120}: expected {', '.join(known)}")
    if values["thermal"] >= HOT:
        return Limits(1, 0, "the device is hot")
    half = max(1, usual // 2)
    if values["thermal"] >= WARM:
        return Limits(half, 4, "the device is warm")
    if values["saving"] or (values["battery"] <= LOW_PERCENT and not values["charging"]):
        return Limits(half, 4, "the battery is low")
    return Limits()


def fast_threads(folder: str | Path = FREQUENCIES) -> int:
    """Cores that are not of the slowest kind, at most MOST_THREADS; all where they are alike.

    A round waits for its slowest thread, so a slow core holds up the fast ones.
    """
    files = sorted(Path(folder).glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    try:
        speeds = [int(file.read_text()) for file in files]
    except (OSError, ValueError):  # an app may not be let read them
        speeds = []
    fast = sum(speed > min(speeds) for speed in speeds)
    return min(MOST_THREADS, fast or n_cores())


def give_back() -> None:
    """Return to the system what was freed, where the C library keeps it for itself.

    Ten times opened and closed, the demo pair let a process grow by 55 MB; so by 4.
    """
    gc.collect()  # what is open hangs together in circles
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc
        library.malloc_trim(0)
    elif hasattr(library, "mallopt"):  # Android's
        library.mallopt(PURGE, 0)


def check_fits(paths: Mapping[str, Path | None], memory_bytes: int) -> None:
    """Raises: ModelFileError for models that the device's memory does not hold.

    memory_bytes: what the app may take, 0 for what the system says is free. Weights are mapped, but
    where they do not fit they are read from the disk for every token.
    """
    free = memory_bytes or free_memory()
    files = [path for path in paths.values() if path is not None and path.exists()]
    needed = sum(map(n_bytes, files))
    if free is not None and needed > free:
        names = " and ".join(path.name for path in files)
        raise ModelFileError(
            f"{names} take{'s' * (len(files) == 1)} {in_words(needed)}: expected at most the "
            f"{in_words(free)} that are free; choose a smaller model, or one in fewer bits"
        )
