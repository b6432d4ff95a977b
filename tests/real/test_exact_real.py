"""`--exact` on the public pairs: the same tokens with drafting as without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import edgespec
from edgespec.cli.prompts import built_in

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def exact(pair: str) -> Iterator[edgespec.Session]:
    with edgespec.load(pair=pair, ctx_size=1024, max_tokens=24, exact=True) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["questions", "code", "rewriting"])
def test_no_token_depends_on_what_is_drafted(exact: edgespec.Session, kind: str) -> None:
    said, n_tested = dict[str, str](), dict[str, int]()
    for how in ("off", "on", "auto"):
        pieces = exact.chat(built_in(kind)[1].messages, speculative=how)
        said[how] = "".join(piece.text for piece in pieces)
        n_tested[how] = exact.stats.n_tested
    assert said["on"] == said["auto"] == said["off"]
    assert n_tested["on"] > 0 == n_tested["off"]
