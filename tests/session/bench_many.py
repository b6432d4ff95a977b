"""Several requests at once over one after another, and a first token beside a long prompt.

    python tests/session/bench_many.py --pair padded-f16 --requests 8 -n 64 --repeats 3
    python tests/session/bench_many.py --first-token -c 5000

No test: it measures, and prints a line for each way and one of JSON last. Ways take turns. Tokens
per second count from the first request to the last token of all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import edgespec
from edgespec.cli.prompts import built_in
from edgespec.config import Config
from edgespec.session.many.many import Answers, Many
from edgespec.session.many.opening import open_many

WARM = 8  # tokens of each way before any is timed
SHORT, LONG = 20, 4000  # tokens of the prompts whose first tokens are timed


def main() -> None:
    """Measure what the flags say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pair", default="demo")
    parser.add_argument("-m", "--model", default="")
    parser.add_argument("-md", "--draft-model", default="")
    parser.add_argument("-c", "--ctx-size", type=int, default=1024)
    parser.add_argument("-t", "--threads", type=int, default=0)
    parser.add_argument("-n", "--max-tokens", type=int, default=64)
    parser.add_argument("--set", default="stories")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--temp", type=float, default=0.0)
    parser.add_argument("--first-token", action="store_true")
    args = parser.parse_args()
    config = Config(
        pair=args.pair, model=args.model, draft_model=args.draft_model, ctx_size=args.ctx_size,
        threads=args.threads, temperature=args.temp,
    )  # fmt: skip
    print(json.dumps(first_token(config) if args.first_token else throughput(config, args)))


def throughput(config: Config, args: argparse.Namespace) -> dict[str, object]:
    """Tokens per second of all requests, by way."""
    chosen = built_in(args.set)[: args.requests]
    asked = [list(chosen[i % len(chosen)].messages) for i in range(args.requests)]
    with (
        edgespec.load(**given(config)) as session,
        open_many(config, n_parallel=args.requests) as many,
    ):

        def one_by_one(how: str) -> Callable[[int], list[list[int]]]:
            def all_(n: int) -> list[list[int]]:
                # A drafter that remembers the last repeat would recite its answers.
                session.use(session.pair.methods.named("auto" if how == "auto" else "plain"))
                out = []
                for messages in asked:
                    session.target.truncate(0)
                    for _ in session.chat(messages, max_tokens=n):
                        pass
                    out.append(list(session.turns.output))
                return out

            return all_

        def at_once(how: str) -> Callable[[int], list[list[int]]]:
            def all_(n: int) -> list[list[int]]:
                many.rounds.forget()
                return [run for run, _ in answers(many, asked, how, n)]

            return all_

        assert isinstance(many, Many)
        ways = {
            "plain, one by one": one_by_one("off"),
            "auto, one by one": one_by_one("auto"),
            "plain, at once": at_once("off"),
            "auto, at once": at_once("auto"),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        outputs: dict[str, list[list[int]]] = {}
        for way in ways.values():
            way(WARM)
        for number in range(args.repeats):
            names = list(ways)[number % 4 :] + list(ways)[: number % 4]
            for name in names:
                start = perf_counter()
                outputs[name] = ways[name](args.max_tokens)
                took_s = perf_counter() - start
                speeds[name].append(sum(map(len, outputs[name])) / took_s)
                print(f"{number + 1}, {name}: {speeds[name][-1]:.1f}", file=sys.stderr)
    plain = outputs["plain, one by one"]
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    for name, found in speeds.items():
        n_other = sum(a != b for a, b in zip(plain, outputs[name], strict=True))
        print(
            f"{name:<20}{medians[name]:>9.1f} tokens/s ({min(found):.1f}..{max(found):.1f}), "
            f"{n_other} of {len(plain)} texts differ"
        )
    plain_gain = medians["plain, at once"] / medians["plain, one by one"]
    other = max(medians["plain, at once"], medians["auto, one by one"])
    print(f"at once over one by one, plain: {plain_gain:.2f} (2.0 or more is due)")
    print(f"auto at once over the better: {medians['auto, at once'] / other:.2f} (1.15 is due)")
    return {"pair": args.pair, "requests": args.requests, "speeds": speeds}


def given(config: Config) -> dict[str, object]:
    """What `edgespec.load` takes of it."""
    names = ("pair", "model", "draft_model", "ctx_size", "threads", "temperature")
    return {name: value for name in names if (value := getattr(config, name))}


def answers(
    many: Answers, asked: list[list[dict[str, str]]], how: str, n: int
) -> list[tuple[list[int], float]]:
    """The ids of all answers, asked for at once, and when their first token came."""
    options = {"max_tokens": n, "speculative": how}
    config = many.with_options(options, many.template.stop)
    out: list[tuple[list[int], float]] = [([], 0.0)] * len(asked)

    def read(i: int) -> None:
        start, first = perf_counter(), 0.0
        begun = many.begin(many.prompt(asked[i]), config, options)
        for _ in begun.pieces:
            first = first or perf_counter() - start
        out[i] = begun.result.output, first

    threads = [threading.Thread(target=read, args=[i]) for i in range(len(asked))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return out


def first_token(config: Config) -> dict[str, object]:
    """Seconds until the first token of a short prompt, alone and beside a long one."""
    ids = list(range(100, 400))
    with open_many(config, n_parallel=2) as many:
        long, options = (ids * (1 + LONG // len(ids)))[:LONG], {"max_tokens": 1}
        one = many.with_options({**options, "speculative": "off"})

        def took(prompt: list[int]) -> float:
            start = perf_counter()
            for _ in many.begin(prompt, one, options).pieces:
                pass
            return perf_counter() - start

        took(ids[:SHORT])
        alone = [took([7 + i, *ids[:SHORT]]) for i in range(5)]
        beside, whole = [], []
        for i in range(5):
            start = perf_counter()
            other = many.begin([50 + i, *long], one, options)
            threading.Event().wait(0.2 * statistics.mean(whole) if whole else 0.05)
            beside.append(took([20 + i, *ids[:SHORT]]))
            list(other.pieces)
            whole.append(perf_counter() - start)
    part_s = statistics.median(whole) * 256 / LONG
    due = 2 * statistics.median(alone) + part_s
    print(
        f"first token alone {statistics.median(alone) * 1e3:.1f} ms, beside a prompt of {LONG} "
        f"tokens {statistics.median(beside) * 1e3:.1f} (at most {max(beside) * 1e3:.1f}); a part "
        f"takes {part_s * 1e3:.1f}, so {due * 1e3:.1f} is due"
    )
    return {"alone_s": alone, "beside_s": beside, "part_s": part_s, "file": Path(__file__).name}


if __name__ == "__main__":
    main()
