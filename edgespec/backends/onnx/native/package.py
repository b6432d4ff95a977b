"""What EdgeSpec uses of the Python package onnxruntime, over its C library.

providers.runtime() gives this module in place of the package where that is not installed. Names
and arguments are the package's; what is not here (adapters, compiling ahead of time, plugins)
is not bound. Memory is the CPU's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from edgespec.backends.onnx.native.api import api

# ONNXTensorElementDataType by number: the package's word for it, and numpy's.
KINDS: dict[int, tuple[str, Any]] = {
    1: ("float", np.float32), 2: ("uint8", np.uint8), 3: ("int8", np.int8),
    4: ("uint16", np.uint16), 5: ("int16", np.int16), 6: ("int32", np.int32),
    7: ("int64", np.int64), 9: ("bool", np.bool_), 10: ("float16", np.float16),
    11: ("double", np.float64), 12: ("uint32", np.uint32), 13: ("uint64", np.uint64),
}  # fmt: skip
NUMBERS = {np.dtype(kind): number for number, (_, kind) in KINDS.items()}


def load() -> None:
    """Find the library. Raises: OSError where there is none."""
    api()


def get_available_providers() -> list[str]:
    """The execution providers that are built in."""
    names, count = POINTER(c_char_p)(), c_int()
    api()("GetAvailableProviders", byref(names), byref(count))
    found = [(names[i] or b"").decode() for i in range(count.value)]
    api()("ReleaseAvailableProviders", names, count)
    return found


class SessionOptions:
    """How a session computes."""

    def __init__(self) -> None:
        self.handle = api().made("CreateSessionOptions")
        finalize(self, api().released("SessionOptions", self.handle))
        self.intra_op_num_threads = self.inter_op_num_threads = 0
        self.log_severity_level = -1

    def add_session_config_entry(self, key: str, value: str) -> None:
        api()("AddSessionConfigEntry", self.handle, key.encode(), value.encode())

    def append(self, provider: str, options: Mapping[str, str]) -> None:
        """Let a provider other than the CPU take nodes."""
        keys, values = ((c_char_p * len(options))(*(t.encode() for t in side))
                        for side in (options.keys(), options.values()))  # fmt: skip
        append = "SessionOptionsAppendExecutionProvider"
        api()(append, self.handle, provider.encode(), keys, values, len(options))

    def settle(self) -> None:
        """Tell the library what was set as attributes."""
        api()("SetIntraOpNumThreads", self.handle, self.intra_op_num_threads)
        api()("SetInterOpNumThreads", self.handle, self.inter_op_num_threads)
        if self.log_severity_level >= 0:
            api()("SetSessionLogSeverityLevel", self.handle, self.log_severity_level)


class RunOptions:
    """How one run computes, and whether it should end."""

    def __init__(self) -> None:
        self.handle = api().made("CreateRunOptions")
        finalize(self, api().released("RunOptions", self.handle))
        self._terminate = False

    def add_run_config_entry(self, key: str, value: str) -> None:
        api()("AddRunConfigEntry", self.handle, key.encode(), value.encode())

    @property
    def terminate(self) -> bool:
        """Whether runs with these options end within a node, in whatever thread."""
        return self._terminate

    @terminate.setter
    def terminate(self, value: bool) -> None:
        self._terminate = value
        api()(f"RunOptions{'Set' if value else 'Unset'}Terminate", self.handle)


class OrtValue:
    """A tensor on top of an array's own memory, which it keeps."""

    def __init__(self, array: NDArray[Any]) -> None:
        if not array.flags.c_contiguous:
            raise ValueError("the array is not contiguous")
        self._array = array
        shape = (c_int64 * array.ndim)(*array.shape)
        self.handle = api().made(
            "CreateTensorWithDataAsOrtValue", api().memory, array.ctypes.data, array.nbytes,
            shape, array.ndim, NUMBERS[array.dtype],
        )  # fmt: skip
        finalize(self, api().released("Value", self.handle))

    @staticmethod
    def ortvalue_from_numpy(array: NDArray[Any]) -> OrtValue:
        return OrtValue(array)


@dataclass(frozen=True)
class NodeArg:
    """An input or output. type: as in tensor(float). shape: None for a size that is open."""

    name: str
    type: str
    shape: list[int | None]


class IOBinding:
    """What a session's inputs and outputs lie in; it keeps what is bound."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session  # which has to outlive it
        self.handle = api().made("CreateIoBinding", session.handle)
        finalize(self, api().released("IoBinding", self.handle))
        self._bound: dict[str, OrtValue] = {}

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        api()("BindInput", self.handle, name.encode(), value.handle)
        self._bound[name] = value

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        api()("BindOutput", self.handle, name.encode(), value.handle)
        self._bound[name] = value

    def bind_cpu_input(self, name: str, array: NDArray[Any]) -> None:
        self.bind_ortvalue_input(name, OrtValue(np.ascontiguousarray(array)))

    def bind_output(self, name: str) -> None:
        """Have the library make room for an output."""
        api()("BindOutputToDevice", self.handle, name.encode(), api().memory)
        self._bound.pop(name, None)


class InferenceSession:
    """A graph that is ready to run."""

    def __init__(
        self, path: str, options: SessionOptions, *, providers: Sequence[Any] | None = None,
        enable_fallback: int = 0,
    ) -> None:  # fmt: skip
        """providers: names, or (name, options). It never falls back. Raises: NativeError."""
        for one in providers or ():
            if not isinstance(one, str):
                options.append(*one)
        options.settle()
        environment = api().environment
        self.handle = api().made("CreateSession", environment, path.encode(), options.handle)
        finalize(self, api().released("Session", self.handle))

    def get_inputs(self) -> list[NodeArg]:
        return self._ends("Input")

    def get_outputs(self) -> list[NodeArg]:
        return self._ends("Output")

    def get_overridable_initializers(self) -> list[NodeArg]:
        return self._ends("OverridableInitializer")

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def run_with_iobinding(self, binding: IOBinding, options: RunOptions | None = None) -> None:
        run_options = None if options is None else options.handle
        api()("RunWithBinding", self.handle, run_options, binding.handle)

    def _ends(self, which: str) -> list[NodeArg]:
        count = api().counted(f"SessionGet{which}Count", self.handle)
        return [self._end(which, i) for i in range(count)]

    def _end(self, which: str, i: int) -> NodeArg:
        text = api().made(f"SessionGet{which}Name", self.handle, i, api().allocator)
        name = ctypes.string_at(text).decode()
        api()("AllocatorFree", api().allocator, text)
        info = api().made(f"SessionGet{which}TypeInfo", self.handle, i)
        try:
            return NodeArg(name, *_tensor(api().made("CastTypeInfoToTensorInfo", info)))
        finally:
            api().release("TypeInfo", info)


def _tensor(info: int) -> tuple[str, list[int | None]]:
    """The type and the shape that an OrtTensorTypeAndShapeInfo tells; none of what is no tensor."""
    if not info:
        return "", []
    number, n = c_int(), api().counted("GetDimensionsCount", info)
    api()("GetTensorElementType", info, byref(number))
    sizes = (c_int64 * n)()
    api()("GetDimensions", info, sizes, n)
    kind = KINDS.get(number.value, ("other", None))[0]
    return f"tensor({kind})", [size if size >= 0 else None for size in sizes]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return api().version
    raise AttributeError(f"the C library is bound without {name}")
