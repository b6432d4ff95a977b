"""A server on loopback with the demo pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from serving import OPTIONS, Call, call

import edgespec
from edgespec.server.limits import Limits
from edgespec.server.running import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that drafts two tokens a round, answers within 20 s, and lets 3 requests wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        limits = Limits(body_bytes=1 << 20, queue=3, answer_s=20.0, read_s=2.0, n=4)
        with edgespec.serve(limits=limits, **OPTIONS) as one:
            yield one


@pytest.fixture
def ask(server: Server) -> Call:
    """Asks that server."""
    return lambda path, body=None, **more: call(server.url, path, body, **more)


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Any]:
    """OpenAI's own client, which tries nothing twice."""
    from openai import OpenAI

    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as one:
        yield one
