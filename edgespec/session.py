"""Opens models from a configuration and speaks text: messages or a prompt in, pieces out.

The only place where text, models and the engine meet:
messages -> template -> ids -> engine -> detokenizer -> pieces.

    with edgespec.load() as session:
        for piece in session.chat([{"role": "user", "content": "Tell me a story."}]):
            print(piece.text, end="", flush=True)
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

from edgespec import cost_cache, pairs
from edgespec.backends import ModelOptions, open_model
from edgespec.config import Config, cache_folder, with_values
from edgespec.cost import CostTable
from edgespec.engine import Engine, method_of
from edgespec.errors import Cancelled, UsageError
from edgespec.method import Method, Methods, OpenModel, translation_of
from edgespec.protocols import Drafter, Tokenizer
from edgespec.sampling import check
from edgespec.text import ChatTemplate, Detokenizer, Message, StopText
from edgespec.translation import Translation
from edgespec.types import Piece, Progress, SamplingParams, Stats, Step

log = logging.getLogger("edgespec")
MOST_SPELLED = 512  # conversations kept as the drafter reads them


class Session:
    """One target, perhaps a drafter, and one generation at a time; starting another ends the last.

    finish: why the last generation ended: stop, length (max_tokens), context (it is full),
    cancelled, or empty. output: the ids it emitted. running: whether one is in progress.
    """

    def __init__(
        self, config: Config, *, drafter: Drafter | None = None, progress: Progress | None = None
    ) -> None:
        """Open the models that `config` names; an own `drafter` takes the place of the configured.

        Raises: UsageError, ModelFileError, ContextError.
        """
        check(config.sampling(frozenset()))
        StopText(config.stop)
        self.config, self._progress = config, progress
        self.finish, self.output = "", list[int]()
        self._live: Generator[Step] | None = None
        self._spelled: dict[tuple[int, ...], list[int]] = {}  # prompts to the drafter, by ids
        self._cancelled = Event()
        self._closed, self.running = False, False
        target_path, draft_path = paths_of(config, own=drafter is not None, progress=progress)
        with ExitStack() as opened:
            self.target: OpenModel = open_model(target_path, target_options(config))
            opened.callback(self.target.close)
            if self.target.token_ids is not None:
                raise UsageError(
                    f"{target_path.name} has a trimmed head ({len(self.target.token_ids)} rows): "
                    "expected a whole model as target; give this one as drafter, with -md"
                )
            self.draft_model: OpenModel | None = None
            self.translation: Translation | None = None
            if draft_path is not None:
                options = draft_options(config, self.target.n_context)
                self.draft_model = open_model(draft_path, options)
                opened.callback(self.draft_model.close)
                names = draft_path.name, target_path.name
                self.translation = translation_of(config, self.target, self.draft_model, names)
            self._path = target_path
            self.methods = Methods(
                config, self.draft_model, self.translation, drafter, lambda: self.costs
            )
            own = self.methods.configured()
            if own.drafter is not None and own.drafter is not drafter:
                opened.callback(own.drafter.close)  # before its model
            self.use(own)
            self._opened = opened.pop_all()
        self.tokenizer: Tokenizer = self.target.tokenizer

    def use(self, method: Method) -> None:
        """Decode by `method` from now on; target and draft model start with empty caches."""
        self._end_live()
        if self.draft_model is not None:
            self.draft_model.truncate(0)
        self.method = method
        self.engine = Engine(self.target, method.drafter, method.controller)

    @cached_property
    def costs(self) -> CostTable:
        """The target's cost by width on this device, from the cache folder or measured now."""
        name = cost_cache.key_of(self._path, self.config.threads, self.config.device)
        file = cache_folder() / "costs" / name
        if self._progress is None or file.exists():
            return cost_cache.costs_of(self.target, file)
        self._progress("measuring what widths cost here, once", 0.0)
        costs = cost_cache.costs_of(self.target, file)
        self._progress("measured what widths cost here, once", 1.0)
        return costs

    @cached_property
    def template(self) -> ChatTemplate:
        """The target's chat template."""
        return ChatTemplate(self.tokenizer)

    @property
    def stats(self) -> Stats:
        """Of the current generation, or of the last one."""
        return self.engine.stats

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> Iterator[Piece]:
        """Pieces that continue `prompt`, a text or token ids; None takes the session's own value.

        logit_bias: added to the logits of these token ids.
        Raises: UsageError, ContextError, when called; Cancelled while streaming.
        """
        config = self._with(locals())
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._pieces(ids, config, logit_bias)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> Iterator[Piece]:
        """Pieces that answer a conversation of {"role", "content"}; otherwise as `generate`."""
        config = self._with(locals())
        config = replace(config, stop=(*config.stop, *self.template.stop))
        return self._pieces(self.prompt(messages), config, logit_bias)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, up to where its answer begins.

        A drafter of another vocabulary will read it in its own chat format.
        """
        ids = self.template.tokens(messages)
        if self.translation is not None:
            while len(self._spelled) >= MOST_SPELLED:
                del self._spelled[next(iter(self._spelled))]
            self._spelled[tuple(ids)] = self.translation.spelled(messages)
        return ids

    def encode(self, prompt: str) -> list[int]:
        """Ids of a raw prompt, with the model's own opening. Raises: TokenizerError."""
        return self.tokenizer.encode(prompt, special=True, bos=True)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, control tokens left out."""
        pieces = b"".join(self.tokenizer.piece(token) for token in tokens)
        return pieces.decode("utf-8", "replace")

    def params(self, config: Config | None = None) -> SamplingParams:
        """The sampling parameters of a configuration, by default the session's own."""
        return (config or self.config).sampling(self.tokenizer.stop_tokens)

    def steps(self, ids: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        """The engine's rounds, token ids only, for those who need no text."""
        self._check_open()
        self._check_lossless(params)
        self._end_live()
        self._live = self._steps(ids, params)
        return self._live

    def cancel(self) -> None:
        """Make the generation in progress raise Cancelled; from any thread or signal handler."""
        self._cancelled.set()
        self.target.cancel()
        if self.draft_model is not None:
            self.draft_model.cancel()

    @property
    def stopping(self) -> bool:
        """Whether the generation in progress was asked to stop and has not done so yet."""
        return self.running and self._cancelled.is_set()

    def close(self) -> None:
        """Free the models; closing twice is not an error."""
        if not self._closed:
            self._closed = True
            self._end_live()
            self._opened.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _steps(self, ids: Sequence[int], params: SamplingParams) -> Generator[Step]:
        self.finish, self.output, self.running = "", [], True
        self._cancelled.clear()
        translated = self.method.translated
        if translated is not None:
            spelled = self._spelled.get(tuple(ids), [])
            translated.ledger.anchor(ids if spelled else [], spelled)
        try:
            for step in self.engine.stream(ids, params):
                self.output += step.verdict.tokens
                yield step
                if self._cancelled.is_set():
                    raise Cancelled("stopped")
        except (Cancelled, KeyboardInterrupt):
            self.finish = "cancelled"
            raise
        finally:
            self.running = False
            if translated is not None:
                translated.save()
        if self.output and self.output[-1] in params.stop_tokens:
            self.finish = "stop"
        else:
            full = len(self.output) < params.max_tokens
            self.finish = "context" if full else "length"

    def _pieces(
        self, ids: Sequence[int], config: Config, logit_bias: Mapping[int, float] | None
    ) -> Iterator[Piece]:
        stop, params = StopText(config.stop), self.params(config)
        params = replace(params, logit_bias=dict(logit_bias or {}))
        check(params)
        for token in params.logit_bias:
            if not 0 <= token < self.target.n_vocab:
                raise UsageError(
                    f"logit_bias: token {token}: expected 0 to {self.target.n_vocab - 1}"
                )
        return self._texts(self.steps(ids, params), stop)

    def _texts(self, steps: Iterator[Step], stop: StopText) -> Iterator[Piece]:
        """Pieces with text; a token whose text has to wait is shown with the one that ends it."""
        detokenizer = Detokenizer()
        token, drafted = -1, False
        for step in steps:
            for token, drafted in zip(step.verdict.tokens, step.from_draft, strict=True):
                text = stop.feed(detokenizer.feed(self.tokenizer.piece(token)))
                if text:
                    yield Piece(text, token, drafted)
                if stop.stopped:
                    self._end_live()
                    self.finish = "stop"
                    return
        rest = stop.feed(detokenizer.flush()) + stop.flush()
        if rest:
            yield Piece(rest, token, drafted)

    def _with(self, given: Mapping[str, Any]) -> Config:
        """The session's configuration with a call's own sampling values."""
        self._check_open()
        names = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty",
                 "frequency_penalty", "presence_penalty", "seed", "stop")  # fmt: skip
        values = {name: given[name] for name in names if given[name] is not None}
        return with_values(self.config, values, "generate")

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the session is closed: open another with edgespec.load")

    def _check_lossless(self, params: SamplingParams) -> None:
        """Raises: UsageError for an approximate bridge that nobody allowed."""
        translated = self.method.translated
        exact = translated is None or translated.bridge.lossless or method_of(params) == "match"
        if not exact and not self.config.allow_approximate:
            raise UsageError(
                "the bridge omnidraft is not lossless when sampling: expected --bridge exact, "
                "--temp 0, a --seed, or --allow-approximate"
            )

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None


