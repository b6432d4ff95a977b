"""`edgespec serve`: answers programs that speak OpenAI's interface, and a page for people."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from argparse import ArgumentParser, Namespace
from types import FrameType

from edgespec.cli.output import show_progress
from edgespec.cli.run import say
from edgespec.config import Config
from edgespec.errors import Cancelled, UsageError
from edgespec.option import within

ABOUT = "Answer programs that speak OpenAI's interface, and people, on a page at /."
USAGE = "[--port N] [--host ADDRESS] [options]"
EXAMPLE = "edgespec serve --port 8088"
DEFAULTS = Config()
# How long who waits for Python's lock lets another have it: beside 64 clients the slowest answer of
# /health took 56 and 57 ms, with Python's own 5 ms 64 and 100 (runs of 25 s in turns).
SWITCH_S = 0.001
LAST_S = 4.0  # for what is opened, to end by itself
RARE = (
    "--models-dir",
    "--most-models",
    "--only",
    "--queue",
    "--timeout",
    "--max-body",
    "--most-tokens",
    "--most-n",
)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens (127.0.0.1)")
    add("--port", type=within(0, 65535), default=8088, metavar="N", help="... (8088, 0: any free)")
    add("--api-key-file", default="", metavar="FILE", help="keys, one a line; or EDGESPEC_API_KEY")
    add("--cors", action="append", metavar="ORIGIN", help="let in pages of it (repeatable)")
    add("--alias", default="", metavar="NAME", help="the model's name in requests")
    add(
        "--parallel",
        type=within(0, 64),
        default=0,
        metavar="N",
        help="answers at once, 0: as memory allows",
    )
    add("--models-dir", default="", metavar="DIR", help="GGUF files that requests may name besides")
    add("--idle-unload", type=within(0, 1 << 30), metavar="S",
        help="close models unused for S seconds, 0: never (600; the first stays)")  # fmt: skip
    add("--most-models", type=within(1, 64), default=4, metavar="N", help="models open at once")
    add("--only", action="store_true", help="serve no other model than this one")
    add("--queue", type=within(0, 4096), default=64, metavar="N", help="requests that may wait")
    add("--timeout", type=within(1, 86400), default=600, metavar="S", help="most for an answer")
    add("--max-body", type=within(1, 1 << 30), default=4 << 20, metavar="N", help="bytes of one")
    add("--most-tokens", type=within(0, 1 << 30), default=0, metavar="N",
        help="of an answer, whatever is asked for; 0: to the context's end")  # fmt: skip
    add("--most-n", type=within(1, 128), default=8, metavar="N", help="answers to one request")


def run(args: Namespace, config: Config) -> int:
    """Serve until it is told to end."""
    try:
        from edgespec.server.limits import Access, Limits, keys_of
        from edgespec.server.running import Others, Place, over
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    limits = Limits(
        body_bytes=args.max_body, n=args.most_n, n_tokens=args.most_tokens, queue=args.queue,
        answer_s=float(args.timeout),
    )  # fmt: skip
    access = Access(args.host, keys_of(args.api_key_file), tuple(args.cors or ()))
    access.check()
    idle_s = None if args.idle_unload is None else float(args.idle_unload)
    others = Others(args.only, args.models_dir, args.most_models, idle_s, args.parallel)
    others.check()
    sys.setswitchinterval(SWITCH_S)
    place = Place(args.port, access, limits, args.alias, others)
    with Ending() as ending:
        try:
            server = over(config, place, ending.reported)
            ending.is_open = True
        except (KeyboardInterrupt, Cancelled):
            if not ending.is_told:
                raise
            show_progress.clear()
            say("closing")
            return 0
        with server:
            show_progress.clear()
            gc.collect()
            gc.freeze()  # what stays need not be looked through meanwhile: 50 ms each time
            say(f"serving {server.name} at {server.url} (the page), {server.url}/v1 (programs)")
            ending.wait()
            say("closing")
    return 0


class Ending:
    """SIGTERM and Ctrl-C: they interrupt what is opened, and are waited for once it is open.

    A second Ctrl-C interrupts whatever goes on. is_told: whether one of them has come. Where C code
    does not return, and so Python hears of no signal, the process ends after LAST_S all the same.
    Within `with`; afterwards signals do what they did before.
    """

    def __init__(self) -> None:
        self.is_open, self._told, self._over = False, threading.Event(), threading.Event()
        self._heard, self._rings = socket.socketpair()

    def __enter__(self) -> Ending:
        self._rings.setblocking(False)
        self._bell = signal.set_wakeup_fd(self._rings.fileno(), warn_on_full_buffer=False)
        self._interrupted = signal.signal(signal.SIGINT, self._interrupt)
        self._terminated = signal.signal(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._last, name="edgespec-end", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGTERM, self._terminated)
        signal.set_wakeup_fd(self._bell)
        self._rings.close()  # which wakes who listens

    def _last(self) -> None:
        with self._heard:  # as long as there may be more signals
            self._heard.recv(1)
            if not self._over.wait(LAST_S) and not self.is_open:
                say("closing, in the middle of what does not return")
                os._exit(0)
            self._over.wait()

    @property
    def is_told(self) -> bool:
        return self._told.is_set()

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        if self.is_told or not self.is_open:
            self._told.set()
            raise KeyboardInterrupt
        self._told.set()

    def _terminate(self, _: int, __: FrameType | None) -> None:
        if self.is_open:
            self._told.set()
        else:
            signal.raise_signal(signal.SIGINT)  # which may be held until C code has returned

    def reported(self, what: str, share: float) -> None:
        """A Progress that ends what is opened, on whatever thread, once that is told to."""
        if self.is_told:
            raise Cancelled("stopped while models were opened")
        show_progress(what, share)

    def wait(self) -> None:
        """Until it is told."""
        while not self._told.wait(0.5):  # without a limit a signal would wait on Windows
            pass


def lacking(error: ModuleNotFoundError) -> UsageError:
    """What to install. Raises: the error, if it is a module of ours that is missing."""
    if (error.name or "").split(".")[0] == "edgespec":
        raise error
    return UsageError(
        f"the package {error.name} is not installed: expected it for serving; type "
        f"`{sys.executable} -m pip install 'edgespec[serve]'`"
    )
