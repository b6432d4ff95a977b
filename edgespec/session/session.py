"""Speaks text with open models: messages or a prompt in, pieces out.

The only place where text, models and the engine meet:
messages -> template -> ids -> engine -> detokenizer -> pieces.

    with edgespec.load() as session:
        for piece in session.chat([{"role": "user", "content": "Tell me a story."}]):
            print(piece.text, end="", flush=True)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, overload

from edgespec.config import Config, check_known, with_values
from edgespec.decode.engine import Engine
from edgespec.decode.sampling import biases, check_params
from edgespec.decode.uniforms import rule_of
from edgespec.errors import Cancelled, UsageError
from edgespec.pace.cost import plain_token_s
from edgespec.protocols import Drafter
from edgespec.session import opening
from edgespec.session.completion import Answer, Begun, ChatCompletion, Chunks
from edgespec.session.methods import Method
from edgespec.session.pair import OpenPair
from edgespec.session.pieces import pieces_of
from edgespec.session.prompt import Prompt
from edgespec.session.request import ChatOptions, plain, request_of
from edgespec.session.turns import Generations, PieceStream, Rounds, Run
from edgespec.text.control import encode_rendered
from edgespec.text.detokenizer import StopText
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import Options, Progress, SamplingParams, Stats

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

WORTH_SAVING = 32  # sightings; a save takes some milliseconds


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
        check_params(config.sampling(frozenset()))
        StopText(config.stop)
        self.config, self._progress = config, progress
        self._generations, self._closed = Generations(), False
        self.pair = OpenPair(config, drafter, progress, self._undisturbed)
        self.target, self.tokenizer = self.pair.target, self.pair.target.tokenizer
        try:
            self._use(self.pair.way(config.speculative))
        except BaseException:
            self.pair.close()
            raise

    def use(self, method: Method) -> None:
        """Decode by `method` from now on; target and draft model start with empty caches.

        Ends a generation in progress. Raises: BusyError.
        """
        with self._generations.guard:
            self._generations.take_over()
            self._use(method)

    def _use(self, method: Method) -> None:
        self.pair.forget_draft()
        self.method = self._default = method
        self.engine = Engine(self.target, method.speculator, on_read=self._tell_reading)

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
            self._adopt(self.pair.way(how))
            self.config, self._default = config, self.method

    @property
    def speculative(self) -> str:
        """How the session drafts: "auto", "on" or "off"."""
        return self.config.speculative

    def _adopt(self, method: Method) -> None:
        """Decode the next generation by `method`."""
        if method is self.method:
            return
        if method.speculator.name:
            self.pair.forget_draft()
        self.method = method
        self.engine.use(method.speculator)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Within it no round is computed; the target's cache has room if no generation needs it."""
        with self._generations.guard, self._generations.between_rounds():
            if not self._generations.running:
                self.pair.target.truncate(0)
            yield

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
        costs = self.pair.known_costs
        if costs is None or not stats.n_rounds:
            return stats
        return replace(stats, plain_token_s=plain_token_s(stats, costs))

    def where(self) -> str:
        """What runs where, in a line."""
        return self.pair.where(self.method)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> PieceStream:
        """Pieces that continue `prompt`, a text or token ids; see types.Options.

        Raises: UsageError, ContextError, TokenizerError, BusyError when called, and what
        `speculate` raises; Cancelled while streaming.
        """
        config = self._with(options)
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        return self._begun(ids, config, options)[1]

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> PieceStream:
        """Pieces that answer a conversation of {"role", "content"}; otherwise as `generate`."""
        config = self._with(options)
        return self._begun(self.prompt(messages), self._ended_by_template(config), options)[1]

    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: Literal[False] = ...,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...  # fmt: skip

    @overload
    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Chunks: ...

    def create_chat_completion(
        self, messages: Sequence[Message], *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatCompletion | Chunks:
        """An answer in the shape of llama-cpp-python's method of this name, whole or in chunks.

        options: see request.ChatOptions, None or absent being the session's own. Raises: as `chat`.
        """
        asked = request_of(options, stream=stream)
        config = self._ended_by_template(self._with(asked.options))
        ids = self.prompt(plain(messages))

        def begin(index: int) -> Begun:
            seed = None if config.seed is None else config.seed + index
            run, pieces = self._begun(ids, replace(config, seed=seed), asked.options)
            return Begun(pieces, run, partial(self._told, run))

        answer = Answer(self.pair.path.name, len(ids), asked, self.token_bytes)
        return answer.chunks(begin) if stream else answer.whole(begin)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A conversation, up to where its answer begins.

        A drafter of another vocabulary will read it in its own chat format.
        """
        ids = tuple(self.template.tokens(messages))
        return Prompt(ids, tuple(messages), self.template.lead)

    def encode(self, prompt: str) -> list[int]:
        """Ids of a raw prompt, with the model's own opening once. Raises: TokenizerError."""
        return encode_rendered(self.tokenizer, prompt)

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

    def steps(self, ids: Sequence[int], params: SamplingParams) -> Rounds:
        """The engine's rounds, token ids only, for those who need no text."""
        return self._started(ids, params)[1]

    def _started(self, ids: Sequence[int], params: SamplingParams) -> tuple[Run, Rounds]:
        with self._generations.guard:
            self._check_open()
            self._generations.take_over()
            self._check_lossless(params)
            self.engine.check_prompt(ids)
            translated = self.method.translated
            if translated is not None:
                spelled = []
                if isinstance(ids, Prompt) and self.pair.translation is not None:
                    spelled = ids.spelled(self.pair.translation)
                translated.ledger.anchor(ids if spelled else [], spelled)
            engine = self.engine
            learned = self.method.learned
            run = Run(lambda: engine.stats, lambda: learned.save_if_worth(WORTH_SAVING))
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
        self.pair.cancel()

    @property
    def stopping(self) -> bool:
        """Whether the generation in progress was asked to stop and has not done so yet."""
        return self._generations.stopping

    def close(self) -> None:
        """Free the models, after ending a generation in progress; closing twice is no error."""
        if not self._generations.guard.is_own:
            return  # in a forked child they stay its parent's
        with self._generations.guard:
            closed, self._closed = self._closed, True
        if not closed:
            self.cancel()
            self._generations.close(self.pair.close)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begun(
        self, ids: Sequence[int], config: Config, options: Options
    ) -> tuple[Run, PieceStream]:
        stop, params = StopText(config.stop), self.params(config, n_prompt=len(ids))
        n_top = options.get("n_top")
        bias = biases(options.get("logit_bias") or {}, self.target.n_vocab)
        params = replace(params, logit_bias=bias, n_top=-1 if n_top is None else n_top)
        check_params(params)
        asked = options.get("speculative")
        with self._generations.guard:
            self._generations.take_over()
            self._adopt(self.pair.way(asked) if asked else self._default)
            run, steps = self._started(ids, params)
        lead = ids.lead if isinstance(ids, Prompt) else ""
        return run, pieces_of(steps, run, self.tokenizer, stop, lead)

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
        exact = translated is None or translated.bridge.lossless or rule_of(params) == "match"
        if not exact and not self.config.allow_approximate:
            raise UsageError(
                "the bridge omnidraft is not lossless when sampling: expected --bridge exact, "
                "--temp 0, a --seed, or --allow-approximate"
            )
