"""ONNX Runtime's execution providers by short names: sessions on them, and what really runs where.

A device is NAME or NAME:DETAIL: `cpu`, `cuda:1`, `openvino:npu`, `qnn:57` (the chip to compile
for). ONNX Runtime quietly moves nodes that a provider refuses, or a whole model whose provider
does not start, to the CPU; sessions from here fail instead, and `placement` tells node counts.
"""

from __future__ import annotations

import importlib
import platform
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgespec.backends.onnx.native import package as native
from edgespec.errors import BackendError, EdgeSpecError, ModelFileError, UsageError

CPU = "CPUExecutionProvider"
SPIN_US = 50  # that threads wait for each other before they sleep; ../README.md has others
WAITING = f"spinning for {SPIN_US} microseconds, then asleep"
BUILT_IN, PLUGIN, ABSENT = "built in", "plugin", ""
INTEL = ("x86_64", "amd64")
# On a PC the Qualcomm library simulates a chip and must be told which: a Snapdragon X Elite.
QNN_CHIP = "60"
QNN_LIBRARY = "libQnnHtp.so"  # of Qualcomm's, where the provider is built in, as for Android


@dataclass(frozen=True)
class Provider:
    """How to have one execution provider.

    name: what --device takes. package: what pip installs. plugin: a module beside the plain
    onnxruntime whose library is registered; "" if a whole onnxruntime of its own has it.
    detail: the provider's option that DETAIL of NAME:DETAIL sets, and its default.
    static: whether it takes fixed shapes only.
    """

    name: str
    ep: str
    kind: str  # cpu | gpu | npu
    description: str
    package: str
    plugin: str = ""
    detail: str = ""
    default: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    static: bool = False


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("cpu", CPU, "cpu", "ONNX Runtime's own kernels", "onnxruntime"),
        Provider(
            "cuda", "CUDAExecutionProvider", "gpu", "NVIDIA GPU", "onnxruntime-gpu", "", "device_id"
        ),
        Provider(
            "directml",
            "DmlExecutionProvider",
            "gpu",
            "GPU through DirectX 12",
            "onnxruntime-directml",
            detail="device_id",
        ),
        Provider(
            "coreml",
            "CoreMLExecutionProvider",
            "npu",
            "Apple Neural Engine, GPU or CPU",
            "onnxruntime",
            detail="MLComputeUnits",
            options={"ModelFormat": "MLProgram"},
        ),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            "npu",
            "Intel CPU, GPU or NPU",
            "onnxruntime-openvino",
            detail="device_type",
            default="CPU",
        ),
        Provider(
            "qnn",
            "QNNExecutionProvider",
            "npu",
            "Qualcomm Hexagon NPU",
            "onnxruntime-qnn",
            plugin="onnxruntime_qnn",
            detail="soc_model",
            options={"enable_htp_fp16_precision": "1", "htp_performance_mode": "burst"},
            static=True,
        ),
        Provider(
            "webgpu",
            "WebGpuExecutionProvider",
            "gpu",
            "GPU through WebGPU",
            "onnxruntime-webgpu",
            plugin="onnxruntime_ep_webgpu",
        ),
    )
}


@dataclass(frozen=True)
class OnnxDevice:
    """A place where an ONNX model can run, as --device names it."""

    name: str
    description: str
    kind: str  # cpu | gpu | npu
    provider: str  # ONNX Runtime's name of it


def runtime() -> Any:
    """The onnxruntime module, or in its place the C library alone (native/package.py).

    Raises: UsageError if neither is here or loads.
    """
    try:
        import onnxruntime

        return onnxruntime
    except (ImportError, OSError) as error:
        with suppress(OSError):
            native.load()
            return native
        raise UsageError(
            f"onnxruntime cannot be loaded ({str(error)[:120]}): ONNX models need it; "
            "type `pip install onnxruntime`"
        ) from error


def devices() -> list[OnnxDevice]:
    """The places this installation has: the CPU first, then whatever else starts."""
    return [
        OnnxDevice(p.name, p.description + _simulated(p), p.kind, p.ep)
        for p in PROVIDERS.values()
        if _source(p.name)
    ]


