"""Answers in the shape of llama-cpp-python's `create_chat_completion`, whole or in chunks.

Knows the shape alone: pieces of text come in, plain dictionaries go out. Apps written for that
library, or for OpenAI's chat completions, find what they expect.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict

from edgespec.errors import UsageError
from edgespec.types import Options, Piece, Stats, TokenScore

Message = Mapping[str, Any]
FINISH: Mapping[str, Literal["stop", "length"]] = {"stop": "stop"}  # all else ended early
TYPES = ("text", "json_object", "json_schema")
WHOLE_CONTEXT = 1 << 30  # more tokens than any context has


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


class AnswerMessage(TypedDict):
    """What the model said."""

    role: Literal["assistant"]
    content: str


class Choice(TypedDict):
    """The one answer."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"]


class Usage(TypedDict):
    """Token counts; completion tokens end with the one that met a stop string or token."""

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


class ChunkChoice(TypedDict):
    """The one answer's next part."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(TypedDict):
    """A part of an answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]


class Result(Protocol):
    """What is known of a generation once it is over; see generation.Run."""

    finish: str
    output: list[int]


def adapted(
    options: Options,
    response_format: Mapping[str, Any] | None,
    logprobs: bool,
    top_logprobs: int | None,
) -> Options:
    """The options of `Session.chat` for a call in llama-cpp-python's terms.

    A negative or zero max_tokens means up to the end of the context; a negative seed counts as none
    given: the session's own, or a fresh one. Raises: UsageError.
    """
    out = options.copy()
    if logprobs:
        out["n_top"] = checked_top(top_logprobs)
    if response_format is not None:
        out["json_schema"], out["grammar"] = schema_of(response_format), ""
    n_tokens, seed = out.get("max_tokens"), out.get("seed")
    if n_tokens is not None and n_tokens <= 0:
        out["max_tokens"] = WHOLE_CONTEXT
    if seed is not None and seed < 0:
        out["seed"] = None
    return out


def checked_top(n: int | None) -> int:
    """How many likeliest tokens are asked for. Raises: UsageError."""
    if n is None:
        return 0
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise UsageError(f"top_logprobs is {n!r}: expected a whole number, 0 or more")
    return n


def plain(messages: Sequence[Message]) -> list[Message]:
    """Messages whose content is a list of text parts, with the parts joined.

    Raises: UsageError for messages that are no list, or parts that are not text.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise UsageError(f"messages is {messages!r:.60}: expected a list of role and content")
    return [joined(message) for message in messages]


def joined(message: Message) -> Message:
    """One message, its text parts joined."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list):
        return message
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise UsageError(f"content part {part!r:.60}: expected text; this is no vision model")
    return {**message, "content": "".join(str(part.get("text", "")) for part in content)}


def schema_of(response_format: Mapping[str, Any]) -> str:
    """The JSON schema that an answer of this form fits; "" for plain text.

    Raises: UsageError for a form that is neither text, json_object nor json_schema.
    """
    kind = response_format.get("type") if isinstance(response_format, Mapping) else response_format
    if not isinstance(response_format, Mapping) or kind not in TYPES:
        expected = ", ".join(f'{{"type": "{one}"}}' for one in TYPES)
        raise UsageError(f"response_format is of type {kind!r}: expected one of {expected}")
    if kind == "text":
        return ""
    schema: Any = response_format.get("schema", {})
    if kind == "json_schema":
        schema = response_format.get("json_schema", {})
        schema = schema.get("schema") if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping):
        raise UsageError(
            f"response_format {dict(response_format)!r:.80}: expected a schema, as in "
            '{"type": "json_schema", "json_schema": {"schema": {...}}}'
        )
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise UsageError(f"response_format: {error}: expected a schema in plain JSON") from error


class Answer:
    """One answer in either shape. token_bytes: what a token spells, control tokens included."""

    def __init__(
        self, model: str, n_prompt: int, logprobs: bool, token_bytes: Callable[[int], bytes]
    ) -> None:
        self._model, self._n_prompt = model, n_prompt
        self._logprobs, self._token_bytes = logprobs, token_bytes
        self._id = f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())

    def whole(
        self, pieces: Iterator[Piece], result: Result, counted: Callable[[], Stats]
    ) -> ChatCompletion:
        """All pieces as one answer."""
        said = list(pieces)
        n_tokens = len(result.output)
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "".join(piece.text for piece in said),
                    },
                    "logprobs": self._scores(said),
                    "finish_reason": FINISH.get(result.finish, "length"),
                }
            ],
            "usage": {
                "prompt_tokens": self._n_prompt,
                "completion_tokens": n_tokens,
                "total_tokens": self._n_prompt + n_tokens,
            },
            "timings": timings(counted()),
        }

    def chunks(self, pieces: Iterator[Piece], result: Result) -> Iterator[ChatChunk]:
        """The role, then each piece as it comes, then why it ended."""
        yield self._chunk({"role": "assistant"})
        for piece in pieces:
            yield self._chunk({"content": piece.text}, self._scores([piece]))
        yield self._chunk({}, finish=FINISH.get(result.finish, "length"))

    def _chunk(
        self,
        delta: Delta,
        scores: Logprobs | None = None,
        finish: Literal["stop", "length"] | None = None,
    ) -> ChatChunk:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "logprobs": scores, "finish_reason": finish}],
        }

    def _scores(self, pieces: list[Piece]) -> Logprobs | None:
        if not self._logprobs:
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


def timings(stats: Stats) -> Timings:
    """How a generation went."""
    return {
        "prompt_n": stats.n_prompt,
        "predicted_n": stats.n_tokens,
        "predicted_ms": 1e3 * stats.decode_s,
        "predicted_per_second": stats.tokens_per_s,
        "draft_n": stats.n_drafted,
        "draft_n_accepted": stats.n_accepted,
    }
