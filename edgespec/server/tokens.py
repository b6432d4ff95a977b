"""POST /tokenize and /detokenize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgespec.errors import Cancelled
from edgespec.server.asked import Served
from edgespec.server.fields import integer, required
from edgespec.server.refusal import Refusal
from edgespec.server.work import Work
from edgespec.session.request import plain


def tokenize(served: Served, given: Mapping[str, Any], _: Work) -> dict[str, Any]:
    """Ids of a text as the model reads it, or of a conversation. Raises: Refusal, UsageError."""
    opened = served.opened
    if "messages" in given:
        ids = list(served.answering.prompt(plain(given["messages"])))
    else:
        text = given["prompt"] if "prompt" in given else required(given, "content")
        special = given.get("add_special", True)
        ids = opened.encode(text) if special else opened.tokenizer.encode(text)
    return {"tokens": ids, "count": len(ids), "max_model_len": opened.n_context}


def detokenize(served: Served, given: Mapping[str, Any], _: Work) -> dict[str, Any]:
    """The text of ids, control tokens included. Raises: Refusal."""
    ids = ids_of(required(given, "tokens"), served, "tokens")
    text = b"".join(map(served.token_bytes, ids)).decode("utf-8", "replace")
    return {"content": text, "prompt": text}


def ids_of(found: list[Any], served: Served, param: str) -> list[int]:
    """Token ids that were given. Raises: Refusal for what is none of the vocabulary's."""
    check = integer(0, served.opened.n_vocab - 1)
    for one in found:
        if expected := check(one):
            text = f"{param} has {one!r:.40}: expected {expected}"
            raise Refusal(400, text, param=param, code="invalid_value")
    return found


def texts_of(
    served: Served, given: Any, param: str, most: int, wanted: Callable[[], bool]
) -> list[list[int]]:
    """The ids of every text: of a text, ids, or a list of at most so many of either.

    wanted: whether to go on. Raises: Refusal, Cancelled.
    """
    is_ids = isinstance(given, list) and all(isinstance(one, int) for one in given)
    texts = [given] if isinstance(given, str) or (is_ids and given) else list(given)
    if not 0 < len(texts) <= most:
        text = f"{param} has {len(texts)} texts: expected 1 to {most}"
        raise Refusal(400, text, param=param, code="invalid_value")
    found: list[list[int]] = []
    for one in texts:
        if not wanted():
            raise Cancelled("stopped: nobody waits for it")
        if isinstance(one, str):
            found.append(served.opened.encode(one))
        elif isinstance(one, list):
            found.append(ids_of(one, served, param))
        else:
            text = f"{param} has {one!r:.40}: expected texts, or lists of token ids"
            raise Refusal(400, text, param=param, code="invalid_value")
    return found
