"""POST /v1/embeddings: a vector for each text, by a model that was made for that."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgespec.errors import ContextError
from edgespec.server.asked import Served
from edgespec.server.fields import required
from edgespec.server.refusal import Refusal, line
from edgespec.server.tokens import texts_of
from edgespec.server.work import Work
from edgespec.session.embedding import shortened
from edgespec.types import FloatArray

MOST_TEXTS = 2048  # as OpenAI has it


def whole(served: Served, given: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """The vectors, in the order of the texts. Raises: Refusal, ContextError, BusyError."""
    model = served.embedding
    width = width_of(given, model.n_embd)
    asked = required(given, "input")
    texts = texts_of(served, asked, "input", MOST_TEXTS, lambda: work.is_wanted)
    work.prepared()

    def wanted() -> bool:
        work.computes = True  # this is asked where the turn has come
        return work.is_wanted

    try:
        vectors = shortened(model.embed(texts, wanted), width)
    except ContextError as error:
        code = "context_length_exceeded" if all(texts) else "invalid_value"
        raise Refusal(400, line(error), param="input", code=code) from error
    as_text = given.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": written(one, as_text=as_text)}
        for i, one in enumerate(vectors)
    ]
    n = sum(map(len, texts))
    usage = {"prompt_tokens": n, "total_tokens": n}
    return {"object": "list", "data": data, "model": served.name, "usage": usage}


def width_of(given: Mapping[str, Any], n_embd: int) -> int:
    """Numbers of a vector that are wanted. Raises: Refusal for more than there are."""
    width = int(given.get("dimensions", n_embd))
    if width > n_embd:
        text = f"dimensions is {width}: expected 1 to {n_embd}, which the model gives"
        raise Refusal(400, text, param="dimensions", code="invalid_value")
    return width


def written(vector: Sequence[float] | FloatArray, *, as_text: bool) -> list[float] | str:
    """A vector as numbers, or as base64 of little-endian float32."""
    if as_text:
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
    return [float(x) for x in vector]
