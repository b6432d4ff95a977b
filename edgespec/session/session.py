"""Speaks text with open models: messages or a prompt in, pieces out.

The only place where text, models and the engine meet:
messages -> template -> ids -> engine -> detokenizer -> pieces.

    with edgespec.load() as session:
        for piece in session.chat([{"role": "user", "content": "Tell me a story."}]):
            print(piece.text, end="", flush=True)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from edgespec.config import Config, cache_folder, check_known, with_values
from edgespec.decode.engine import Engine, method_of
from edgespec.decode.sampling import biases, check
from edgespec.drafters.bridges.pairing import Translation
from edgespec.errors import Cancelled, UsageError
from edgespec.pace import cost_store
from edgespec.pace.cost import CostTable, plain_token_s
from edgespec.protocols import Drafter, Tokenizer
from edgespec.session import completion, opening
from edgespec.session.completion import ChatChunk, ChatCompletion
from edgespec.session.methods import Method, Methods, OpenModel
from edgespec.session.turns import Generations, Run
from edgespec.text.detokenizer import Detokenizer, StopText
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import Options, Piece, Progress, SamplingParams, Stats, Step, TokenScore

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_SPELLED = 512  # conversations kept as the drafter reads them


class Session:
    """One target, perhaps a drafter, and one generation at a time.

    A thread that begins another generation ends its last one, whose iterator then raises
    Cancelled. Any other thread gets a BusyError until the one in progress is over, cancelled or
    dropped, and so does everyone while a round is computed. All threads may `cancel` and `close`.
    """

    def __init__(
        self, config: Config, *, drafter: Drafter | None = None, progress: Progress | None = None
    ) -> None:
        """Open the models that `config` names; an own `drafter` takes the place of the configured.

        progress: told what takes long. Raises: as `edgespec.load`.
        """
        check(config.sampling(frozenset()))
        StopText(config.stop)
        self.config, self._own, self._progress = config, drafter, progress
        self._generations, self._closed = Generations(), False
        self._spelled: dict[tuple[int, ...], list[int]] = {}  # prompts to the drafter, by ids
        self._ways: dict[str, Method] = {}  # by auto, on, off
        self.draft_model: OpenModel | None = None
        self.translation: Translation | None = None
        with_model = drafter is None and opening.drafts_with_a_model(config)
        self._path, draft_path = opening.paths_of(config, progress, drafter=with_model)
        with ExitStack() as self._opened:
            self.target: OpenModel = opening.open_target(self._path, config, progress)
            self._opened.callback(self.target.close)
            self._open_drafter(draft_path)
            self._use(self._way(config.speculative))
            self._opened = self._opened.pop_all()
        self.tokenizer: Tokenizer = self.target.tokenizer

    def _open_drafter(self, path: Path | None) -> None:
        """The draft model in `path`, if any, and the methods that draft with what is open now."""
        if path is not None:
            self.draft_model, self.translation = opening.open_drafter(
                path, self.config, self.target, self._path.name, self._progress
            )
            self._opened.callback(self.draft_model.close)
        self.methods = Methods(
            self.config, self.draft_model, self.translation, self._own, lambda: self.costs
        )

    def _way(self, speculative: str) -> Method:
        """The configured method for auto, on or off; the draft model is opened when first used."""
        if speculative not in self._ways:
            config = replace(self.config, speculative=speculative)
            missing = self._own is None and self.draft_model is None
            if missing and opening.drafts_with_a_model(config):
                self._open_drafter(opening.paths_of(config, self._progress)[1])
            method = self.methods.configured(speculative)
            if method.drafter is not None and method.drafter is not self._own:
                self._opened.callback(method.drafter.close)  # before its model
            self._ways[speculative] = method
        return self._ways[speculative]

    def use(self, method: Method) -> None:
        """Decode by `method` from now on; target and draft model start with empty caches.

        Ends a generation in progress. Raises: BusyError.
        """
        with self._generations.guard:
            self._generations.take_over()
            self._use(method)

    def _use(self, method: Method) -> None:
        if self.draft_model is not None:
            self.draft_model.truncate(0)
        self.method = self._default = method
        self.engine = Engine(
            self.target, method.drafter, method.controller, on_read=self._tell_reading
        )

    def _tell_reading(self, share: float) -> None:
        if self._progress is not None:
            self._progress("reading the prompt", share)
        if self.stopping:
            raise Cancelled("stopped")

    def speculate(self, how: str) -> None:
        """Draft "auto", "on" or "off" from now on; what the target has read stays.

        Ends a generation in progress. Raises: UsageError, BusyError, and what opening a draft
        model raises that was not needed before.
        """
        config = with_values(self.config, {"speculative": how}, "speculate")
        with self._generations.guard:
            self._check_open()
            self._generations.take_over()
            self._adopt(self._way(how))
            self.config, self._default = config, self.method

    @property
    def speculative(self) -> str:
        """How the session drafts: "auto", "on" or "off"."""
        return self.config.speculative

    def _adopt(self, method: Method) -> None:
        """Decode the next generation by `method`."""
        if method is self.method:
            return
        if self.draft_model is not None and method.drafter is not None:
            self.draft_model.truncate(0)  # another drafter's text may lie there
        self.method = method
        self.engine.drafter, self.engine.controller = method.drafter, method.controller

    @cached_property
    def costs(self) -> CostTable:
        """The target's cost by width on this device, from the cache folder or measured now."""
        name = cost_store.key_of(self._path, self.config)
        file = cache_folder() / "costs" / name
        known = cost_store.load(file)
        if known is not None:
            return known
        what = "measuring what widths cost here, once"
        with self._generations.guard, self._generations.between_rounds():
            if not self._generations.running:
                self.target.truncate(0)  # a full cache would leave no room for wide ones
            with opening.telling(self._progress, what):
                return cost_store.measured(self.target, file)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template: the target's, or the configured one."""
        return ChatTemplate(self.tokenizer, self.config.chat_template)

    @property
    def stats(self) -> Stats:
        """Of the current generation, or of the last one."""
        return self._told(self._generations.last)

    def _told(self, run: Run) -> Stats:
        """The counts of one generation, with what it would have taken without drafting."""
        stats = run.so_far()
        if "costs" not in self.__dict__ or not stats.n_rounds:
            return stats
        return replace(stats, plain_token_s=plain_token_s(stats, self.costs))

    def where(self) -> str:
        """What runs where, in a line."""
        words = f"target on {self.target.device}"
        if self.method.drafter is None:
            return words + "; no drafter"
        if self.draft_model is None:
            return f"{words}; drafter: {self.method.drafter.name}"
        bridge = f" over the {self.method.bridge} bridge" if self.method.bridge else ""
        return f"{words}; drafter on {self.draft_model.device}{bridge}"

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Iterator[Piece]:
        """Pieces that continue `prompt`, a text or token ids; see types.Options.

        Raises: UsageError, ContextError, TokenizerError, BusyError when called, and what
        `speculate` raises; Cancelled while streaming.
        """
        config = self._with(options)
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._begun(ids, config, options)[1]

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Iterator[Piece]:
        """Pieces that answer a conversation of {"role", "content"}; otherwise as `generate`."""
        config = self._with(options)
        return self._begun(self.prompt(messages), self._ended_by_template(config), options)[1]

    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: Literal[False] = ..., logprobs: bool = ...,
        top_logprobs: int | None = ..., response_format: Mapping[str, Any] | None = ...,
        model: str | None = ..., **options: Unpack[Options],
    ) -> ChatCompletion: ...  # fmt: skip

    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: Literal[True], logprobs: bool = ...,
        top_logprobs: int | None = ..., response_format: Mapping[str, Any] | None = ...,
        model: str | None = ..., **options: Unpack[Options],
    ) -> Iterator[ChatChunk]: ...  # fmt: skip

    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: bool = False, logprobs: bool = False,
        top_logprobs: int | None = None, response_format: Mapping[str, Any] | None = None,
        model: str | None = None, **options: Unpack[Options],
    ) -> ChatCompletion | Iterator[ChatChunk]:  # fmt: skip
        """An answer in the shape of llama-cpp-python's method of this name, whole or in chunks.

        response_format: {"type": "json_object"}, perhaps with a "schema", or {"type":
        "json_schema", "json_schema": {"schema": ...}}. options: as in `chat`, None or absent being
        the session's own; of that library's arguments `model` is ignored, and tools, functions,
        tfs_z, typical_p, mirostat_* and logits_processor are not known. Raises: as `chat`.
        """
        options = completion.adapted(options, response_format, logprobs, top_logprobs)
        config = self._ended_by_template(self._with(options))
        ids = self.prompt(completion.plain(messages))
        run, pieces = self._begun(ids, config, options)
        answer = completion.Answer(self._path.name, len(ids), logprobs, self.token_bytes)
        told = partial(self._told, run)
        return answer.chunks(pieces, run) if stream else answer.whole(pieces, run, told)

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

    def token_bytes(self, token: int) -> bytes:
        """What a token spells, control tokens included."""
        return self.tokenizer.piece(token, special=True)

    def params(self, config: Config | None = None, *, n_prompt: int = 0) -> SamplingParams:
        """The sampling parameters of a configuration, by default the session's own.

        n_prompt: tokens of the prompt, for an answer in JSON that has to end before the context.
        """
        config = config or self.config
        room = min(config.max_tokens, self.target.n_context - n_prompt + 1)
        constraint = opening.open_constraint(config, self.tokenizer, room)
        return replace(config.sampling(self.tokenizer.stop_tokens), constraint=constraint)

    def steps(self, ids: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        """The engine's rounds, token ids only, for those who need no text."""
        return self._started(ids, params)[1]

    def _started(self, ids: Sequence[int], params: SamplingParams) -> tuple[Run, Iterator[Step]]:
        with self._generations.guard:
            self._check_open()
            self._generations.take_over()
            self._check_lossless(params)
            self.engine.check(ids)
            translated = self.method.translated
            if translated is not None:
                spelled = self._spelled.get(tuple(ids), [])
                translated.ledger.anchor(ids if spelled else [], spelled)
            engine = self.engine
            run = Run(lambda: engine.stats, None if translated is None else translated.save)
            return run, self._generations.begin(engine.stream(ids, params), params, run)

    @property
    def finish(self) -> str:
        """Why the last generation ended: stop, length (max_tokens), context (full), cancelled."""
        return self._generations.last.finish

    @property
    def output(self) -> list[int]:
        """The ids that the present or last generation has emitted."""
        return self._generations.last.output

    @property
    def running(self) -> bool:
        """Whether a generation is in progress."""
        return self._generations.running

    def cancel(self) -> None:
        """Make the generation in progress raise Cancelled; from any thread or signal handler."""
        self._generations.cancel()
        self.target.cancel()
        if self.draft_model is not None:
            self.draft_model.cancel()

    @property
    def stopping(self) -> bool:
        """Whether the generation in progress was asked to stop and has not done so yet."""
        return self._generations.stopping

    def close(self) -> None:
        """Free the models, after ending a generation in progress; closing twice is no error."""
        with self._generations.guard:
            closed, self._closed = self._closed, True
        if not closed:
            self.cancel()
            self._generations.close(self._opened.close)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begun(
        self, ids: Sequence[int], config: Config, options: Options
    ) -> tuple[Run, Iterator[Piece]]:
        stop, params = StopText(config.stop), self.params(config, n_prompt=len(ids))
        n_top = options.get("n_top")
        bias = biases(options.get("logit_bias") or {}, self.target.n_vocab)
        params = replace(params, logit_bias=bias, n_top=-1 if n_top is None else n_top)
        check(params)
        asked = options.get("speculative")
        with self._generations.guard:
            self._generations.take_over()
            self._adopt(self._way(asked) if asked else self._default)
            run, steps = self._started(ids, params)
        return run, self._texts(run, steps, stop)

    def _texts(self, run: Run, steps: Iterator[Step], stop: StopText) -> Iterator[Piece]:
        """Pieces with text; a token whose text has to wait is shown with the one that ends it."""
        detokenizer, scores = Detokenizer(), list[tuple[int, TokenScore]]()
        token, drafted, n_read = -1, False, 0
        for step in steps:
            emitted = step.verdict.tokens
            for i, (token, drafted) in enumerate(zip(emitted, step.from_draft, strict=True)):
                n_read += 1
                scores += [(token, step.scores[i])] if step.scores else []
                text = stop.feed(detokenizer.feed(self.tokenizer.piece(token)))
                if stop.stopped:
                    del run.output[n_read:]  # what the round had beyond it
                    run.end("a stop string was met", finish="stop")
                if text:
                    yield Piece(text, token, drafted, tuple(scores))
                    scores = []
                if stop.stopped:
                    return
        rest = stop.feed(detokenizer.flush()) + stop.flush()
        if rest:
            yield Piece(rest, token, drafted, tuple(scores))

    def _ended_by_template(self, config: Config) -> Config:
        """With the strings that end an answer where the vocabulary has no token for it."""
        return replace(config, stop=(*config.stop, *self.template.stop))

    def _with(self, options: Options) -> Config:
        """The session's configuration with a call's own values. Raises: UsageError."""
        self._check_open()
        values: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
        check_known(values, tuple(Options.__annotations__), "generate")
        for name in ("logit_bias", "n_top"):  # of a call only
            values.pop(name, None)
        if {"json_schema", "grammar"} & set(values):  # the session's other one does not count
            values = {"json_schema": "", "grammar": "", **values}
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
