"""The llama.cpp library of this process: loaded once, its log routed, its devices listed.

`library()` is the only place where llama_cpp is imported. Functions called for every token are
bound here with plain integer pointers, which costs a third of the package's own signatures.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgespec.backends.llamacpp.interrupts import held_interrupts
from edgespec.backends.llamacpp.waiting import settle
from edgespec.errors import BackendError, UsageError

log = logging.getLogger("edgespec.llamacpp")
# ggml's levels 1 to 4; 5 continues the line before. What it calls INFO is for its developers.
LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
CONTINUED, ERROR = 5, 4
# In warnings that leave nothing to do: what it makes of a cache we chose, of a device, of a token
# that a file describes oddly; a trimmed model has no tokenizer; what it makes of being cancelled.
USUAL = re.compile(
    "dummy tokens$|control-looking token|full-size SWA|full capacity of the model|padding V cache|"
    "is assigned to device|preferred buffer type|set to disabled$|enabling flash_attn|"
    "rounding down|model has unused tensor|loaded into RAM|buffered IO|not in special_eog_ids|"
    "from EOG list$|marked as EOG|for Gemma4$|attribute to USER_DEFINED|"
    "failed with error 1$|compute status: 1$|removing memory module entries|ret = 2$"
)
POINTER = (ctypes.c_void_p,)
F32 = 0  # ggml_type
ToFloat = Callable[[int, int, int], None]
"""(address of a row, address of the floats, how many): one row of a tensor as floats."""
KINDS = ("cpu", "gpu", "igpu", "accelerator", "meta")


@dataclass(frozen=True)
class GgmlDevice:
    """A place where layers can run, as `-dev` names it; memory in bytes, 0 if unknown."""

    name: str
    description: str
    kind: str  # cpu | gpu | igpu | accelerator
    memory: int
    memory_free: int


class _Traits(ctypes.Structure):
    """The beginning of ggml_type_traits."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("n_bytes", ctypes.c_size_t),
        ("quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    ]


class _Errors(threading.local):
    """Lines that were logged in a thread, so that two may open models at a time."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class Library:
    """llama_cpp's module, the few functions bound anew, and the log's errors.

    waiting: how its threads wait for each other, in words.
    """

    def __init__(self) -> None:
        self.waiting = settle()
        try:
            with _as_linux():
                import llama_cpp
        except (ImportError, OSError, RuntimeError) as error:
            raise UsageError(
                f"llama-cpp-python cannot be loaded ({str(error)[:120]}): GGUF models need it; "
                "type `pip install llama-cpp-python`"
            ) from error
        self.api: Any = llama_cpp
        self._native: Any = _native()
        self._errors = _Errors()
        self._open_line = ""
        self._level = 0
        self._lock = threading.Lock()
        log.addHandler(logging.NullHandler())  # else Python itself prints warnings to stderr
        # The callback lives as long as the process: the library may log at any time.
        self._callback = llama_cpp.llama_log_callback(self._on_log)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))
        atexit.register(self._silence)
        llama_cpp.llama_backend_init()
        self._load_variants()
        # Any C function bool(*)(void *) that reads a flag serves as abort callback: strlen of
        # "" is false, of "\1" true. A Python function would wait for the GIL at every graph node.
        self.abort_callback = ctypes.cast(
            _c_runtime().strlen, type(llama_cpp.llama_context_default_params().abort_callback)
        )
        number, pointer = ctypes.c_int32, ctypes.c_void_p
        piece = (pointer, number, pointer, number, number, ctypes.c_bool)
        self.to_piece = self.bind("llama_token_to_piece", number, piece, is_short=True)
        token = (pointer, number)
        self.is_end = self.bind("llama_vocab_is_eog", ctypes.c_bool, token, is_short=True)
        self.get_logits = self.bind("llama_get_logits")
        self.get_embeddings = self.bind("llama_get_embeddings")

    def bind(
        self,
        name: str,
        result: Any = ctypes.c_void_p,
        arguments: Any = POINTER,
        *,
        is_short: bool = False,
    ) -> Any:
        """The C function `name`, taking one pointer unless `arguments` says otherwise.

        is_short: it ends within a microsecond, sooner than other threads could be let run.
        """
        prototype = (ctypes.PYFUNCTYPE if is_short else ctypes.CFUNCTYPE)(result, *arguments)
        for place in self._native:
            try:
                return prototype((name, place))
            except AttributeError:
                continue
        raise BackendError(f"llama.cpp lacks {name}: expected llama-cpp-python 0.3.30 or newer")

    def to_float(self, kind: str, number: int) -> ToFloat:
        """What makes floats of the rows of a tensor: ggml's own code for the type (Q4_K, 12).

        Raises: BackendError for a type that it does not read.
        """
        if number == F32:
            return _copy_floats
        traits_of = self.bind("ggml_get_type_traits", ctypes.POINTER(_Traits), (ctypes.c_int,))
        traits = traits_of(number).contents
        name = (traits.name or b"").decode().upper()
        if name != kind or not traits.to_float:
            raise BackendError(f"llama.cpp has no way to read {kind} rows: expected one; update it")
        row_of_n = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        function: ToFloat = ctypes.CFUNCTYPE(None, *row_of_n)(traits.to_float)
        return function

    def _load_variants(self) -> None:
        """Where each kind of CPU has a library of its own, load the best one that runs here."""
        if not self.devices():
            load = self.bind("ggml_backend_load_all_from_path", None, (ctypes.c_char_p,))
            load(str(_folder()).encode())

    @property
    def version(self) -> str:
        """Of llama-cpp-python."""
        return str(self.api.__version__)

    def has_gpu(self) -> bool:
        """Whether layers can be placed anywhere but on the CPU."""
        return any(device.kind in ("gpu", "igpu") for device in self.devices())

    def forget_errors(self) -> None:
        """Begin a call whose errors are wanted: drop older lines of this thread."""
        self._errors.lines = []

    def last_error(self) -> str:
        """The first error logged since `forget_errors`, without function names; "" for none."""
        line = self._errors.lines[0] if self._errors.lines else ""
        return re.sub(r"^(?:\w+: )+(?:error loading model\w*(?: vocabulary)?: )*", "", line)[:300]

    def devices(self) -> list[GgmlDevice]:
        """Every device ggml found, the CPU among them."""
        count = self.bind("ggml_backend_dev_count", ctypes.c_size_t, ())
        return [self._device(self._at(i)) for i in range(count())]

    def device_handle(self, name: str) -> int:
        """The device called `name`. Raises: UsageError listing the names there are."""
        found = self.devices()
        for i, device in enumerate(found):
            if device.name.lower() == name.lower() and device.kind in ("gpu", "igpu"):
                return int(self._at(i))
        names = ", ".join(["auto", "cpu", *(d.name for d in found if d.kind in ("gpu", "igpu"))])
        raise UsageError(f"device {name!r} is not here: expected one of {names}; see `devices`")

    def layouts(self) -> dict[str, int]:
        """How the CPU can keep weights besides as they are in the file: AMX, CPU_REPACK."""
        cpu = self.bind("ggml_backend_dev_by_type", ctypes.c_void_p, (ctypes.c_int,))(0)
        registry = self.bind("ggml_backend_dev_backend_reg")(cpu)
        text = (ctypes.c_void_p, ctypes.c_char_p)
        look_up = self.bind("ggml_backend_reg_get_proc_address", ctypes.c_void_p, text)
        at = look_up(registry, b"ggml_backend_dev_get_extra_bufts")
        if not at:
            return {}
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), *POINTER)(at)(cpu)
        name_of = self.bind("ggml_backend_buft_name", ctypes.c_char_p)
        found = itertools.takewhile(bool, (kinds[i] for i in itertools.count()))
        return {name_of(kind).decode(): kind for kind in found}

    def _at(self, index: int) -> int:
        get = self.bind("ggml_backend_dev_get", ctypes.c_void_p, (ctypes.c_size_t,))
        return int(get(index))

    def _device(self, handle: int) -> GgmlDevice:
        name = self.bind("ggml_backend_dev_name", ctypes.c_char_p)(handle)
        description = self.bind("ggml_backend_dev_description", ctypes.c_char_p)(handle)
        kind = self.bind("ggml_backend_dev_type", ctypes.c_int)(handle)
        free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
        size_p = ctypes.POINTER(ctypes.c_size_t)
        memory = self.bind("ggml_backend_dev_memory", None, (*POINTER, size_p, size_p))
        memory(handle, ctypes.byref(free), ctypes.byref(total))
        return GgmlDevice(
            (name or b"").decode("utf-8", "replace"),
            (description or b"").decode("utf-8", "replace").strip(),
            KINDS[kind] if 0 <= kind < len(KINDS) else "other",
            total.value,
            free.value,
        )

    def _on_log(self, level: int, text: bytes | None, _: Any) -> None:
        # Called from any thread of the library; a line may come in several pieces.
        try:
            with self._lock:
                if level != CONTINUED:
                    self._level = level
                self._open_line += (text or b"").decode("utf-8", "replace")
                *lines, self._open_line = self._open_line.split("\n")
                level = self._level
            for line in filter(None, (line.strip(" .") for line in lines)):
                if level == ERROR:
                    self._errors.lines = [*self._errors.lines, line][:9]
                usual = USUAL.search(line) is not None
                log.log(LEVELS[1] if usual else LEVELS.get(level, logging.DEBUG), "%s", line)
        except Exception:  # an exception cannot cross into C
            self._open_line = ""

    def _silence(self) -> None:
        # Destructors may log after Python is gone; abs ignores what it does not know.
        nothing = ctypes.cast(_c_runtime().abs, type(self._callback))
        self.api.llama_log_set(nothing, ctypes.c_void_p(0))


def library() -> Library:
    """The library, loaded at the first call. Raises: UsageError if it is not installed."""
    with _LOADING:
        return _only()


@cache
def _only() -> Library:
    with held_interrupts():
        return Library()


_LOADING = threading.Lock()  # the cache alone would let two threads make one each


def devices() -> list[GgmlDevice]:
    """The devices that llama.cpp can use here."""
    return library().devices()


@contextmanager
def _as_linux() -> Iterator[None]:
    """llama_cpp chooses its library by the system's name and does not know Android's."""
    name: str = sys.platform
    if name == "android":
        sys.platform = "linux"
    try:
        yield
    finally:
        sys.platform = name


def _native() -> list[Any]:
    """The shared libraries to look symbols up in; on Windows each holds only its own."""
    from llama_cpp import _ctypes_extensions, llama_cpp

    found: list[Any] = [llama_cpp._lib]
    for name in ("ggml", "ggml-base"):
        try:
            with _as_linux():
                found.append(_ctypes_extensions.load_shared_library(name, _folder()))
        except (FileNotFoundError, RuntimeError):
            continue  # linked into the first one
    return found


def _folder() -> Path:
    """Where llama_cpp found its library: LLAMA_CPP_LIB_PATH, or within the package."""
    from llama_cpp import llama_cpp

    return Path(llama_cpp._base_path)


def _copy_floats(row: int, floats: int, n: int) -> None:
    ctypes.memmove(floats, row, 4 * n)


def _c_runtime() -> Any:
    return ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
