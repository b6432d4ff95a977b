"""Answers in the shape of llama-cpp-python's `create_chat_completion`, whole or in chunks.

Knows the shape alone: pieces of text come in, plain dictionaries go out. Apps written for that
library, or for OpenAI's chat completions, find what they expect.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from edgespec.session.request import Request
from edgespec.types import Piece, Stats, TokenScore

FINISH: Mapping[str, Literal["stop", "length"]] = {"stop": "stop"}  # all else ended early


class TopLogprob(TypedDict):
    """One token, as text and bytes, and the natural logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """An emitted token with the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class Logprobs(TypedDict):
    """Log probabilities before the sampling chain."""

    content: list[TokenLogprob]
    refusal: None


class Said(TypedDict):
    """What the model said."""

    role: Literal["assistant"]
    content: str


class AnswerMessage(Said, total=False):
    """With its thoughts, if it had any."""

    reasoning_content: str


class Choice(TypedDict):
    """One of n answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"]


class Usage(TypedDict):
    """Token counts of all answers; those of each end with what met a stop string or token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timings(TypedDict):
    """How it went, by llama.cpp's names."""

    prompt_n: int
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    draft_n: int
    draft_n_accepted: int


class ChatCompletion(TypedDict):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    timings: Timings


class Delta(TypedDict, total=False):
    """What a chunk adds."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str


class ChunkChoice(TypedDict):
    """The next part of one answer."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class Chunk(TypedDict):
    """A part of an answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]


class ChatChunk(Chunk, total=False):
    """With the token counts, if asked for: None but in the last chunk, which has no choice."""

    usage: Usage | None


Chunks = Generator[ChatChunk, None, None]


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


class Answer:
    """All answers to a request. token_bytes: what a token spells, control tokens included."""

    def __init__(
        self, model: str, n_prompt: int, asked: Request, token_bytes: Callable[[int], bytes]
    ) -> None:
        self._model, self._n_prompt = model, n_prompt
        self._asked, self._token_bytes = asked, token_bytes
        self._id = f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())

    def whole(self, begin: Begin) -> ChatCompletion:
        """One generation after the other, each as one choice."""
        choices: list[Choice] = []
        stats: list[Stats] = []
        n_tokens = 0
        for index in range(self._asked.n):
            begun = begin(index)
            said = list(begun.pieces)
            message: AnswerMessage = {
                "role": "assistant",
                "content": "".join(piece.text for piece in said if not piece.is_thought),
            }
            thought = "".join(piece.text for piece in said if piece.is_thought)
            if thought.strip():
                message["reasoning_content"] = thought
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": self._scores(said),
                    "finish_reason": FINISH.get(begun.result.finish, "length"),
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
            yield self._part(index, {"role": "assistant"})
            for piece in begun.pieces:
                delta: Delta = {"content": piece.text}
                if piece.is_thought:
                    delta = {"reasoning_content": piece.text}
                yield self._part(index, delta, self._scores([piece]))
            yield self._part(index, {}, finish=FINISH.get(begun.result.finish, "length"))
            n_tokens += len(begun.result.output)
        if self._asked.usage:
            yield self._chunk([], self._usage(n_tokens))

    def _part(
        self,
        index: int,
        delta: Delta,
        scores: Logprobs | None = None,
        finish: Literal["stop", "length"] | None = None,
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
        scored = [one for piece in pieces for one in piece.scores]
        return {"content": [self._scored(token, score) for token, score in scored], "refusal": None}

    def _scored(self, token: int, score: TokenScore) -> TokenLogprob:
        top = [self._one(other, logprob) for other, logprob in score.top]
        return {**self._one(token, score.logprob), "top_logprobs": top}

    def _one(self, token: int, logprob: float) -> TopLogprob:
        piece = self._token_bytes(token)
        text = piece.decode("utf-8", "replace")
        return {"token": text, "logprob": logprob, "bytes": list(piece)}


def timings(stats: Sequence[Stats]) -> Timings:
    """How the generations went, all together."""
    n_tokens, decode_s = sum(one.n_tokens for one in stats), sum(one.decode_s for one in stats)
    return {
        "prompt_n": sum(one.n_prompt for one in stats),
        "predicted_n": n_tokens,
        "predicted_ms": 1e3 * decode_s,
        "predicted_per_second": n_tokens / decode_s if decode_s > 0 else 0.0,
        "draft_n": sum(one.n_drafted for one in stats),
        "draft_n_accepted": sum(one.n_accepted for one in stats),
    }
