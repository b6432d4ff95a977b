"""ONNX Runtime's C library as an Android app has it: the one within the Python package's wheel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest

from edgespec.backends.onnx import providers
from edgespec.backends.onnx.native import api, package


def library() -> Path:
    """The wheel's own libonnxruntime.so; skips where a wheel has none."""
    spec = find_spec("onnxruntime")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [file for folder in folders for file in Path(folder).glob("capi/libonnxruntime.so.*")]
    if not found:
        pytest.skip("onnxruntime's wheel has no libonnxruntime.so on this system")
    return found[0]


@contextmanager
def without_the_package() -> Iterator[None]:
    """Within it, models are opened by the C library; they stay so."""
    with patch.dict(os.environ, {api.VARIABLE: str(library())}):
        package.load()
    with patch.object(providers, "runtime", lambda: package):
        yield