def load(
    model: str | Path | None = None,
    draft_model: str | Path | None = None,
    *,
    pair: str = "demo",
    device: str = "auto",
    device_draft: str = "auto",
    ctx_size: int = 0,
    threads: int = 0,
    threads_draft: int = 1,
    speculative: str = "auto",
    draft_tokens: int | str = "auto",
    drafter: str | Drafter = "auto",
    bridge: str = "auto",
    allow_approximate: bool = False,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repeat_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    verification: str = "auto",
    seed: int | None = None,
    max_tokens: int = 512,
    stop: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> Session:
    """A session with the bundled demo pair, a pair by name, or models by path.

    The keywords are the command line's options. drafter: a name, or an object of yours that
    follows the `Drafter` protocol. Neither config.toml nor EDGESPEC_* variables are read.
    Raises: UsageError, ModelFileError, ContextError.
    """
    values = dict(locals())
    del values["progress"]
    own = None if isinstance(drafter, str) else drafter
    if own is not None:
        values["drafter"] = "auto"
    values["model"], values["draft_model"] = str(model or ""), str(draft_model or "")
    return Session(with_values(Config(), values, "load"), drafter=own, progress=progress)


def paths_of(config: Config, *, own: bool, progress: Progress | None) -> tuple[Path, Path | None]:
    """The files to open: target, and draft model if the configuration drafts with one."""
    wanted = config.speculative != "off" and not own
    wanted = wanted and bool({"auto", "model"} & set(config.drafter.split(",")))
    if config.model:
        target = Path(config.model)
        drafter = Path(config.draft_model) if config.draft_model else None
    else:
        target, drafter = pairs.files(pairs.find(config.pair), cache_folder(), progress)
        drafter = Path(config.draft_model) if config.draft_model else drafter
    return target, drafter if wanted else None


def target_options(config: Config) -> ModelOptions:
    """How the target is opened."""
    return ModelOptions(n_context=config.ctx_size, n_threads=config.threads, device=config.device)


def draft_options(config: Config, n_context: int) -> ModelOptions:
    """How the draft model is opened: with the target's context, on the CPU if the target is."""
    device = config.device_draft
    if device == "auto" and config.device == "cpu":
        device = "cpu"
    return ModelOptions(n_context=n_context, n_threads=config.threads_draft, device=device)
