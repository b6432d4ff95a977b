"""The shape of llama-cpp-python's and OpenAI's chat completions, as types of plain dictionaries."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, TypedDict

Finish = Literal["stop", "length", "tool_calls"]


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


class Function(TypedDict, total=False):
    """A function by its name, and its arguments in JSON, or a part of them."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call of a function."""

    id: str
    type: Literal["function"]
    function: Function


class CallDelta(TypedDict, total=False):
    """A part of a call; the first has its id and name."""

    index: int
    id: str
    type: Literal["function"]
    function: Function


class Said(TypedDict):
    """What the model said, None if it only called functions."""

    role: Literal["assistant"]
    content: str | None


class AnswerMessage(Said, total=False):
    """With its thoughts and calls, if it had any."""

    reasoning_content: str
    tool_calls: list[ToolCall]


class Choice(TypedDict):
    """One of n answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: Finish


class Usage(TypedDict):
    """Token counts of all answers; those of each end with what met a stop string or token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timings(TypedDict):
    """How it went, first by llama.cpp's names.

    prompt_n: tokens that were read, those that were known already not counted. prompt_ms: up to the
    first token. times_plain: speed over plain decoding, 0 if that is not known. paused: why less
    was drafted than could be, "" if not.
    """

    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    draft_n: int
    draft_n_accepted: int
    tested_n: int
    accepted_by_position: list[int]
    tested_by_position: list[int]
    times_plain: float
    paused: str


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
    tool_calls: list[CallDelta]


class ChunkChoice(TypedDict):
    """The next part of one answer."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: Finish | None


class Chunk(TypedDict):
    """A part of an answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]


class Own(TypedDict):
    """drafted: whether the drafter proposed the token that ended this part."""

    drafted: bool


class ChatChunk(Chunk, total=False):
    """usage: the token counts, if asked for: None but in the last chunk, which has no choice.

    timings: of an answer, in its last part. edgespec: of a part with text, if asked for.
    """

    usage: Usage | None
    timings: Timings
    edgespec: Own


Chunks = Generator[ChatChunk, None, None]
