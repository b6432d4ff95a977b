"""ONNX Runtime's C interface by ctypes: the functions that are used, errors as exceptions.

The library exports one symbol, which leads to a table of functions (OrtApi). The table only ever
grows at its end, so that a function's place in it is part of the interface.
Source: onnxruntime_c_api.h, version 12 of the interface (ONNX Runtime 1.12) and newer.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache, partial
from typing import Any

VERSION = 12  # of the interface that is asked for
VARIABLE, NAME = "ORT_DYLIB_PATH", "libonnxruntime.so"  # where it is, or what the loader knows
WARNING = 2  # the least that it logs
# OrtErrorCode, by the names of the Python package's exceptions.
CODES = ("Ok", "Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError",
         "RuntimeException", "InvalidProtobuf", "ModelLoaded", "NotImplemented", "InvalidGraph",
         "EPFail")  # fmt: skip
OUT, TEXT, SIZE = POINTER(c_void_p), c_char_p, c_size_t

# Each function's place in OrtApi, and its arguments. All give a status, which is null if it went
# well, but for those named Release.
FUNCTIONS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "CreateEnv": (3, (c_int, TEXT, OUT)),
    "CreateSession": (7, (c_void_p, TEXT, c_void_p, OUT)),
    "CreateSessionOptions": (10, (OUT,)),
    "SetSessionLogSeverityLevel": (22, (c_void_p, c_int)),
    "SetIntraOpNumThreads": (24, (c_void_p, c_int)),
    "SetInterOpNumThreads": (25, (c_void_p, c_int)),
    "SessionGetInputCount": (30, (c_void_p, POINTER(SIZE))),
    "SessionGetOutputCount": (31, (c_void_p, POINTER(SIZE))),
    "SessionGetOverridableInitializerCount": (32, (c_void_p, POINTER(SIZE))),
    "SessionGetInputTypeInfo": (33, (c_void_p, SIZE, OUT)),
    "SessionGetOutputTypeInfo": (34, (c_void_p, SIZE, OUT)),
    "SessionGetOverridableInitializerTypeInfo": (35, (c_void_p, SIZE, OUT)),
    "SessionGetInputName": (36, (c_void_p, SIZE, c_void_p, OUT)),
    "SessionGetOutputName": (37, (c_void_p, SIZE, c_void_p, OUT)),
    "SessionGetOverridableInitializerName": (38, (c_void_p, SIZE, c_void_p, OUT)),
    "CreateRunOptions": (39, (OUT,)),
    "RunOptionsSetTerminate": (46, (c_void_p,)),
    "RunOptionsUnsetTerminate": (47, (c_void_p,)),
    "CreateTensorWithDataAsOrtValue": (
        49, (c_void_p, c_void_p, SIZE, POINTER(c_int64), SIZE, c_int, OUT)
    ),
    "CastTypeInfoToTensorInfo": (55, (c_void_p, OUT)),
    "GetTensorElementType": (60, (c_void_p, POINTER(c_int))),
    "GetDimensionsCount": (61, (c_void_p, POINTER(SIZE))),
    "GetDimensions": (62, (c_void_p, POINTER(c_int64), SIZE)),
    "CreateCpuMemoryInfo": (69, (c_int, c_int, OUT)),
    "AllocatorFree": (76, (c_void_p, c_void_p)),
    "GetAllocatorWithDefaultOptions": (78, (OUT,)),
    "ReleaseStatus": (93, (c_void_p,)),
    "ReleaseSession": (95, (c_void_p,)),
    "ReleaseValue": (96, (c_void_p,)),
    "ReleaseRunOptions": (97, (c_void_p,)),
    "ReleaseTypeInfo": (98, (c_void_p,)),
    "ReleaseSessionOptions": (100, (c_void_p,)),
    "GetAvailableProviders": (125, (POINTER(POINTER(c_char_p)), POINTER(c_int))),
    "ReleaseAvailableProviders": (126, (POINTER(c_char_p), c_int)),
    "AddSessionConfigEntry": (130, (c_void_p, TEXT, TEXT)),
    "RunWithBinding": (133, (c_void_p, c_void_p, c_void_p)),
    "CreateIoBinding": (134, (c_void_p, OUT)),
    "ReleaseIoBinding": (135, (c_void_p,)),
    "BindInput": (136, (c_void_p, TEXT, c_void_p)),
    "BindOutput": (137, (c_void_p, TEXT, c_void_p)),
    "BindOutputToDevice": (138, (c_void_p, TEXT, c_void_p)),
    "AddRunConfigEntry": (165, (c_void_p, TEXT, TEXT)),
    "SessionOptionsAppendExecutionProvider": (
        216, (c_void_p, TEXT, POINTER(TEXT), POINTER(TEXT), SIZE)
    ),
}  # fmt: skip
GET_ERROR_CODE, GET_ERROR_MESSAGE = 1, 2


class NativeError(Exception):
    """What ONNX Runtime says went wrong; its class has the name of the error's code."""


