"""Answers in the shape of llama-cpp-python's `create_chat_completion`, whole or in chunks.

Knows the shape alone: pieces of text come in, plain dictionaries go out. Apps written for that
library, or for OpenAI's chat completions, find what they expect.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from edgespec.session.request import Request
from edgespec.session.shape import (
    AnswerMessage,
    CallDelta,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Chunks,
    Delta,
    Finish,
    Function,
    Logprobs,
    Timings,
    TokenLogprob,
    ToolCall,
    TopLogprob,
    Usage,
)
from edgespec.text.calls import Called, Calls
from edgespec.types import Piece, Stats, TokenScore

FINISH: Mapping[str, Finish] = {"stop": "stop"}  # all else ended early


class Result(Protocol):
    """What is known of a generation once it is over; see turns.Run."""

    @property
    def finish(self) -> str: ...

    @property
    def output(self) -> list[int]: ...


class Pieces(Iterator[Piece], Protocol):
    """What a generation says, as it comes."""

    def close(self) -> None:
        """Nobody reads on: the generation ends."""
        ...


@dataclass(frozen=True)
class Begun:
    """A generation that has begun, and where its counts are once it is over."""

    pieces: Pieces
    result: Result
    counted: Callable[[], Stats]


Begin = Callable[[int], Begun]
"""Begins the generation of the answer with this index."""


Calling = Callable[[], Calls]
"""Makes what tells calls from text in one answer."""


class Answer:
    """All answers to a request. token_bytes: what a token spells, control tokens included."""

    def __init__(
        self, model: str, n_prompt: int, asked: Request, token_bytes: Callable[[int], bytes],
        calls: Calling | None = None,
    ) -> None:  # fmt: skip
        """calls: of an answer that may have some."""
        self._model, self._n_prompt = model, n_prompt
        self._asked, self._token_bytes, self._calls = asked, token_bytes, calls
        self._id = f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())

    def whole(self, begin: Begin) -> ChatCompletion:
        """One generation after the other, each as one choice."""
        choices: list[Choice] = []
        stats: list[Stats] = []
        n_tokens = 0
        for index in range(self._asked.n):
            begun = begin(index)
            said = Saying(self._calls)
            pieces = list(begun.pieces)
            deltas = [delta for piece in pieces for delta in said.deltas(piece)]
            choices.append(
                {
                    "index": index,
                    "message": message_of([*deltas, *said.rest()]),
                    "logprobs": self._scores(pieces),
                    "finish_reason": said.finish(begun.result.finish),
                }
            )
            stats.append(begun.counted())
            n_tokens += len(begun.result.output)
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": choices,
            "usage": self._usage(n_tokens),
            "timings": timings(stats),
        }

    def chunks(self, begin: Begin) -> Chunks:
        """As they come; the first generation begins now, and says now what is wrong."""
        return self._chunks(begin(0), begin)

    def _chunks(self, begun: Begun, begin: Begin) -> Chunks:
        """Of each answer the role, then each piece, then why it ended; one answer after another."""
        n_tokens = 0
        for index in range(self._asked.n):
            begun = begin(index) if index else begun
            said = Saying(self._calls)
            yield self._part(index, {"role": "assistant"})
            for piece in begun.pieces:
                yield from self._pieces(index, said.deltas(piece), piece)
            for delta in said.rest():
                yield self._part(index, delta)
            last = self._part(index, {}, finish=said.finish(begun.result.finish))
            yield {**last, "timings": timings([begun.counted()])}
            n_tokens += len(begun.result.output)
        if self._asked.usage:
            yield self._chunk([], self._usage(n_tokens))

    def _pieces(self, index: int, deltas: list[Delta], piece: Piece) -> Chunks:
        """What a piece adds; its scores come with the first part of it."""
        scores = self._scores([piece])
        if scores is not None and not deltas:
            deltas = [{}]  # text that waits for more, of tokens that are scored already
        for delta in deltas:
            part = self._part(index, delta, scores)
            if self._asked.drafted:
                part["edgespec"] = {"drafted": piece.from_draft}
            yield part
            scores = None

    def _part(
        self,
        index: int,
        delta: Delta,
        scores: Logprobs | None = None,
        finish: Finish | None = None,
    ) -> ChatChunk:
        return self._chunk(
            [{"index": index, "delta": delta, "logprobs": scores, "finish_reason": finish}]
        )

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        chunk: ChatChunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if self._asked.usage:
            chunk["usage"] = usage
        return chunk

    def _usage(self, n_tokens: int) -> Usage:
        return {
            "prompt_tokens": self._n_prompt,
            "completion_tokens": n_tokens,
            "total_tokens": self._n_prompt + n_tokens,
        }

    def _scores(self, pieces: list[Piece]) -> Logprobs | None:
        if not self._asked.logprobs:
            return None
        scores = [one for piece in pieces for one in piece.scores]
        return {"content": scored(scores, self._token_bytes), "refusal": None}


def scored(
    scores: Sequence[tuple[int, TokenScore]], token_bytes: Callable[[int], bytes]
) -> list[TokenLogprob]:
    """Log probabilities of tokens and of their likeliest others, as OpenAI shows them."""

    def one(token: int, logprob: float) -> TopLogprob:
        piece = token_bytes(token)
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}

    return [
        {**one(token, score.logprob), "top_logprobs": [one(*other) for other in score.top]}
        for token, score in scores
    ]


class Saying:
    """One answer's pieces as deltas: thoughts, text and calls."""

    def __init__(self, calls: Calling | None) -> None:
        self._calls = None if calls is None else calls()

    def deltas(self, piece: Piece) -> list[Delta]:
        """What a piece adds, as far as it can be told."""
        if piece.is_thought:
            return [{"reasoning_content": piece.text}]
        if self._calls is None:
            return [{"content": piece.text}]
        return list(map(delta_of, self._calls.feed(piece.text)))

    def rest(self) -> list[Delta]:
        """What was held back, once all pieces have come."""
        return [] if self._calls is None else list(map(delta_of, self._calls.flush()))

    def finish(self, why: str) -> Finish:
        """Why it ended."""
        known = FINISH.get(why, "length")
        has_called = self._calls is not None and self._calls.n_calls
        return "tool_calls" if has_called and known == "stop" else known


