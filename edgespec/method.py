"""Ways to decode by name: which drafter, and who decides how much it drafts.

"plain" drafts nothing, "auto" as much as pays, "fixed-4" always 4 tokens, "ngram" looks the text
itself up in place of the configured drafter. All methods share the models that are open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgespec.config import Config
from edgespec.controller import AutoController, FixedController
from edgespec.cost import CostTable
from edgespec.drafters import find_drafter
from edgespec.errors import UsageError
from edgespec.protocols import Controller, Drafter, LanguageModel, Tokenizer
from edgespec.types import ModelInfo

ALWAYS = 4  # tokens drafted per round with `--speculative on` unless told


class OpenModel(LanguageModel, Protocol):
    """What a backend hands back: a language model with its tokenizer and a name tag."""

    tokenizer: Tokenizer

    def info(self) -> ModelInfo:
        """What the model is."""
        ...

    def cancel(self) -> None:
        """End the forward in progress with Cancelled; callable from any thread."""
        ...


@dataclass(frozen=True)
class Method:
    """A drafter and the controller that paces it; either may have learned from earlier rounds."""

    name: str
    drafter: Drafter | None
    controller: Controller


class Methods:
    """Makes methods for one target. costs: called when a method first needs the cost table."""

    def __init__(
        self,
        config: Config,
        draft_model: OpenModel | None,
        own: Drafter | None,
        costs: Callable[[], CostTable],
    ) -> None:
        self._config, self._costs, self._own = config, costs, own
        # One per model: two would fight over the model's cache.
        self._model: Drafter | None = None
        if draft_model is not None:
            self._model = find_drafter("model")(draft_model)

    def configured(self) -> Method:
        """The method that the configuration asks for."""
        config = self._config
        if config.speculative == "off" or config.draft_tokens == 0 or config.drafter == "none":
            return self.named("plain")
        if config.speculative == "on":
            k = ALWAYS if config.draft_tokens == "auto" else config.draft_tokens
            return self.named(f"fixed-{k}")
        return self.named("auto")

    def named(self, name: str) -> Method:
        """A method by name, with nothing learned yet. Raises: UsageError for an unknown name."""
        if name == "plain":
            return Method(name, None, FixedController(0))
        if name.startswith("fixed-") and name[6:].isdecimal():
            fixed = FixedController(int(name[6:]))
            return Method(name, self._drafter("", fixed), fixed)
        if name in ("auto", "ngram"):
            auto = AutoController(self._table())
            return Method(name, self._drafter("ngram" if name == "ngram" else "", auto), auto)
        raise UsageError(f"no method is called {name!r}: expected plain, auto, ngram or fixed-4")

    def _table(self) -> CostTable:
        """The cost table as far as `--draft-tokens` allows drafts."""
        costs, most = self._costs(), self._config.draft_tokens
        return costs if isinstance(most, str) else CostTable(costs.seconds[: most + 1])

    def _drafter(self, names: str, controller: AutoController | FixedController) -> Drafter:
        """The drafter of a comma list; empty for the configured one."""
        if not names and self._own is not None:
            return self._own
        chosen = names or self._config.drafter
        if chosen == "auto":
            chosen = "ngram,model" if self._model is not None else "ngram"
        parts = [self._one(name) for name in chosen.split(",")]
        if len(parts) == 1 and isinstance(controller, FixedController):
            return parts[0]
        # Even one drafter is mixed: its drafts are then cut to what its confidence promises.
        mixed: Drafter = find_drafter("mixed")(parts, controller)
        return mixed

    def _one(self, name: str) -> Drafter:
        if name == "ngram":
            ngram: Drafter = find_drafter("ngram")()
            return ngram
        if name == "model" and self._model is not None:
            return self._model
        if name == "none":
            raise UsageError("--drafter is none: expected a drafter to draft with, as in ngram")
        raise UsageError(f"--drafter {name} without a draft model: give one with -md, or use ngram")


def check_vocabularies(target: OpenModel, draft: OpenModel) -> None:
    """Raises: UsageError unless every token id means the same to both models."""
    what = difference(target, draft)
    if what:
        raise UsageError(
            f"the drafter's vocabulary differs from the target's ({what}): drafting across "
            "vocabularies is not there yet: use --pair demo, a drafter of the target's family, "
            "or --drafter ngram"
        )


def difference(target: OpenModel, draft: OpenModel) -> str:
    """The first difference between two vocabularies in words, empty if there is none.

    Of a large one only every n-th token is compared: it takes 2.5 us a token, and a difference
    that is missed costs acceptance, never the output.
    """
    if target.n_vocab != draft.n_vocab:
        return f"{draft.n_vocab} tokens, not {target.n_vocab}"
    one, other = target.tokenizer, draft.tokenizer
    for token in range(0, target.n_vocab, 1 + target.n_vocab // 40_000):
        seen, expected = other.piece(token, special=True), one.piece(token, special=True)
        if seen != expected:
            return f"token {token} is {seen!r}, not {expected!r}"
    return ""
