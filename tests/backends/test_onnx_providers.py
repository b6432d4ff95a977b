"""Devices by name, sessions that never fall back to the CPU unasked, refusals in one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgespec.backends.onnx import providers
from edgespec.errors import BackendError, ModelFileError, UsageError


def graph(path: Path, rows: int | str) -> Path:
    """y = x @ w + 1 for `rows` rows, a name for any number."""
    weight = numpy_helper.from_array(np.eye(8, dtype=np.float32) * 2, "w")
    one = numpy_helper.from_array(np.ones(8, np.float32), "one")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="times"),
        helper.make_node("Add", ["xw", "one"], ["y"], name="plus"),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 8])] for name in "xy"
    )
    made = helper.make_graph(nodes, "small", inputs, outputs, [weight, one])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return graph(tmp_path / "small.onnx", 4)


def test_the_cpu_comes_first_and_every_device_can_be_named() -> None:
    found = providers.devices()
    assert (found[0].name, found[0].provider) == ("cpu", "CPUExecutionProvider")
    for device in found:
        assert providers.find(device.name)[0].ep == device.provider
    assert providers.find("auto") == providers.find("CPU") == (providers.PROVIDERS["cpu"], "")


def test_a_graph_runs_and_its_nodes_are_counted(small: Path) -> None:
    session = providers.session(small, "cpu", n_threads=1)
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    assert np.array_equal(session.run(["y"], {"x": x})[0], 2 * x + 1)
    placed = providers.placement(session)
    assert placed in ({}, {"CPUExecutionProvider": 1}, {"CPUExecutionProvider": 2})  # may be fused


def test_threads_that_wait_soon_leave_their_core_to_others() -> None:
    options = providers.session_options(providers.PROVIDERS["cpu"])
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == "50"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.get_session_config_entry("session.prepack.enable_parallel") == "1"
    assert providers.WAITING.startswith("spinning for 50 microseconds")


def test_an_old_onnxruntime_tells_no_placement() -> None:
    assert providers.placement(SimpleNamespace()) == {}


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'npu9' is not here: ONNX models expect one of auto, cpu"):
        providers.find("npu9")
    with pytest.raises(UsageError, match="'cpu:1' says '1', but cpu has nothing to choose"):
        providers.find("cpu:1")


@pytest.mark.parametrize(
    ("device", "advice"),
    [
        ("cuda", "expected onnxruntime-gpu in place of onnxruntime; type `pip uninstall"),
        ("directml:1", "then `pip install onnxruntime-directml`"),
        ("openvino:npu", "then `pip install onnxruntime-openvino`"),
        ("qnn", "expected the package onnxruntime-qnn; type `pip install onnxruntime-qnn`"),
        ("webgpu", "then `pip install onnxruntime-webgpu`"),
        ("coreml", "expected macOS, use --device cpu"),
    ],
)
def test_a_missing_provider_names_its_package(
    device: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_source", lambda _: providers.ABSENT)
    monkeypatch.setattr(providers, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=f"device '{device}' is not here: ") as caught:
        providers.find(device)
    assert advice in str(caught.value)


def test_a_plugin_without_its_hardware_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_source", lambda _: providers.ABSENT)
    monkeypatch.setattr(providers, "find_spec", lambda _: object())
    with pytest.raises(UsageError, match="onnxruntime_ep_webgpu finds none; expected its hardware"):
        providers.find("webgpu")


class FakeRuntime:
    """Records what sessions are asked for; `nodes` is where their graphs end up."""

    ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL="sequential")

    def __init__(self, nodes: dict[str, int], error: Exception | None = None) -> None:
        self.nodes, self.error, self.entries = nodes, error, {}
        self.options: Any = None
        self.devices: list[Any] = []

    def SessionOptions(self) -> Any:
        self.options = SimpleNamespace(
            add_session_config_entry=self.entries.__setitem__,
            add_provider_for_devices=lambda devices, told: self.devices.append((devices, told)),
        )
        return self.options

    def get_ep_devices(self) -> list[Any]:
        return [SimpleNamespace(ep_name="QNNExecutionProvider", number=i) for i in range(2)]

    def InferenceSession(self, path: str, options: Any, **how: Any) -> Any:
        self.path, self.how = path, how
        if self.error:
            raise self.error
        parts = [
            SimpleNamespace(ep_name=ep, get_nodes=lambda n=n: [None] * n)
            for ep, n in self.nodes.items()
        ]
        return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def faked(monkeypatch: pytest.MonkeyPatch, source: str, *args: Any) -> FakeRuntime:
    runtime = FakeRuntime(*args)
    monkeypatch.setattr(providers, "runtime", lambda: runtime)
    monkeypatch.setattr(providers, "_source", lambda _: source)
    return runtime


def test_a_built_in_provider_gets_everything_or_fails(
    monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    nodes = {"CUDAExecutionProvider": 7}
    runtime = faked(monkeypatch, providers.BUILT_IN, nodes)
    session = providers.session(small, "cuda:1", n_threads=3, entries={"a": "b"})
    assert runtime.how == {
        "providers": [("CUDAExecutionProvider", {"device_id": "1"})],
        "enable_fallback": 0,
    }
    assert runtime.entries["session.disable_cpu_ep_fallback"] == "1"
    assert runtime.entries["a"] == "b"
    assert runtime.options.intra_op_num_threads == 3
    assert providers.placement(session) == nodes
    runtime.nodes = {"OpenVINOExecutionProvider": 1, "DmlExecutionProvider": 1}
    providers.session(small, "openvino:npu")
    assert runtime.how["providers"] == [("OpenVINOExecutionProvider", {"device_type": "NPU"})]
    providers.session(small, "directml")
    assert runtime.options.enable_mem_pattern is False


def test_a_graph_in_parts_may_leave_nodes_to_the_cpu_if_asked(
    monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    runtime = faked(monkeypatch, providers.BUILT_IN, {"CUDAExecutionProvider": 7, providers.CPU: 2})
    providers.session(small, "cuda", whole=False)
    assert [p if isinstance(p, str) else p[0] for p in runtime.how["providers"]] == [
        "CUDAExecutionProvider",
        providers.CPU,
    ]
    assert "session.disable_cpu_ep_fallback" not in runtime.entries


def test_a_plugin_is_named_by_its_device(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    runtime = faked(monkeypatch, providers.PLUGIN, {"QNNExecutionProvider": 1})
    plugin = SimpleNamespace(get_qnn_htp_path=lambda: "htp.so")
    monkeypatch.setattr(providers.importlib, "import_module", lambda _: plugin)
    for machine, chip in (("x86_64", {"soc_model": "60"}), ("aarch64", {})):
        monkeypatch.setattr(providers.platform, "machine", lambda machine=machine: machine)
        providers.session(small, "qnn")
        devices, told = runtime.devices[-1]
        assert runtime.how["providers"] is None
        assert [device.number for device in devices] == [0]
        assert told["backend_path"] == "htp.so"
        assert {k: v for k, v in told.items() if k == "soc_model"} == chip
    providers.session(small, "qnn:57")
    assert runtime.devices[-1][1]["soc_model"] == "57"


def test_a_provider_that_took_nothing_is_no_success(
    monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    faked(monkeypatch, providers.BUILT_IN, {providers.CPU: 9})
    with pytest.raises(UsageError, match="small.onnx: cuda took none of its 9 nodes"):
        providers.session(small, "cuda")


def test_refusals_become_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="none.onnx is not there"):
        providers.session(tmp_path / "none.onnx", "cpu")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelFileError, match="bad.onnx is no complete ONNX graph") as caught:
        providers.session(tmp_path / "bad.onnx", "cpu")
    assert "\n" not in str(caught.value)
    moved = RuntimeError("nodes on the CPU, but fallback to CPU EP has been explicitly disabled")
    faked(monkeypatch, providers.BUILT_IN, {}, moved)
    path = graph(tmp_path / "dynamic.onnx", "n")
    with pytest.raises(UsageError, match="nodes that qnn does not take.*export onnx --npu qnn"):
        monkeypatch.setattr(providers, "provider_options", lambda *_: {})
        providers.session(path, "qnn")
    faked(monkeypatch, providers.BUILT_IN, {}, RuntimeError("driver\nis gone"))
    with pytest.raises(BackendError, match="cannot open dynamic.onnx .RuntimeError: driver is"):
        providers.session(path, "cuda")


def test_onnxruntime_itself_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OSError("no such file")

    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setattr(providers.native, "load", fails)
    with pytest.raises(UsageError, match="type `pip install onnxruntime`"):
        providers.runtime()
