"""Who still uses an embedding model when it is closed, told with one that is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.session.embedding import PART, Embedding
from edgespec.types import FloatArray


class Slow:
    """An embedder, and its tokenizer, that is busy until it is let go. log: what it did."""

    n_embd, n_context, n_vocab = 2, 8, 4

    def __init__(self) -> None:
        self.busy, self.go, self.log = threading.Event(), threading.Event(), list[str]()
        self.tokenizer: Any = self

    def done(self, what: str) -> None:
        self.busy.set()
        self.go.wait(5)
        self.log.append(what)

    def framed(self, _: str) -> list[int]:
        self.done("read")
        return [1]

    def check(self, _: Any) -> None: ...

    def embed(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        self.done("embedded")
        return np.ones((len(texts), 2), np.float32)

    def cancel(self) -> None:
        self.log.append("cancelled")

    def close(self) -> None:
        self.log.append("freed")


def after_closing_amid(one: Slow, model: Embedding, call: Any) -> Any:
    """What `call` gave, amid which the model was closed from another thread."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(call)
        one.busy.wait(5)
        closed = pool.submit(model.close)
        while "cancelled" not in one.log and not closed.done():
            time.sleep(0.002)
        one.go.set()
        closed.result(5)
        return found


def test_nothing_is_freed_while_a_text_is_read() -> None:
    one = Slow()
    model = Embedding(Config(), Path("x"), one, n_queue=1)
    assert after_closing_amid(one, model, lambda: model.encode("x")).result() == [1]
    assert one.log == ["cancelled", "read", "freed"]
    with pytest.raises(UsageError, match="closed: open it again"):
        model.encode("x")


def test_closing_waits_for_no_more_texts_than_are_read_at_a_time() -> None:
    one = Slow()
    model = Embedding(Config(), Path("x"), one, n_queue=1)
    found = after_closing_amid(one, model, lambda: model.embed([[1]] * 9 * PART, lambda: True))
    with pytest.raises(UsageError, match="closed: open it again"):
        found.result()
    assert one.log == ["cancelled", "embedded", "freed"]
