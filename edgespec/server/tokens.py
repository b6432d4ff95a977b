"""POST /tokenize, /detokenize and /v1/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from edgespec.server.asked import Served
from edgespec.server.fields import integer, required
from edgespec.server.refusal import Refusal
from edgespec.server.work import Work
from edgespec.session.request import plain


def tokenize(served: Served, given: Mapping[str, Any], _: Work) -> dict[str, Any]:
    """Ids of a text as the model reads it, or of a conversation. Raises: Refusal, UsageError."""
    answering = served.answering
    if "messages" in given:
        ids = list(answering.prompt(plain(given["messages"])))
    else:
        text = given["prompt"] if "prompt" in given else required(given, "content")
        special = given.get("add_special", True)
        ids = answering.encode(text) if special else answering.tokenizer.encode(text)
    return {"tokens": ids, "count": len(ids), "max_model_len": answering.n_context}


def detokenize(served: Served, given: Mapping[str, Any], _: Work) -> dict[str, Any]:
    """The text of ids, control tokens included. Raises: Refusal."""
    ids = ids_of(required(given, "tokens"), served, "tokens")
    text = b"".join(map(served.token_bytes, ids)).decode("utf-8", "replace")
    return {"content": text, "prompt": text}


def ids_of(found: list[Any], served: Served, param: str) -> list[int]:
    """Token ids that were given. Raises: Refusal for what is none of the vocabulary's."""
    check = integer(0, served.answering.n_vocab - 1)
    for one in found:
        if expected := check(one):
            text = f"{param} has {one!r:.40}: expected {expected}"
            raise Refusal(400, text, param=param, code="invalid_value")
    return found


def embeddings(served: Served, _: Mapping[str, Any], __: Work) -> NoReturn:
    """Raises: Refusal: what is served generates text."""
    raise Refusal(
        501, f"{served.name!r} generates text and gives no embeddings: expected an embedding "
        "model; ask a server that has one", param="model", code="unsupported_model",
    )  # fmt: skip
