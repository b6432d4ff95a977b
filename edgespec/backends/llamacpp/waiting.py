"""How llama.cpp's threads wait for each other: its OpenMP is told before it is loaded.

They meet after every node of a graph, hundreds of times a token. OpenMP's own way is to spin for
milliseconds each time, on a core that another program may need to let the thread waited for go on.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgespec.device import WAITING
from edgespec.errors import BackendError

if TYPE_CHECKING:
    from edgespec.backends.llamacpp.library import Library

# GNU's OpenMP spins so many times, then sleeps (../README.md has what else was measured); LLVM's
# for milliseconds, 200 by ggml's own wish.
CHOSEN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
OPENMP = re.compile(r"/libg?omp\.(so|dylib)")  # torch's copy has another name and is another one


def settle() -> str:
    """How threads will wait, in words: chosen here unless the application did, or it is too late.

    Call it before llama_cpp is imported: its OpenMP reads the environment once, when it is loaded.
    """
    asked = [f"{name}={os.environ[name]}" for name in WAITING if name in os.environ]
    if asked:
        return f"as {' and '.join(asked)} in the environment says"
    if "llama_cpp" in sys.modules or OPENMP.search(_mapped()):
        return "spinning, since OpenMP was loaded before EdgeSpec (slow beside other programs)"
    os.environ.update(CHOSEN)
    return "spinning for microseconds, then asleep"


def _mapped() -> str:
    """The files in this process's memory, where the system tells."""
    try:
        return Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class _Pool(ctypes.Structure):
    """ggml_threadpool_params."""

    _fields_ = [
        ("cores", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    ]


class Places:
    """A core for each thread while it computes, where there are as many threads as cores.

    Else Linux puts threads that wake each other on one core together, beside which another
    program has the other core for itself.
    """

    def __init__(self, library: Library, context: int, n_threads: int) -> None:
        self._library = library
        self._pool: Any = None
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        # Without OpenMP such a pool has threads of its own, which spin between the graphs.
        has_openmp = b"OPENMP = 1" in library.api.llama_print_system_info()
        if n_threads < 2 or n_threads != len(cores) or max(cores) >= 512 or not has_openmp:
            return
        number, pointer = ctypes.c_int, ctypes.c_void_p
        try:
            fill = library.bind("ggml_threadpool_params_init", None, (pointer, number))
            make = library.bind("ggml_threadpool_new")
            attach = library.bind("llama_attach_threadpool", None, (pointer,) * 3)
        except BackendError:  # where each kind of CPU has a library of its own
            return
        self._cores, pool = cores, _Pool()
        fill(ctypes.byref(pool), n_threads)
        pool.strict = True
        for core in cores:
            pool.cores[core] = True
        self._pool = make(ctypes.byref(pool))
        attach(context, self._pool, self._pool)

    def leave(self) -> None:
        """Let the calling thread, which computed too, and what it starts run anywhere again."""
        if self._pool:
            os.sched_setaffinity(0, self._cores)

    def close(self) -> None:
        """Free the pool, after the context."""
        if self._pool:
            self._library.bind("ggml_threadpool_free", None)(self._pool)
            self._pool = None