ERRORS = {name: type(name, (NativeError,), {}) for name in CODES}


class Api:
    """The library, its environment, and its functions as methods: api("BindInput", ...)."""

    def __init__(self, path: str) -> None:
        """Raises: OSError for a library that is not there or is too old, or on Windows."""
        if sys.platform == "win32":
            raise OSError("on Windows the library takes other texts: install its package")
        base = ctypes.CDLL(path).OrtGetApiBase
        base.restype = POINTER(c_void_p * 2)
        get_api, get_version = map(int, base().contents)
        table = ctypes.CFUNCTYPE(c_void_p, c_uint32)(get_api)(VERSION)
        if not table:
            raise OSError(f"{path} has no version {VERSION} of its interface")
        self.version = ctypes.CFUNCTYPE(c_char_p)(get_version)().decode()
        count = 1 + max(place for place, _ in FUNCTIONS.values())
        entries: Any = (c_void_p * count).from_address(table)
        self._code = ctypes.CFUNCTYPE(c_int, c_void_p)(entries[GET_ERROR_CODE])
        self._message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(entries[GET_ERROR_MESSAGE])
        self._functions: dict[str, Callable[..., Any]] = {}
        for name, (place, arguments) in FUNCTIONS.items():
            is_release = name.startswith("Release") and not name.endswith("Providers")
            result = None if is_release else c_void_p
            self._functions[name] = ctypes.CFUNCTYPE(result, *arguments)(entries[place])
        self.environment = self.made("CreateEnv", WARNING, b"edgespec")
        self.memory = self.made("CreateCpuMemoryInfo", 1, 0)  # an arena's, of the default type
        self.allocator = self.made("GetAllocatorWithDefaultOptions")

    def __call__(self, name: str, *arguments: Any) -> None:
        """Raises: NativeError."""
        status = self._functions[name](*arguments)
        if status:
            code, said = self._code(status), (self._message(status) or b"").decode(errors="replace")
            self._functions["ReleaseStatus"](status)
            raise ERRORS[CODES[code] if 0 < code < len(CODES) else "Fail"](said)

    def made(self, name: str, *arguments: Any) -> int:
        """The handle that a function gives as its last argument. Raises: NativeError."""
        handle = c_void_p()
        self(name, *arguments, byref(handle))
        return handle.value or 0

    def counted(self, name: str, handle: int) -> int:
        """The number that a function gives. Raises: NativeError."""
        count = SIZE()
        self(name, handle, byref(count))
        return count.value

    def release(self, kind: str, handle: int) -> None:
        """Free what was made."""
        self._functions[f"Release{kind}"](handle)

    def released(self, kind: str, handle: int) -> Callable[[], None]:
        """Frees what was made, once it is called."""
        return partial(self.release, kind, handle)


@cache
def api() -> Api:
    """The library of this process, by ORT_DYLIB_PATH or the name the loader knows.

    Raises: OSError where there is none.
    """
    return Api(os.environ.get(VARIABLE) or NAME)
