"""What an app calls: one object, whose every answer is a flat dictionary that any bridge can carry.

    engine = Engine()
    engine.open_session('{"pair": "demo"}')
    engine.generate('[{"role": "user", "content": "Tell me a story."}]', sink)

A sink is an object of the app's own language with `onToken(text, from_draft)`, which says whether
to go on. Nothing is raised: what went wrong is {"error": kind, "message": one line}. `cancel`,
`stats`, `adjust` may be called from any thread, all else from one. It starts no process.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import wraps
from typing import Any, TypeVar, cast

from edgespec.config import Config
from edgespec.errors import Cancelled, EdgeSpecError, UsageError
from edgespec.files import model_name, place
from edgespec.phone import bench
from edgespec.phone.device import Limits, Place, check_fits, fast_threads, give_back, limits
from edgespec.session.conversation import (
    SCHEMA,
    Conversation,
    Turn,
    checked,
    read_messages,
    write_messages,
)
from edgespec.session.load import config_of
from edgespec.session.opening import drafts_with_a_model, paths_of
from edgespec.session.session import READING, Session
from edgespec.types import Progress, Stats

log = logging.getLogger("edgespec.phone")

Reply = dict[str, str | int | float | bool]
Method = TypeVar("Method", bound=Callable[..., Reply])
FAULT = "Fault"  # the kind of an error that is not of errors.py
STACK_BYTES = 16 << 20  # templates and graphs want more than a phone's thread has by default


def answered(method: Method) -> Method:
    """The method, with what it raises as a reply."""

    @wraps(method)
    def call(*args: Any) -> Reply:
        try:
            return method(*args)
        except EdgeSpecError as error:
            return {"error": type(error).__name__, "message": str(error)}
        except Exception as error:
            log.exception("%s failed", method.__name__)  # the app's log has where
            said = " ".join(str(error).split())[:300]
            return {"error": FAULT, "message": f"{type(error).__name__}: {said}"}

    return cast(Method, call)


class Engine:
    """One pair of models that is open, or can be opened again, and perhaps served."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._progress: Progress | None = None
        self._session: Session | None = None
        self._server: Any = None
        self._stack_bytes = 0  # of new threads while nothing is served
        self._stop: threading.Event | None = None  # of the answer or measurement in progress
        self._limits, self._in_force = Limits(), Limits()
        self._finish = ""

    @answered
    def open_session(self, config_json: str, progress: Any = None) -> Reply:
        """Open the models that a JSON object names by the keywords of `edgespec.load`.

        Besides them: files, libraries (see device.Place), memory_bytes (see device.check_fits).
        progress: an object with `onProgress(what, share)`.
        """
        values = parsed(config_json, dict, "the configuration")
        found = Place(values.pop("files", ""), values.pop("libraries", ""))
        memory_bytes = int(values.pop("memory_bytes", 0))
        found.settle()
        values["threads"] = values.get("threads") or fast_threads()
        model, draft_model = values.pop("model", None), values.pop("draft_model", None)
        config = config_of(model, draft_model, values.pop("drafter", "auto"), values)
        target, draft = paths_of(config, drafter=drafts_with_a_model(config))
        check_fits({"target": target, "drafter": draft}, memory_bytes)
        self._end()
        before, self._config = self._config, config
        self._progress = None if progress is None else progress.onProgress
        try:
            return self._about(self._opened())
        except BaseException:
            self._config = before  # whose models the next question opens again
            raise

    @answered
    def generate(self, messages_json: str, sink: Any) -> Reply:
        """Answer a conversation of {"role", "content"}, piece by piece into `sink`; its figures.

        The last message is the question. Of a conversation that is too long the model sees the end.
        """
        said, question = asked(messages_json)
        with self._stoppable():
            session = self._opened()
            talk = Conversation(session)
            talk.messages = said
            self._finish = "cancelled"
            with suppress(Cancelled):
                self._check_stop()
                self._say(session, talk, question, sink)
        return self._figures(session) | {"n_left_out": talk.n_left_out}

    def _say(self, session: Session, talk: Conversation, question: str, sink: Any) -> None:
        """The answer, piece by piece. Raises: Cancelled."""
        with closing(talk.ask(question)) as pieces:
            for piece in pieces:
                shown = piece.text if not piece.is_thought else ""
                if shown and not sink.onToken(shown, piece.from_draft):
                    return
                self._check_stop()
                self._apply(session)
            self._finish = session.turns.finish

    @answered
    def cancel(self) -> Reply:
        """End the answer or the measurement in progress; it keeps what it has said.

        Also one whose models are still being opened: it ends once they are.
        """
        if (stop := self._stop) is not None:
            stop.set()
        if (session := self._session) is not None:
            session.cancel()
        return {}

    @answered
    def stats(self) -> Reply:
        """The figures of the answer in progress, or of the last one."""
        session = self._session
        return figures(Stats(), "") if session is None else self._figures(session)

    @answered
    def benchmark(self, questions_json: str, progress: Any = None) -> Reply:
        """The same questions, a JSON list of texts, with and without drafting; see bench.py."""
        questions = parsed(questions_json, list, "the questions")
        told = None if progress is None else progress.onProgress
        with self._stoppable():
            session = self._opened()
            return bench.compared(session, list(map(str, questions)), self._check_stop, told)

    @answered
    def adjust(self, conditions_json: str) -> Reply:
        """Use less of a device that is warm or low on battery; see device.limits.

        It holds from the next round of an answer on, whatever thread asks; for who is served, from
        the next answer on.
        """
        usual = self._config.threads if self._config is not None else fast_threads()
        self._limits = limits(parsed(conditions_json, dict, "the conditions"), usual)
        return {"why": self._limits.why}

    @answered
    def serve(self, key: str, port: int = 0) -> Reply:
        """Serve OpenAI's interface to this device alone, to who knows the key; where.

        It shares the models with `generate`: who comes second is told that they are busy.
        """
        from edgespec.server.choices import settled
        from edgespec.server.limits import Access
        from edgespec.server.running import Place as Where
        from edgespec.server.running import started
        from edgespec.session.many.solo import Solo

        if not key.strip():
            raise UsageError("the key is empty: expected one that other apps do not know")
        if self._server is None:
            session, self._session = self._opened(), None  # closed if no server can start
            where = Where(port, Access(keys=(key.strip(),)))
            self._stack_bytes = threading.stack_size(STACK_BYTES)
            try:
                self._server = started(where, lambda _: settled(Solo(session, n_queue=4)))
            except BaseException:
                threading.stack_size(self._stack_bytes)
                raise
            self._session = session
        return {"url": self._url(), "model": self._server.name}

    @answered
    def serving(self) -> Reply:
        """Where the models are served, "" for nowhere."""
        return {"url": self._url()}

    @answered
    def stop_serving(self) -> Reply:
        """End the server. It closes the models, which the next question opens again."""
        server, self._server = self._server, None
        if server is not None:
            self._session = None
            try:
                server.close()
            finally:
                threading.stack_size(self._stack_bytes)
            give_back()
        return {}

    @answered
    def unload(self) -> Reply:
        """Free the models until they are needed again, unless they are being served."""
        if self._server is None and self._session is not None:
            self._end()
        return {"loaded": self._session is not None}

    @answered
    def save(self, path: str, messages_json: str) -> Reply:
        """Write a conversation to a file that `load` and `edgespec chat` read."""
        write_messages(place(path), messages_of(messages_json))
        return {}

    @answered
    def load(self, path: str, sink: Any) -> Reply:
        """Tell `sink.onMessage(role, text)` each message of a saved conversation."""
        for message in read_messages(place(path)):
            sink.onMessage(message["role"], message["content"])
        return {}

    @answered
    def close(self) -> Reply:
        """Free everything; it may be opened again."""
        self._end()
        self._config = None
        return {}

    def _opened(self) -> Session:
        """The session, opened if it is not. Raises: UsageError, and as `edgespec.load`."""
        if self._config is None:
            raise UsageError("no models are open: expected open_session first")
        if self._session is None:
            self._in_force = Limits()
            session = Session(self._config, progress=self._tell)
            session.on_begin = self._apply
            self._session = session
        return self._session

    def _url(self) -> str:
        return "" if self._server is None else f"{self._server.url}/v1"

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """An answer or a measurement, which `cancel` ends wherever it is."""
        self._stop = threading.Event()
        try:
            yield
        finally:
            self._stop = None

    def _check_stop(self) -> None:
        """Raises: Cancelled."""
        if self._stop is not None and self._stop.is_set():
            raise Cancelled("stopped")

    def _tell(self, what: str, share: float) -> None:
        """The app's progress. Raises: Cancelled while a prompt is read."""
        if self._progress is not None:
            self._progress(what, share)
        if what == READING:
            self._check_stop()

    def _end(self) -> None:
        if self._server is not None:
            self.stop_serving()
        if self._session is not None:
            session, self._session = self._session, None
            session.close()
            del session
            give_back()

    def _apply(self, session: Session) -> None:
        """Before an answer and between its rounds: the limits that were asked for meanwhile."""
        if self._limits is not self._in_force:
            self._in_force = self._limits
            most = self._limits.draft_tokens
            session.limit(threads=self._limits.threads, draft_tokens=most)

    def _about(self, session: Session) -> Reply:
        return {
            "name": model_name(session.pair.path),
            "where": session.where(),
            "n_context": session.target.n_context,
            "drafts": bool(session.method.speculator.name),
        }

    def _figures(self, session: Session) -> Reply:
        found = figures(session.stats, self._finish)
        return found | {"note": self._in_force.why} if self._in_force.why else found


