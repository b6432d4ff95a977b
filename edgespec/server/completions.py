"""POST /v1/completions: texts that go on, in the shape that OpenAI had before conversations."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from edgespec.config import Config
from edgespec.decode.engine import check_prompt
from edgespec.option import Options
from edgespec.server.asked import Served, beginner, passed
from edgespec.server.fields import required
from edgespec.server.refusal import Refusal
from edgespec.server.tokens import texts_of
from edgespec.server.work import Work
from edgespec.session.completion import FINISH, Begun, Pieces, timings
from edgespec.session.request import WHOLE_CONTEXT, wants_usage
from edgespec.session.turns import Run
from edgespec.types import Piece, Stats

MOST_PROMPTS = 32


@dataclass(frozen=True)
class Asked:
    """What a request asks for. prompts: ids of each. logprobs: of so many likeliest, -1: none."""

    prompts: Sequence[Sequence[int]]
    config: Config
    options: Options
    n: int
    logprobs: int
    echo: bool
    usage: bool
    drafted: bool


def whole(served: Served, given: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """All texts, one after another."""
    asked, out = asked_of(served, given, work), Out(served)
    choices, counted = list[dict[str, Any]](), list[Stats]()
    n_tokens = 0
    for index, prompt in numbered(asked):
        begun = begin(served, work, asked, prompt, index)
        said = list(begun.pieces)
        lead = out.text(prompt) if asked.echo else ""
        text = lead + "".join(piece.text for piece in said)
        scores = out.scores(said, asked, len(lead))
        choices.append(choice(index, text, scores, FINISH.get(begun.result.finish, "length")))
        counted.append(begun.counted())
        n_tokens += len(begun.result.output)
    usage = usage_of(asked, n_tokens)
    return {**out.head, "choices": choices, "usage": usage, "timings": timings(counted)}


def parts(served: Served, given: Mapping[str, Any], work: Work) -> Iterator[Any]:
    """The same as it comes, and the word that ends it."""
    asked, out = asked_of(served, given, work), Out(served)
    more = {"usage": None} if asked.usage else {}
    n_tokens = 0
    for index, prompt in numbered(asked):
        begun, at = begin(served, work, asked, prompt, index), 0
        if asked.echo:
            at = len(out.text(prompt))
            yield {**out.head, "choices": [choice(index, out.text(prompt), None, None)], **more}
        for piece in begun.pieces:
            scores = out.scores([piece], asked, at)
            part = {**out.head, "choices": [choice(index, piece.text, scores, None)], **more}
            yield {**part, "edgespec": {"drafted": piece.from_draft}} if asked.drafted else part
            at += len(piece.text)
        last = choice(index, "", None, FINISH.get(begun.result.finish, "length"))
        yield {**out.head, "choices": [last], "timings": timings([begun.counted()]), **more}
        n_tokens += len(begun.result.output)
    if asked.usage:
        yield {**out.head, "choices": [], "usage": usage_of(asked, n_tokens)}
    yield "data: [DONE]\n\n"


def begin(served: Served, work: Work, asked: Asked, prompt: Sequence[int], index: int) -> Begun:
    """The generation of one of the texts; each prompt's begin with the seed."""
    if asked.config.max_tokens == 0:
        check_prompt(prompt, served.answering.n_context)
        return Begun(cast(Pieces, iter(())), Run(finish="length"), Stats)
    return beginner(served, work, prompt, asked.config, asked.options)(index % asked.n)


def numbered(asked: Asked) -> Iterator[tuple[int, Sequence[int]]]:
    """Every text's number and prompt."""
    every = [prompt for prompt in asked.prompts for _ in range(asked.n)]
    return enumerate(every)


class Out:
    """What is said in this shape."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }

    def text(self, ids: Sequence[int]) -> str:
        """What ids spell, control tokens left out."""
        piece = self._served.answering.tokenizer.piece
        return b"".join(map(piece, ids)).decode("utf-8", "replace")

    def scores(self, pieces: Sequence[Piece], asked: Asked, at: int) -> dict[str, Any] | None:
        """Log probabilities of the tokens in these pieces, which begin at this letter."""
        if asked.logprobs < 0:
            return None
        tokens, values, tops, offsets = [], list[float](), list[dict[str, float]](), list[int]()
        for token, score in (one for piece in pieces for one in piece.scores):
            tokens.append(self._one(token))
            values.append(score.logprob)
            tops.append({self._one(other): logprob for other, logprob in score.top})
            offsets.append(at)
            at += len(tokens[-1])
        more = {"token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}
        return {"tokens": tokens, **more}

    def _one(self, token: int) -> str:
        return self._served.token_bytes(token).decode("utf-8", "replace")


def choice(
    index: int, text: str, scores: Mapping[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    """One text, or a part of one."""
    return {"index": index, "text": text, "logprobs": scores, "finish_reason": finish}


def usage_of(asked: Asked, n_tokens: int) -> dict[str, int]:
    """Token counts of all texts."""
    n_prompt = sum(map(len, asked.prompts))
    total = n_prompt + n_tokens
    return {"prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": total}


def asked_of(served: Served, given: Mapping[str, Any], work: Work) -> Asked:
    """What the fields ask for. Raises: Refusal, UsageError, Cancelled."""
    n, logprobs = given.get("n", 1), given.get("logprobs", -1)
    prompt = required(given, "prompt")
    prompts = texts_of(served, prompt, "prompt", MOST_PROMPTS, lambda: work.is_wanted)
    if given.get("best_of", n) != n:
        text = f"best_of is {given['best_of']}, n is {n}: expected the same; leave best_of out"
        raise Refusal(400, text, param="best_of", code="unsupported_parameter")
    if given.get("echo") and logprobs >= 0:
        text = "echo with logprobs: expected one of them, as prompts are not scored"
        raise Refusal(400, text, param="echo", code="unsupported_parameter")
    served.check_n(n)
    found = passed(given)
    if logprobs >= 0:
        found["n_top"] = logprobs
    if (n_tokens := given.get("max_tokens")) is not None:
        found["max_tokens"] = WHOLE_CONTEXT if n_tokens < 0 else n_tokens
    options = served.limited(cast(Options, found))
    stream = bool(given.get("stream"))
    return Asked(
        prompts, served.answering.with_options(options), options, n, logprobs,
        bool(given.get("echo")), wants_usage(given.get("stream_options"), stream=stream),
        bool(given.get("show_drafted")),
    )  # fmt: skip