def find(device: str) -> tuple[Provider, str]:
    """The provider `device` names and its detail; `auto` is the CPU.

    Raises: UsageError for an unknown name, or one whose package is not installed.
    """
    name, _, detail = device.lower().partition(":")
    provider = PROVIDERS.get("cpu" if name == "auto" else name)
    if provider is None:
        known = ", ".join(["auto", *(d.name for d in devices())])
        raise UsageError(
            f"device {device!r} is not here: ONNX models expect one of {known}; see "
            "`edgespec devices`"
        )
    if not _source(provider.name):
        raise UsageError(f"device {device!r} is not here: {_missing(provider)}")
    if detail and not provider.detail:
        raise UsageError(
            f"device {device!r} says {detail!r}, but {name} has nothing to choose: type {name}"
        )
    return provider, detail


def session(
    path: Path,
    device: str,
    *,
    n_threads: int = 0,
    entries: Mapping[str, str] | None = None,
    whole: bool = True,
) -> Any:
    """An InferenceSession of the graph at `path` on `device`; `n_threads` 0 lets ORT choose.

    entries: further session configuration. whole: refuse to leave any node to the CPU.
    Raises: UsageError (device, or a graph that it does not take), ModelFileError, BackendError.
    """
    provider, detail = find(device)
    ort = runtime()
    options = session_options(provider, detail, n_threads=n_threads, whole=whole)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    try:
        # Without the flag a provider that fails to start leaves everything to the CPU.
        found = ort.InferenceSession(
            str(path), options, providers=_listed(provider, detail, whole), enable_fallback=0
        )
    except Exception as error:  # ORT's exceptions have no base of their own
        raise _explained(error, Path(path), provider, detail) from error
    placed = placement(found)
    if provider.ep != CPU and placed and not placed.get(provider.ep):
        raise UsageError(
            f"{Path(path).name}: {provider.name} took none of its {sum(placed.values())} nodes: "
            "expected all of them; use --device cpu"
        )
    return found


def compile_graph(path: Path, target: Path, device: str) -> None:
    """Write what `device`'s provider makes of the graph at `path`, so that it opens at once.

    The bulk lies in a file beside `target`. Raises: UsageError, ModelFileError, BackendError.
    """
    provider, detail = find(device)
    ort = runtime()
    if not hasattr(ort, "ModelCompiler"):
        raise UsageError(
            f"onnxruntime {ort.__version__} compiles nothing ahead of time: expected 1.22 or "
            "newer; type `pip install -U onnxruntime`"
        )
    options = session_options(provider, detail)
    if (listed := _listed(provider, detail, whole=True)) is not None:
        options.add_provider(*listed[0])
    try:
        ort.ModelCompiler(options, str(path)).compile_to_file(str(target))
    except Exception as error:  # ORT's exceptions have no base of their own
        raise _explained(error, path, provider, detail) from error


