"""`--exact` at length: 600 greedy tokens of padded pairs, whose default texts part at ties."""

from __future__ import annotations

import itertools

import pytest

import edgespec

HEROES, DEEDS = ("fox", "king"), ("lost a kite", "broke a cup")


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["padded-q4_k_m", "padded-int4"])
def test_no_token_of_600_depends_on_what_is_drafted(pair: str) -> None:
    n_tokens, lengths = 0, set[int]()
    with edgespec.load(pair=pair, exact=True, max_tokens=200) as session:

        def answer(hero: str, deed: str, speculative: str, **how: int) -> list[int]:
            ask = [{"role": "user", "content": f"Tell me a long story about a {hero} who {deed}."}]
            for _ in session.chat(ask, speculative=speculative, **how):
                pass
            return list(session.turns.output)

        # auto may find that nothing pays, so half of the answers draft whatever pays
        ways = itertools.cycle([("on", {"draft_tokens": n}) for n in (2, 4)] + [("auto", {})] * 2)
        for (hero, deed), (way, how) in zip(itertools.product(HEROES, DEEDS), ways, strict=False):
            plain = answer(hero, deed, "off")
            assert answer(hero, deed, way, **how) == plain, (hero, deed)
            drafted = session.stats.rounds_by_length
            lengths |= {k for k, n_rounds in enumerate(drafted) if n_rounds}
            n_tokens += len(plain)
    print(pair, n_tokens, sorted(lengths))
    assert n_tokens >= 600 and len(lengths) > 2
