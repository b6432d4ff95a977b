"""What a request waits for beside others, in seconds: nothing else may run."""

from __future__ import annotations

import statistics
import time

import pytest

from edgespec.config import Config
from edgespec.session.many.opening import open_many

pytestmark = [pytest.mark.slow, pytest.mark.alone]
LONG, SHORT, TRIES = 4000, 20, 4


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        config = Config(ctx_size=LONG + 100, speculative="off")
        with open_many(config, n_parallel=2) as opened:
            yield opened


def ids(first: int, n: int) -> list[int]:
    return [first, *(100 + i % 300 for i in range(n - 1))]


def took(many, prompt, n=1) -> float:
    """Seconds until the first of n tokens."""
    options = {"max_tokens": n}
    start = time.perf_counter()
    begun = many.begin(prompt, many.with_options(options), options)
    next(begun.pieces)
    first_s = time.perf_counter() - start
    list(begun.pieces)
    return first_s


def test_a_short_prompt_does_not_wait_for_a_long_one(many):
    """In a try that nothing else disturbed."""
    took(many, ids(7, SHORT))
    assert any(is_soon(many) for _ in range(TRIES))


def is_soon(many) -> bool:
    """Whether a short prompt's first token takes at most twice its time alone, and the part's of
    the long prompt that was being read when it came.

    Of what a text in the other slot adds, all of these have it: the cache is one.
    """
    start = time.perf_counter()
    took(many, ids(20, LONG))
    whole = time.perf_counter() - start
    alone = statistics.median(took(many, ids(10 + i, SHORT)) for i in range(7))
    with pytest.MonkeyPatch.context() as patch:
        parts = timed(many, patch)
        waits = [beyond_its_part(many, parts, 30 + i, whole * (i + 1) / 8) for i in range(5)]
    print(f"alone {alone:.4f} s, beside a long prompt {sorted(waits)} more than its part")
    return statistics.median(waits) < 2 * alone


def beyond_its_part(many, parts, first, after_s) -> float:
    """What a short prompt's first token takes `after_s` after a long one, less the part it met."""
    options = {"max_tokens": 1}
    long = many.begin(ids(first, LONG), many.with_options(options), options)
    time.sleep(after_s)
    was_read, n_parts = many.load().n_running == 1, len(parts)
    beside = took(many, ids(first + 20, SHORT))
    is_beside = was_read and many.load().n_running == 1
    list(long.pieces)
    return beside - parts[n_parts] if is_beside else float("inf")


def timed(many, patch) -> list[float]:
    """Seconds of each forward of parts alone, as they come."""
    shared, seconds = many.rounds._shared, []
    forward = shared.forward

    def clocked(rows, reads):
        start = time.perf_counter()
        out = forward(rows, reads)
        if not rows:
            seconds.append(time.perf_counter() - start)
        return out

    patch.setattr(shared, "forward", clocked)
    return seconds


def test_an_answer_goes_on_while_a_long_prompt_is_read(many):
    """In a try in which both were seen at once: a prompt may be read between two looks."""
    assert any(n_beside(many, 60 + i) > 10 for i in range(TRIES))


def n_beside(many, first: int) -> int:
    """Pieces of a running answer that come while a long prompt is read."""
    endless = dict.fromkeys(many.tokenizer.stop_tokens, -100.0)
    options = {"max_tokens": 400, "logit_bias": endless}
    running = many.begin(ids(7, SHORT), many.with_options(options), options)
    next(running.pieces)
    long = many.begin(ids(first, LONG), many.with_options({"max_tokens": 1}), {"max_tokens": 1})
    until = time.monotonic() + 1
    while many.load().n_running < 2 and time.monotonic() < until:
        time.sleep(0.001)
    n = 0
    while many.load().n_running == 2:
        next(running.pieces)
        n += 1
    running.pieces.close()
    list(long.pieces)
    return n
