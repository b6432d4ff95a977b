"""Speaks text with open models: messages or a prompt in, pieces out.

The only place where text, models and the engine meet: template -> ids -> engine -> pieces.

    with edgespec.load() as session:
        for piece in session.chat([{"role": "user", "content": "Tell me a story."}]):
            print(piece.text, end="", flush=True)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

from edgespec.config import Config, with_values
from edgespec.decode.engine import Engine
from edgespec.decode.sampling import check_params
from edgespec.decode.tally import decided
from edgespec.errors import Cancelled, UsageError
from edgespec.option import Options, Unpack
from edgespec.protocols import Drafter
from edgespec.session import call
from edgespec.session.call import thoughts
from edgespec.session.completion import Answer, Begun
from edgespec.session.methods import Method
from edgespec.session.pair import OpenPair
from edgespec.session.prompt import Prompt
from edgespec.session.question import prompt_of
from edgespec.session.request import ChatOptions, request_of
from edgespec.session.shape import ChatCompletion, Chunks
from edgespec.session.speech import Speech
from edgespec.session.turns import Generations, PieceStream, Rounds, Run
from edgespec.text.detokenizer import StopText
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import Progress, SamplingParams, Stats

log = logging.getLogger("edgespec")
READING = "reading the prompt"  # as it is told to who asked for progress


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
        self.turns, self._closed = Generations(), False
        self._most: int | None = None  # tokens drafted a round, by `limit`
        self.on_begin: Callable[[Session], None] | None = None  # before each answer's first round
        self.pair = OpenPair(config, drafter, progress, self.turns.undisturbed)
        self.target, self.tokenizer = self.pair.target, self.pair.target.tokenizer
        self.speech = Speech(self.tokenizer, config)
        self.engine: Engine  # of the method in use
        try:
            self._use(self.pair.way(config.speculative))
        except BaseException:
            self.pair.close()
            raise

    def use(self, method: Method, *, keep_read: bool = False) -> None:
        """Decode by `method` from now on; target and draft model start with empty caches.

        keep_read: what the target has read stays. Ends a generation in progress.
        Raises: UsageError for a method that this target cannot verify, BusyError.
        """
        with self.turns.guard:
            self.turns.take_over()
            self._use(method, keep_read)

    def _use(self, method: Method, keep_read: bool = False) -> None:
        if keep_read:
            self.engine.use(method.speculator)  # it may refuse: then nothing has changed
        else:
            self.engine = Engine(self.target, method.speculator, on_read=self._tell_reading)
        self.pair.forget_draft()
        self.method = self._default = method

    def _tell_reading(self, share: float) -> None:
        if self._progress is not None:
            self._progress(READING, share)
        if self.turns.stopping:
            raise Cancelled("stopped")

    def speculate(self, how: str) -> None:
        """Draft "auto", "on" or "off" from now on; what the target has read stays.

        Ends a generation in progress. Raises: UsageError, BusyError, and what opening a draft
        model raises that was not needed before.
        """
        config = with_values(self.config, {"speculative": how}, "speculate")
        with self.turns.guard:
            self._check_open()
            self.turns.take_over()
            self._adopt(self.pair.way(how))
            self.config, self._default = config, self.method

    def limit(self, *, threads: int = 0, draft_tokens: int | None = None) -> None:
        """Use at most so many threads and draft at most so many tokens, from the next round on.

        0 and None: as configured. For who watches heat and battery; between rounds of whoever
        generates, or while nobody does.
        """
        self._check_open()
        self._most = draft_tokens
        self.pair.use_threads(threads)
        self.method.limit(draft_tokens)

    def _adopt(self, method: Method) -> None:
        """Decode the next generation by `method`."""
        if method is self.method:
            return
        self.engine.use(method.speculator)  # it may refuse: then nothing has changed
        if method.speculator.name:
            self.pair.forget_draft()
        self.method = method

    @property
    def template(self) -> ChatTemplate:
        """The chat template: the target's, or the configured one."""
        return self.speech.template

    @property
    def stats(self) -> Stats:
        """Of the current generation, or of the last one."""
        return self.pair.priced(self.turns.last.so_far())

    def where(self) -> str:
        """What runs where, in a line."""
        return self.pair.where(self.method)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> PieceStream:
        """Pieces that continue `prompt`, a text or token ids; see option.Options.

        Raises: UsageError, ContextError, TokenizerError, BusyError when called, and what
        `speculate` raises; Cancelled while streaming.
        """
        config = self.with_options(options)
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        return self._begun(ids, config, options)[1]

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> PieceStream:
        """Pieces that answer a conversation of {"role", "content"}; otherwise as `generate`."""
        config = self.with_options(options, self.template.stop)
        return self._begun(self.prompt(messages, thoughts(config)), config, options)[1]

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
        config = self.with_options(asked.options, self.template.stop)
        ids = prompt_of(self, messages, asked, config)

        def begin(index: int) -> Begun:
            seed = None if config.seed is None else config.seed + index
            run, pieces = self._begun(ids, replace(config, seed=seed), asked.options)
            return Begun(pieces, run, lambda: self.pair.priced(run.so_far()))

        calls = None if asked.tools is None else partial(asked.tools.reader, self.template)
        answer = Answer(self.pair.path.name, len(ids), asked, self.token_bytes, calls)
        return answer.chunks(begin) if stream else answer.whole(begin)

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """A conversation, up to where its answer begins.

        A drafter of another vocabulary will read it in its own chat format. more: what the chat
        template is told besides, by default the session's own choice of thoughts.
        """
        return self.speech.prompt(messages, thoughts(self.config) if more is None else more)

    def encode(self, prompt: str) -> list[int]:
        """Ids of a raw prompt, with the model's own opening once. Raises: TokenizerError."""
        return self.speech.encode(prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, control tokens left out."""
        return self.speech.decode(tokens)

    def token_bytes(self, token: int) -> bytes:
        """What a token spells, control tokens included."""
        return self.speech.token_bytes(token)

    def params(self) -> SamplingParams:
        """The session's own sampling parameters."""
        return call.params_of(self.config, self.target)

    def steps(self, ids: Sequence[int], params: SamplingParams) -> Rounds:
        """The engine's rounds, token ids only, for those who need no text."""
        return self._started(ids, params)[1]

    def _started(
        self, ids: Sequence[int], params: SamplingParams, most: int | None = None
    ) -> tuple[Run, Rounds]:
        """A generation; most: tokens drafted a round, if not as many as the method does."""
        with self.turns.guard:
            self._check_open()
            self.turns.take_over()
            if self.on_begin is not None:
                self.on_begin(self)
            self.method.check_lossless(params, self.config)
            self.engine.check_prompt(ids)
            messages = ids.messages if isinstance(ids, Prompt) else ()
            self.pair.anchor(self.method, ids, messages)
            self.method.limit(min((n for n in (most, self._most) if n is not None), default=None))
            engine, method = self.engine, self.method

            def end() -> None:
                method.end()
                if log.isEnabledFor(logging.INFO):
                    told = [*decided(engine.stats), engine.stats.note]
                    log.info("%s: %s", method.name, "; ".join(filter(None, told)) or "no drafts")

            run = Run(lambda: engine.stats, end)
            return run, self.turns.begin(engine.stream(ids, params), params, run)

    def cancel(self) -> None:
        """Make the generation in progress raise Cancelled; from any thread or signal handler."""
        self.turns.cancel()
        self.pair.cancel()

    def close(self) -> None:
        """Free the models, after ending a generation in progress; closing twice is no error."""
        if not self.turns.guard.is_own:
            return  # in a forked child they stay its parent's
        with self.turns.guard:
            closed, self._closed = self._closed, True
        if not closed:
            self.cancel()
            self.turns.close(self.pair.close)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def params_for(self, ids: Sequence[int], config: Config, options: Options) -> SamplingParams:
        """How a call samples; from any thread. Raises: UsageError, ContextError, if it cannot."""
        self._check_open()
        StopText(config.stop)
        self.engine.check_prompt(ids)
        return call.params_of(config, self.target, n_prompt=len(ids), options=options)

    def begin(
        self, ids: Sequence[int], config: Config, options: Options, params: SamplingParams
    ) -> tuple[Run, PieceStream]:
        """A generation by what `with_options` and `params_for` gave. Raises: as `generate`."""
        self._check_open()
        asked = options.get("speculative")
        with self.turns.guard:
            self.turns.take_over()
            self._adopt(self.pair.way(asked) if asked else self._default)
            most = config.draft_tokens
            run, steps = self._started(ids, params, most if isinstance(most, int) else None)
        return run, self.speech.pieces(steps, run, ids, config)

    def _begun(
        self, ids: Sequence[int], config: Config, options: Options
    ) -> tuple[Run, PieceStream]:
        params = self.params_for(ids, config, options)
        return self.begin(ids, config, options, params)

    def with_options(self, options: Options, stop: Sequence[str] = ()) -> Config:
        """The configuration with a call's own values, and more stop strings. Raises: UsageError."""
        self._check_open()
        config = call.config_of(self.config, options)
        return replace(config, stop=(*config.stop, *stop))

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the session is closed: open another with edgespec.load")