def session_options(
    provider: Provider, detail: str = "", *, n_threads: int = 0, whole: bool = True
) -> Any:
    """SessionOptions that place a graph on `provider`, for sessions and for ModelCompiler.

    A provider built into onnxruntime (not a plugin) must also be named to the session.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; the log would say them twice
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Threads that spin between two runs take the cores from the other model; within one they pay.
    # Two ONNX drafter threads beside a two-thread GGUF target, two cores: 1.40 x the tokens/s of
    # threads that spin on; never spinning 1.41 x. ONNX target, GGUF drafter: no difference.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    # Weights are packed for the kernels at every opening: 1.5 s instead of 2.8 for a 1.5B in int4.
    options.add_session_config_entry("session.prepack.enable_parallel", "1")
    if provider.ep == CPU:
        return options
    if whole:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if provider.name == "directml":  # its documentation asks for both
        options.enable_mem_pattern = False
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    if _source(provider.name) == PLUGIN:
        found = [d for d in ort.get_ep_devices() if d.ep_name == provider.ep]
        options.add_provider_for_devices(found[:1], provider_options(provider, detail))
    return options


def provider_options(provider: Provider, detail: str = "") -> dict[str, str]:
    """What the provider itself is told."""
    options = dict(provider.options)
    detail = detail or provider.default
    if provider.name == "qnn":
        options["backend_path"] = QNN_LIBRARY
        if _source(provider.name) == PLUGIN:
            plugin = importlib.import_module(provider.plugin)
            options["backend_path"] = str(plugin.get_qnn_htp_path())
        if platform.machine().lower() in INTEL:
            detail = detail or QNN_CHIP
    if detail:
        options[provider.detail] = detail.upper() if provider.name == "openvino" else detail
    return options


def placement(session: Any) -> dict[str, int]:
    """How many nodes run on each provider; empty where ONNX Runtime does not tell (before 1.24).

    A compiled graph is a single node.
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return {}
    counts: Counter[str] = Counter()
    for part in ask():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def _listed(provider: Provider, detail: str, whole: bool) -> list[Any] | None:
    """The `providers` argument of a session: None for a plugin, whose options name it."""
    if provider.ep == CPU:
        return [CPU]
    if _source(provider.name) == PLUGIN:
        return None
    # Naming the CPU beside another provider contradicts `whole`, says ONNX Runtime.
    return [(provider.ep, provider_options(provider, detail)), *([] if whole else [CPU])]


@cache
def _source(name: str) -> str:
    """Where this process has the provider from: BUILT_IN, PLUGIN (registered here) or ABSENT.

    Once registered, ONNX Runtime lists a plugin among the built-in ones: ask once.
    """
    ort, provider = runtime(), PROVIDERS[name]
    if provider.ep in ort.get_available_providers():
        return BUILT_IN
    if not provider.plugin or find_spec(provider.plugin) is None:
        return ABSENT
    if not hasattr(ort, "register_execution_provider_library"):
        return ABSENT
    try:
        plugin = importlib.import_module(provider.plugin)
        # Registered under another name, QNN's devices would carry that name.
        ort.register_execution_provider_library(provider.ep, str(plugin.get_library_path()))
    except Exception:  # a library for another system, or for another onnxruntime
        return ABSENT
    return PLUGIN if any(d.ep_name == provider.ep for d in ort.get_ep_devices()) else ABSENT


def _missing(provider: Provider) -> str:
    """Why a provider is absent and how to have it."""
    package = provider.package
    if provider.plugin and find_spec(provider.plugin):
        return f"{provider.plugin} finds none; expected its hardware and driver, use --device cpu"
    if package == "onnxruntime":
        return f"this system's onnxruntime has no {provider.ep}; expected macOS, use --device cpu"
    if provider.plugin == package.replace("-", "_"):
        return f"expected the package {package}; type `pip install {package}`"
    return (
        f"expected {package} in place of onnxruntime; type `pip uninstall onnxruntime`, "
        f"then `pip install {package}`"
    )


def _simulated(provider: Provider) -> str:
    is_pc = platform.machine().lower() in INTEL
    return ", simulated (slow, for tests)" if provider.name == "qnn" and is_pc else ""


def _explained(error: Exception, path: Path, provider: Provider, detail: str) -> EdgeSpecError:
    """What `error` means for the user."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if not path.is_file():
        return ModelFileError(f"{path} is not there: expected a model's graph; check the path")
    if "fallback to CPU EP has been explicitly disabled" in text:
        known = f", and that {provider.detail} {detail} is known" if detail else ""
        advice = f"`edgespec export onnx --npu {provider.name}`" if provider.static else "-dev cpu"
        return UsageError(
            f"{path.name} has nodes that {provider.name} does not take: expected fixed shapes and "
            f"plain operators{known}; use {advice}"
        )
    if kind in ("InvalidProtobuf", "InvalidGraph", "NoModel"):
        return ModelFileError(
            f"{path} is no complete ONNX graph ({text[:200]}): expected one; export it again"
        )
    return BackendError(
        f"{provider.name} cannot open {path.name} ({kind}: {text[:300]}): "
        "expected a graph for it; try --device cpu"
    )
