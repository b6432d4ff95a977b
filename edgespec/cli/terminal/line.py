"""What is typed: editing, history, completion, and messages of several lines."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from edgespec.cli.tty import is_screen

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History

PROMPT, MORE = "> ", "... "
QUOTES = '"""'
MARKS = ("'", '"')  # around a file's name


class Lines(Protocol):
    """Where messages come from. is_empty: whether nothing had been typed when Ctrl-C came."""

    is_empty: bool

    def read(self) -> str:
        """The next message. Raises: EOFError at the end, KeyboardInterrupt for Ctrl-C."""
        ...


class Typed:
    """Messages from a keyboard, edited on `screen`.

    complete: what may stand in place of the last word of a text.
    history: the file of what was typed, None to remember nothing longer than this conversation.
    """

    def __init__(
        self, screen: TextIO, complete: Callable[[str], Iterable[str]], history: Path | None
    ) -> None:
        self._session = prompt_session(screen, complete, kept_in(history))
        self.is_empty = True

    def read(self) -> str:
        try:
            return unquoted(self._session.prompt(PROMPT))
        except KeyboardInterrupt:
            self.is_empty = not self._session.default_buffer.text
            raise


class Plainly:
    """Messages from standard input a line at a time, where there is no screen to edit them on.

    terminal: where the prompt is shown, None for nowhere.
    """

    is_empty = True

    def __init__(self, terminal: TextIO | None) -> None:
        self._terminal = terminal

    def read(self) -> str:
        text = self._line(PROMPT)
        while text.endswith("\n") and is_open(text.rstrip("\n")):
            more = self._line(MORE)
            if not more:
                break
            text += more
        if not text:
            raise EOFError
        return unquoted(text.rstrip("\n"))

    def _line(self, prompt: str) -> str:
        if self._terminal is not None:
            print(prompt, end="", file=self._terminal, flush=True)
        return sys.stdin.readline()


@contextmanager
def unseen() -> Iterator[None]:
    """What is typed meanwhile does not show; it waits for the next message."""
    try:
        import termios
    except ImportError:  # Windows shows nothing that is not read
        yield
        return
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (AttributeError, OSError, ValueError, termios.error):  # not a terminal
        yield
        return
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, silent)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def lines_of(complete: Callable[[str], Iterable[str]], history: Path | None) -> Lines:
    """The keyboard with whichever of stdout and stderr is a terminal."""
    terminal = next((file for file in (sys.stdout, sys.stderr) if file.isatty()), None)
    if terminal is None or not is_screen(terminal):
        return Plainly(terminal)
    return Typed(terminal, complete, history)


def is_open(text: str) -> bool:
    """Whether a message goes on in the next line: quotes are open, or it ends with a backslash.

    That stands alone or after a space, since folders of Windows end with one too.
    """
    return text.count(QUOTES) % 2 == 1 or bool(re.search(r"(?<!\S)\\\Z", text))


def unquoted(text: str) -> str:
    """The message that was meant: without quotes around it or backslashes at the ends of lines."""
    words = text.strip()
    if words.startswith(QUOTES) and words.endswith(QUOTES) and len(words) >= 2 * len(QUOTES):
        return words[len(QUOTES) : -len(QUOTES)].strip("\n")
    return text if QUOTES in text else re.sub(r"(?<!\S)\\\n", "\n", text)


def prompt_session(
    screen: TextIO, complete: Callable[[str], Iterable[str]], history: History
) -> PromptSession[str]:
    """The editor: Enter sends, but for an open message; Tab completes as in a shell."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.keys import Keys
    from prompt_toolkit.output import create_output
    from prompt_toolkit.shortcuts import CompleteStyle

    class Words(Completer):
        """`complete` as prompt_toolkit wants it."""

        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            for word in complete(text):
                yield Completion(word, start_position=-len(last_word(text)))

    keys = KeyBindings()

    @keys.add(Keys.Vt100MouseEvent)
    def _(event: KeyPressEvent) -> None:
        """Pasted escape sequences can look like a mouse, which is not used; the library trips."""

    return PromptSession(
        history=history,
        key_bindings=keys,
        completer=Words(),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        multiline=Condition(lambda: is_open(get_app().current_buffer.text)),
        prompt_continuation=MORE,
        output=create_output(stdout=screen),
    )


def last_word(text: str) -> str:
    """What is being typed: the part after the last space, or a command's after its open quote."""
    rest = text.partition(" ")[2] if text.startswith("/") else ""
    if rest[:1] in MARKS and rest.count(rest[:1]) == 1:
        return rest
    return text.rpartition(" ")[2]


def first_word(text: str) -> tuple[str, str]:
    """The first word, without the quotes it may stand in, and what follows, as it was typed."""
    mark = text[:1]
    end = text.find(mark, 1) if mark in MARKS else -1
    if end > 0:
        return text[1:end], text[end + 1 :].strip()
    word, _, rest = text.partition(" ")
    return word, rest.strip()


def bare(text: str) -> str:
    """The text without the quotes around it, if there are any."""
    is_quoted = len(text) > 1 and text[0] in MARKS and text.find(text[0], 1) == len(text) - 1
    return text[1:-1] if is_quoted else text


def file_names(begun: str) -> list[str]:
    """Files and folders whose path begins so, folders with a slash at the end; spaces are quoted.

    A folder's quote stays open for what is in it.
    """
    mark = begun[:1] if begun[:1] in MARKS else ""
    folder, name = os.path.split(begun[len(mark) :])
    try:
        found = sorted(os.listdir(os.path.expanduser(folder) or "."))
    except OSError:
        return []
    names = [one for one in found if one.startswith(name) and (name or not one.startswith("."))]
    return [_quoted(os.path.join(folder, one), mark) for one in names]


def _quoted(path: str, mark: str) -> str:
    """A path as it is typed, in quotes if it has to be or `mark` already began them."""
    mark = mark or ('"' if "'" in path else "'") * (" " in path)
    if os.path.isdir(os.path.expanduser(path)):
        return f"{mark}{path}/"
    return f"{mark}{path}{mark}"


def kept_in(file: Path | None) -> History:
    """What was typed before, in `file`, which its owner alone can read; else in memory."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:  # a home that cannot be written is no reason not to talk
        return InMemoryHistory()
    return FileHistory(str(file))
