"""Answers several requests at once by one target: batched, or one after another where it must be.

with open_many(config) as many:
    begun = many.begin(many.prompt(messages), many.with_options({"max_tokens": 60}), {})
    for piece in begun.pieces:
        print(piece.text, end="", flush=True)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

from edgespec.config import Config
from edgespec.decode.engine import check_prompt
from edgespec.errors import Cancelled, UsageError
from edgespec.option import Options
from edgespec.protocols import OpenModel, SharedModel, Tokenizer
from edgespec.session import call
from edgespec.session.completion import Begun
from edgespec.session.many.door import Door
from edgespec.session.many.drafting import Drafting
from edgespec.session.many.outbox import Reading
from edgespec.session.many.rounds import STOPPED, Load, Rounds
from edgespec.session.many.slots import Job
from edgespec.session.methods import ALWAYS
from edgespec.session.prompt import Prompt
from edgespec.session.speech import Speech
from edgespec.session.turns import Run, finish_of
from edgespec.text.detokenizer import StopText
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import SamplingParams, Stats, Step

N_QUEUE = 64  # requests that wait, unless told


class Answers(Protocol):
    """What answers several requests, from any thread; see Many and solo.Solo.

    All that the server knows of who generates.

    n_slots: generations at once. n_context: tokens of a prompt and its answer. n_vocab: V. path:
    the target's file.
    """

    config: Config
    path: Path
    n_slots: int

    @property
    def n_context(self) -> int: ...

    @property
    def n_vocab(self) -> int: ...

    @property
    def template(self) -> ChatTemplate: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def prompt(
        self, messages: Sequence[Message], more: Mapping[str, Any] | None = None
    ) -> Prompt: ...

    def encode(self, text: str) -> list[int]: ...

    def with_options(self, options: Options, stop: Sequence[str] = ()) -> Config: ...

    def begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun: ...

    def load(self) -> Load: ...

    def close(self) -> None: ...


class Many:
    """Several generations at once, each in a sequence of one context; safe from any thread.

    target: whose sequences `shared` has. opened: closes all models at the end. drafting: None for
    plain decoding only.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        target: OpenModel,
        shared: SharedModel[Any],
        drafting: Drafting | None,
        opened: ExitStack,
        *,
        n_queue: int = N_QUEUE,
    ) -> None:
        self.config, self.path, self.target = config, path, target
        self.n_slots, self._opened = len(shared.sequences), opened
        self._n_context = int(shared.sequences[0].n_context)
        self._drafting = drafting
        self.speech = Speech(target.tokenizer, config)
        self.rounds = Rounds(shared, drafting, n_queue=n_queue)
        self._door, self._readings, self._adding = Door(), WeakSet[Reading](), Lock()

    @property
    def template(self) -> ChatTemplate:
        """The chat template: the target's, or the configured one."""
        return self.speech.template

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's."""
        return self.speech.tokenizer

    @property
    def n_context(self) -> int:
        """Tokens of a prompt and its answer."""
        return self._n_context

    @property
    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self.target.n_vocab

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """See Speech.prompt."""
        with self._door.inside():
            return self.speech.prompt(messages, more)

    def encode(self, text: str) -> list[int]:
        """See Speech.encode."""
        with self._door.inside():
            return self.speech.encode(text)

    def with_options(self, options: Options, stop: Sequence[str] = ()) -> Config:
        """The configuration with a call's own values, and more stop strings. Raises: UsageError."""
        config = call.config_of(self.config, options)
        return replace(config, stop=(*config.stop, *stop))

    def begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun:
        """A generation after `ids`; config: as `with_options` gives it. It goes on by itself.

        Closing its pieces, or dropping them, ends it within a round.
        Raises: UsageError, ContextError, TokenizerError; BusyError when too many wait.
        """
        with self._door.inside():
            return self._begin(ids, config, options)

    def _begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun:
        StopText(config.stop)
        check_prompt(ids, self._n_context)
        params = call.params_of(
            config, self.target, n_prompt=len(ids), options=options, n_context=self._n_context
        )
        note = self._why_plain(config, options)
        messages = ids.messages if isinstance(ids, Prompt) else ()
        drafted, ends = self._drafted(config), self._end_of(ids, config)
        job = Job(list(ids), params, *drafted, messages, ends, why=lambda: note)
        run = Run(job.counted, job.steps.leave)

        def left() -> None:
            run.end("nobody reads on", finish="cancelled")
            self.rounds.wake()

        def counted() -> Stats:
            stats = run.so_far() if run.over else job.counted()
            note = stats.note or job.why()  # which comes last, after a stop string too
            return replace(stats, plain_token_s=job.plain_token_s, note=note)

        pieces = self.speech.pieces(steps_of(job, run, params), run, ids, config)
        reading = Reading(pieces, left)
        with self._adding:
            self._readings.add(reading)
        self.rounds.add(job)
        return Begun(reading, run, counted)

    def _end_of(self, ids: Sequence[int], config: Config) -> Callable[[Step], bool] | None:
        """What finds the stop strings of an answer after `ids`, None for no such strings."""
        if not config.stop:
            return None
        spelling = self.speech.spelling(ids, config)

        def has_said(step: Step) -> bool:
            spelling.feed(step)
            return spelling.stopped

        return has_said

    def _drafted(self, config: Config) -> tuple[int, bool]:
        """Tokens drafted a round at most, and whether always."""
        most, how = config.draft_tokens, config.speculative
        if self._drafting is None or how == "off" or config.drafter == "none":
            return 0, False
        if how == "on":
            return (ALWAYS if isinstance(most, str) else most), True
        return (16 if isinstance(most, str) else most), False

    def _why_plain(self, config: Config, options: Options) -> str:
        """Why an answer that might be drafted will not be, as nothing was opened that drafts; else
        empty. Raises: UsageError for one that was to be drafted always.
        """
        if self._drafting is not None or config.speculative == "off":
            return ""
        opened = self.config
        how = "draft_tokens 0"
        if opened.speculative == "off":
            how = "speculative off"
        elif opened.drafter == "none":
            how = "drafter none"
        if options.get("speculative") == "on":
            raise UsageError(
                f"speculative is 'on', but the model was opened with {how}: expected auto or off, "
                "or another setting where it is opened"
            )
        return f"drafting is off: the model was opened with {how}"

    def load(self) -> Load:
        """How busy it is."""
        return self.rounds.load()

    def close(self) -> None:
        """End all generations and free the models; closing twice is no error."""
        if not self._door.close():
            return
        self.rounds.close(self._cancel)
        for reading in list(self._readings):
            reading.stop(STOPPED)
        self._opened.close()

    def _cancel(self) -> None:
        """End the forwards in progress."""
        self.target.cancel()
        if self._drafting is not None:
            self._drafting.cancel()

    def __enter__(self) -> Many:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def steps_of(job: Job, run: Run, params: SamplingParams) -> Generator[Step, None, None]:
    """The rounds of a generation as they come, counted in `run`."""
    run.begun = True
    try:
        for step in job.steps.all():
            run.output += step.verdict.tokens
            yield step
        run.finish = run.finish or finish_of(run.output, params)
    except Cancelled:
        run.finish = run.finish or "cancelled"
        raise
    finally:
        run.end("the generation is over")