def delta_of(part: str | Called) -> Delta:
    """A part of the text, or of a call, which has an id where it begins."""
    if isinstance(part, str):
        return {"content": part}
    if not part.name:
        return {"tool_calls": [{"index": part.index, "function": {"arguments": part.arguments}}]}
    call: CallDelta = {
        "index": part.index,
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": part.name, "arguments": part.arguments},
    }
    return {"tool_calls": [call]}


def message_of(deltas: Sequence[Delta]) -> AnswerMessage:
    """What deltas add up to."""
    said = "".join(delta.get("content", "") for delta in deltas)
    thought = "".join(delta.get("reasoning_content", "") for delta in deltas)
    calls: list[ToolCall] = []
    for part in (part for delta in deltas for part in delta.get("tool_calls", ())):
        if "id" in part:
            function: Function = {**part["function"]}
            calls.append({"id": part["id"], "type": "function", "function": function})
        else:
            calls[-1]["function"]["arguments"] += part["function"]["arguments"]
    message: AnswerMessage = {"role": "assistant", "content": said if said or not calls else None}
    if thought.strip():
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    return message


def timings(stats: Sequence[Stats]) -> Timings:
    """How the generations went, all together."""
    n_tokens, decode_s = sum(one.n_tokens for one in stats), sum(one.decode_s for one in stats)
    plain_s = [one.n_tokens * one.plain_token_s for one in stats]
    return {
        "prompt_n": sum(one.n_prompt for one in stats),
        "prompt_ms": 1e3 * sum(one.ttft_s for one in stats),
        "predicted_n": n_tokens,
        "predicted_ms": 1e3 * decode_s,
        "predicted_per_second": n_tokens / decode_s if decode_s > 0 else 0.0,
        "draft_n": sum(one.n_drafted for one in stats),
        "draft_n_accepted": sum(one.n_accepted for one in stats),
        "tested_n": sum(one.n_tested for one in stats),
        "accepted_by_position": summed([one.accepted_by_position for one in stats]),
        "tested_by_position": summed([one.tested_by_position for one in stats]),
        "times_plain": sum(plain_s) / decode_s if decode_s > 0 and all(plain_s) else 0.0,
        "paused": next((one.note for one in reversed(stats) if one.note), ""),
    }


def summed(rows: Sequence[Sequence[int]]) -> list[int]:
    """The sum in each place of rows of any length."""
    return [sum(place) for place in zip_longest(*rows, fillvalue=0)]
