"""What the requests have in common, in the terms of a session: options, limits, seeds, models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.option import Options
from edgespec.server.limits import Limits
from edgespec.server.refusal import Refusal
from edgespec.server.work import Work
from edgespec.session.completion import Begun
from edgespec.session.embedding import Embedding, Embeds
from edgespec.session.many.many import Answers

PASSED = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "repeat_penalty", "verification",
    "presence_penalty", "frequency_penalty", "speculative", "draft_tokens", "think", "logit_bias",
)  # fmt: skip


@dataclass(frozen=True)
class Served:
    """The model that a request is answered by, its name, and what may be asked of it."""

    opened: Answers | Embeds
    name: str
    limits: Limits

    @property
    def answering(self) -> Answers:
        """A model that generates text. Raises: Refusal where it is none."""
        if isinstance(self.opened, Embedding):
            raise self._unlike("gives vectors and no text", "a model that generates text")
        return cast(Answers, self.opened)

    @property
    def embedding(self) -> Embeds:
        """A model that gives vectors. Raises: Refusal where it is none."""
        if isinstance(self.opened, Embedding):
            return self.opened
        raise self._unlike("generates text and gives no embeddings", "an embedding model")

    def _unlike(self, seen: str, expected: str) -> Refusal:
        text = f"{self.name!r} {seen}: expected {expected}; see /v1/models"
        return Refusal(400, text, param="model", code="unsupported_model")

    def token_bytes(self, token: int) -> bytes:
        """What a token spells, control tokens included."""
        return self.opened.tokenizer.piece(token, special=True)

    def limited(self, options: Options) -> Options:
        """The options, with no more tokens than an answer may have. Raises: UsageError."""
        most, asked = self.limits.n_tokens, options.get("max_tokens")
        if not most:
            return options
        own = min(self.answering.config.max_tokens, most)
        if asked is not None and most < asked < 1 << 30:
            raise UsageError(f"max_tokens is {asked}: expected at most {most}")
        return {**options, "max_tokens": own if asked is None else min(asked, most)}

    def check_n(self, n: int, name: str = "n") -> None:
        """Raises: Refusal for more answers than one request may ask for."""
        if n > self.limits.n:
            text = f"{name} is {n}: expected at most {self.limits.n}"
            raise Refusal(400, text, param=name, code="invalid_value")


def passed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that mean the same to a session. Raises: Refusal for a grammar that is a path."""
    found = {name: given[name] for name in PASSED if name in given}
    found.update(edges(found))
    bias = found.get("logit_bias")
    if bias is not None:
        found["logit_bias"] = {int(token): value for token, value in bias.items()}
    gbnf = given.get("grammar")
    if gbnf:
        if "::=" not in gbnf:  # a session would take it for a file's name
            raise Refusal(
                400, f"grammar is {gbnf[:40]!r}: expected GBNF, such as root ::= \"yes\" | \"no\"",
                param="grammar", code="invalid_value",
            )  # fmt: skip
        found["grammar"] = gbnf
    return found


def edges(given: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenAI takes at the edge of a field, as a session knows it; None: as if absent."""
    found: dict[str, Any] = {}
    if given.get("top_p") == 0:
        found.update(top_p=None, top_k=1)  # the likeliest alone
    if given.get("seed", 0) < 0:
        found["seed"] = None
    stop = given.get("stop")
    if stop is not None:
        found["stop"] = [one for one in ([stop] if isinstance(stop, str) else stop) if one] or None
    return found


def beginner(
    served: Served, work: Work, ids: Sequence[int], config: Config, options: Options
) -> Callable[[int], Begun]:
    """Begins the answer with an index, with a seed one more for each."""

    def begin(index: int) -> Begun:
        seed = None if config.seed is None else config.seed + index
        return work.begin(served.answering, ids, replace(config, seed=seed), options)

    return begin


def options_of(found: Mapping[str, Any]) -> Options:
    """As a session's options."""
    return cast(Options, dict(found))
