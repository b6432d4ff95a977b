"""How near `edgespec tune` comes to the best of everything it could have chosen.

`python tests/tune/sweep.py PAIR[,PAIR] TUNED.json [minutes=10] [sets=questions,code] [after=8]
[tokens=48]` takes what `edgespec tune --pair PAIR --json TUNED.json` wrote, opens the pair, and a
second one of the same weights, with every number of threads that tune considers, and has every way
to decode answer the same prompts in turns, those of each set after the first 8. What is 1.15 times
behind the best is left out after each pass, the choice never.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

from edgespec.cli.prompts import built_in
from edgespec.config import Config, with_values
from edgespec.device import n_cores
from edgespec.session.methods import Method
from edgespec.session.session import Session
from edgespec.text.template import Message
from edgespec.tune.flow import DRAFTS
from edgespec.tune.search import Race
from edgespec.tune.threads import candidates
from edgespec.types import Stats

THREADS = ("threads", "threads_draft")
Messages = Sequence[Message]
Way = tuple[Session, str, str]  # kind of method, and its drafters


def chosen(path: Path, pair: str) -> str:
    """The way that tune chose, named as here; pair: the one it was asked for."""
    found = json.loads(path.read_text())
    values, choice = found["values"], found["choice"]
    threads = [values.get(name, getattr(Config, name)) or n_cores() for name in THREADS]
    return named(choice["pair"] or pair, choice["way"], *threads)


def named(pair: str, way: str, n_target: int, n_draft: int) -> str:
    return f"{pair}: {way}, {n_target} threads" + (f" and {n_draft}" if "model" in way else "")


def main(words: list[str]) -> None:
    """Print every way's gain over the choice, the best one last."""
    given = dict(word.split("=", 1) for word in words[3:])
    sets = given.get("sets", "questions,code").split(",")
    usual = {"temperature": 0.0, "max_tokens": int(given.get("tokens", 48))}
    pairs, numbers = words[1].split(","), candidates(n_cores())
    choice = chosen(Path(words[2]), pairs[0])
    with ExitStack() as opened:
        sessions, methods = dict[str, Way](), dict[str, tuple[Session, Method]]()
        for pair, n_target, n_draft in product(pairs, numbers, numbers):
            values = {"pair": pair, "threads": n_target, "threads_draft": n_draft, **usual}
            session = opened.enter_context(Session(with_values(Config(), values, "sweep")))
            for way, drafter in DRAFTS.items():
                name = named(pair, way, n_target, n_draft)
                kind = "plain" if way == "plain" else "auto"
                sessions.setdefault(name, (session, kind, drafter))

        def renew() -> None:
            """Ways that have learned nothing, of which none can recite an answer."""
            for name, (session, kind, drafter) in sessions.items():
                methods[name] = session, session.pair.method(kind, drafter)

        def answer(name: str, messages: Messages) -> Stats:
            session, method = methods[name]
            session.use(method, keep_read=True)
            for _ in session.steps(session.prompt(messages), session.params()):
                pass
            return session.stats

        first = int(given.get("after", 8))
        questions = {one: [p.messages for p in built_in(one)[first:]] for one in sets}
        renew()
        for name in methods:  # costs and graphs are made once
            answer(name, questions[sets[0]][0])
        renew()
        names = [choice, *(name for name in methods if name != choice)]
        race = Race(questions, answer, told, forget=renew)
        ways = race.run(names, 60 * float(given.get("minutes", 10)))
    rows: list[dict[str, Any]] = [
        {
            "way": way.name,
            "over_choice": round(way.gains(ways[0]), 3),
            "by_kind": {kind: round(way.gain(ways[0], kind), 3) for kind in sets},
            "n_prompts": sum(len(runs) for runs in way.stats.values()),
        }
        for way in ways
    ]
    for row in sorted(rows, key=lambda row: row["over_choice"]):
        print(json.dumps(row))


def told(share: float) -> None:
    print(f"\r{share:.0%} of the time", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv)