def figures(stats: Stats, finish: str) -> Reply:
    """What a screen shows of an answer. times: over plain decoding, 0 if that is not known.

    acceptance: of drafted tokens, 0 to 1. note: why drafting pauses. finish: why it ended: stop,
    length, context, cancelled, or "" while it goes on.
    """
    return {
        "n_tokens": stats.n_tokens,
        "tokens_per_s": stats.tokens_per_s,
        "first_s": stats.ttft_s,
        "times": stats.speedup,
        "n_drafted": stats.n_drafted,
        "acceptance": stats.acceptance_rate,
        "note": stats.note,
        "finish": finish,
    }


def parsed(text: str, kind: type[Any], what: str) -> Any:
    """What the app said in JSON. Raises: UsageError unless it is of that kind."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{what}: {error}: expected JSON") from error
    if not isinstance(value, kind):
        raise UsageError(f"{what} is {value!r:.80}: expected a JSON {kind.__name__}")
    return value


def messages_of(text: str) -> list[Turn]:
    """A conversation in JSON that ends with a question or an answer. Raises: UsageError."""
    try:
        messages = checked({"schema": SCHEMA, "messages": parsed(text, list, "the conversation")})
    except ValueError as error:
        raise UsageError(f"the conversation: {error}: expected roles and texts") from error
    if not messages:
        raise UsageError("the conversation is empty: expected a question")
    return messages


def asked(text: str) -> tuple[list[Turn], str]:
    """What was said, and the question that ends it. Raises: UsageError."""
    *said, last = messages_of(text)
    if last["role"] != "user":
        raise UsageError(f"the last message is of {last['role']}: expected the user's question")
    return said, last["content"]
