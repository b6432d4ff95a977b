"""POST /v1/chat/completions: a request's fields to what completion.py makes of a generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from edgespec.server.asked import Served, beginner, passed
from edgespec.server.fields import required
from edgespec.server.refusal import Refusal
from edgespec.server.work import Work
from edgespec.session.completion import Answer, Begin
from edgespec.session.question import prompt_of
from edgespec.session.request import ChatOptions, request_of
from edgespec.session.shape import ChatCompletion

TAKEN = ("logprobs", "top_logprobs", "response_format", "n", "max_tokens", "max_completion_tokens",
         "stream_options", "chat_template_kwargs", "tools", "tool_choice")  # fmt: skip


def whole(served: Served, given: Mapping[str, Any], work: Work) -> ChatCompletion:
    """The answer in one piece."""
    answer, begin = asked(served, given, work)
    return answer.whole(begin)


def parts(served: Served, given: Mapping[str, Any], work: Work) -> Iterator[Any]:
    """The answer's chunks as they come, and the word that ends them."""
    answer, begin = asked(served, given, work)
    yield from answer.chunks(begin)
    yield "data: [DONE]\n\n"


def asked(served: Served, given: Mapping[str, Any], work: Work) -> tuple[Answer, Begin]:
    """What a request asks for, and what begins it. Raises: Refusal, UsageError, ContextError."""
    messages = required(given, "messages")
    if not messages:
        raise Refusal(400, "messages is empty: expected one at least", param="messages")
    check(given)
    taken = {name: given[name] for name in TAKEN if name in given}
    options = cast(ChatOptions, {**passed(given), **effort(given), **taken})
    request = request_of(options, stream=bool(given.get("stream")))
    request = replace(
        request, options=served.limited(request.options), drafted=bool(given.get("show_drafted"))
    )
    served.check_n(request.n)
    answering = served.answering
    config = answering.with_options(request.options)
    config = replace(config, stop=(*config.stop, *answering.template.stop))
    ids = prompt_of(answering, messages, request, config)
    calls = None if request.tools is None else partial(request.tools.reader, answering.template)
    answer = Answer(served.name, len(ids), request, served.token_bytes, calls)
    return answer, beginner(served, work, ids, config, request.options)


def check(given: Mapping[str, Any]) -> None:
    """Raises: Refusal for fields that do not go together."""
    if given.get("top_logprobs") and not given.get("logprobs"):
        text = "top_logprobs without logprobs: expected logprobs, true"
        raise Refusal(400, text, param="top_logprobs", code="invalid_value")
    if given.get("modalities", ["text"]) != ["text"]:
        text = 'modalities: expected ["text"], all that this model writes'
        raise Refusal(400, text, param="modalities", code="invalid_value")


def effort(given: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's effort as what a model here can be told: to think, or not to."""
    wanted = given.get("reasoning_effort")
    if wanted is None or "think" in given:
        return {}
    return {"think": "off"} if wanted in ("none", "minimal") else {}
