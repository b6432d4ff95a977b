"""Every option once: `Config`'s fields make the command line's flags, EDGESPEC_* and TOML keys.

The field `draft_tokens` is `--draft-tokens`, `EDGESPEC_DRAFT_TOKENS` and, in config.toml,
`draft_tokens = 4`. Precedence: config file < environment < flag. A `per_call` field is also what
/set and one call of generate or chat may choose, and one that SamplingParams has gets there by
its name. For type checkers option.LoadOptions and option.Options repeat the names; a test compares.
Knows nothing of models.
"""

from __future__ import annotations

import difflib
import os
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import Field, dataclass, field, fields, replace
from functools import partial, reduce
from numbers import Real
from pathlib import Path
from typing import Any

from edgespec.errors import UsageError
from edgespec.files import place, text_of
from edgespec.option import (
    Option,
    json_text,
    none_or,
    one_of,
    option,
    per_call,
    real,
    renamed,
    share,
    switch,
    whole,
    whole_or_auto,
    within,
)
from edgespec.types import VERIFICATIONS, SamplingParams

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The modules of drafters/ and of its bridges/ that a name chooses, and the class in each.
DRAFTERS = {"model": "ModelDrafter", "ngram": "NgramDrafter"}
BRIDGES = {
    "exact": "ExactBridge",
    "tli": "TliBridge",
    "text": "TextBridge",
    "omnidraft": "OmniDraftBridge",
}
# Tokens of context unless asked for more: at 28 KiB a token (Qwen2.5-1.5B, f16) 112 MiB, where the
# 32768 it was trained for would take 896 MiB of a phone's memory.
DEFAULT_CONTEXT = 4096
# What keys and values are kept as: ggml's number of the type, values and bytes per block. On the
# demo pair q8_0 takes 53 % of f16's bytes, and three answers of 120 tokens and their acceptance
# stay the same; q4_0 takes 28 %, and all three differ. Quantized, more ties are met: `edgespec
# verify` sees batches move a logit by 0.007 in f16, 0.04 in q8_0, 0.3 in q4_0.
KV_TYPES = {"f16": (1, 1, 2), "q8_0": (8, 32, 34), "q4_0": (2, 32, 18)}
# Weights on the CPU: the fastest here, as they lie in the file, reordered as llama.cpp chooses, or
# reordered without AMX (backends/llamacpp/layout.py).
LOADING = ("auto", "map", "repack", "cpu-repack")
SPECULATIVE = ("auto", "on", "off")
THINK = ("auto", "on", "off")
GROUPS = {"pair": "models", "temperature": "sampling", "system": "conversation"}  # by first field


def drafter_names(text: str) -> str:
    """A comma list of drafters, as written. Raises: ArgumentTypeError."""
    names, known = text.split(","), ("auto", *DRAFTERS, "none")
    for name in names:
        if name not in known:
            raise ArgumentTypeError(f"{name!r}: expected {', '.join(known)}, or model,ngram")
    if len(set(names)) < len(names) or (len(names) > 1 and {"auto", "none"} & set(names)):
        raise ArgumentTypeError(f"{text!r}: expected one name, or different ones as in model,ngram")
    return text


@dataclass(frozen=True)
class Config:
    """A pair of models and how to sample: what `edgespec.load` takes and every command accepts."""

    pair: str = option("demo", "--pair", str, "NAME", "a known pair: see `edgespec models list`")
    model: str = option("", "-m --model", str, "FILE", "target model (GGUF), instead of a pair")
    draft_model: str = option(
        "", "-md --draft-model --model-draft", str, "FILE", "draft model (GGUF)"
    )
    hf_repo: str = option(
        "", "-hf --hf-repo", str, "REPO", "target: USER/REPO[:QUANT] of Hugging Face"
    )
    hf_repo_draft: str = option("", "-hfd --hf-repo-draft", str, "REPO", "... and drafter")
    offline: bool = option(False, "--offline", switch, "", "download nothing", rare=True)
    device: str = option("auto", "-dev --device", str, "NAME", "where the target runs")
    device_draft: str = option("auto", "-devd --device-draft", str, "NAME", "... and the drafter")
    ctx_size: int = option(
        0, "-c --ctx-size", whole, "N", f"context, 0: the model's, at most {DEFAULT_CONTEXT}"
    )
    threads: int = option(0, "-t --threads", whole, "N", "target's threads, 0: all cores")
    threads_draft: int = option(
        0, "-td --threads-draft", whole, "N", "drafter's threads, 0: as the target"
    )
    n_gpu_layers: int | None = option(
        None, "-ngl --n-gpu-layers", whole, "N", "target's layers on the GPU (all)", rare=True
    )
    loading: str = option(
        "auto", "--loading", one_of(*LOADING), "WAY",
        f"weights of GGUF models on the CPU: {', '.join(LOADING)}", rare=True,
    )  # fmt: skip
    kv_type: str = option(
        "f16", "--kv-type", one_of(*KV_TYPES), "TYPE", f"target's cache: {', '.join(KV_TYPES)}",
        rare=True,
    )  # fmt: skip
    kv_type_draft: str = option(
        "f16", "--kv-type-draft", one_of(*KV_TYPES), "TYPE", "... and the drafter's", rare=True
    )
    speculative: str = per_call(
        "auto", "--speculative", one_of(*SPECULATIVE), "auto|on|off", "auto pauses if not faster"
    )
    draft_tokens: int | str = per_call(
        "auto", "--draft-tokens --draft-max", whole_or_auto, "N|auto", "tokens drafted per round"
    )
    draft_window: int = option(
        1024, "--draft-window", none_or(64), "N",
        "tokens of a long text that the drafter sees at most, 0: all", rare=True,
    )  # fmt: skip
    drafter: str = option(
        "auto", "--drafter", drafter_names, "NAME", "model, ngram, none, or model,ngram"
    )
    bridge: str = option(
        "auto", "--bridge", one_of("auto", "same", *BRIDGES), "NAME",
        f"auto, same, {', '.join(BRIDGES)}",
    )  # fmt: skip
    exact: bool = option(
        False, "--exact", switch, "", "the same text whatever is drafted, to the last bit"
    )
    adapt: bool = option(
        False, "--adapt", switch, "", "the drafter learns from answers (--no-adapt: not)", rare=True
    )
    adapt_rows: int = option(
        1024, "--adapt-rows", whole, "N", "... rows that a trimmed head may grow", rare=True
    )
    adapt_keep_text: bool = option(
        False, "--adapt-keep-text", switch, "", "keep prompts as text, for adapt train", rare=True
    )
    adapt_topics: int = option(
        1, "--adapt-topics", within(1, 4), "N", "heads at most, by topic (1 to 4)", rare=True
    )
    adapt_share: float = option(
        0.02, "--adapt-share", share(0.5), "X", "... of decoding's time to learn in (0 to 0.5)",
        rare=True,
    )  # fmt: skip
    adapt_within: bool = option(
        True, "--adapt-within", switch, "true|false",
        "... the head that learns may take over in an answer", rare=True,
    )  # fmt: skip
    lora_draft: str = option(
        "", "--lora-draft", str, "FILE", "low-rank adapter of the draft model", rare=True
    )
    allow_approximate: bool = option(
        False, "--allow-approximate", switch, "", "let --bridge omnidraft sample, not losslessly",
        rare=True,
    )  # fmt: skip
    think: str = per_call(
        "auto", "--think", one_of(*THINK), "auto|on|off", "thoughts before answers", rare=True
    )
    temperature: float = per_call(
        SamplingParams.temperature, "--temp --temperature", real, "X", "0: likeliest token"
    )
    top_k: int = per_call(SamplingParams.top_k, "--top-k", whole, "N", "of the N likeliest, 0: all")
    top_p: float = per_call(
        SamplingParams.top_p, "--top-p", real, "X", "of the likeliest that sum to X"
    )
    min_p: float = per_call(
        SamplingParams.min_p, "--min-p", real, "X", "at least X times the likeliest"
    )
    repeat_penalty: float = per_call(
        SamplingParams.repeat_penalty, "--repeat-penalty", real, "X", "1: off", rare=True
    )
    frequency_penalty: float = per_call(
        SamplingParams.frequency_penalty, "--frequency-penalty", real, "X", "per use, 0: off",
        rare=True,
    )  # fmt: skip
    presence_penalty: float = per_call(
        SamplingParams.presence_penalty, "--presence-penalty", real, "X", "if used, 0: off",
        rare=True,
    )  # fmt: skip
    verification: str = per_call(
        SamplingParams.verification, "--verification", one_of(*VERIFICATIONS), "RULE",
        "match, rejection or block", rare=True,
    )  # fmt: skip
    json_schema: str = per_call(
        "", "-j --json-schema", str, "SCHEMA",
        "answer in JSON: schema or its file; {} is any object",
    )  # fmt: skip
    grammar: str = per_call(
        "", "--grammar", str, "GBNF", "answer by this grammar: GBNF or its file", rare=True
    )
    seed: int | None = per_call(SamplingParams.seed, "--seed", whole, "N", "same seed, same text")
    max_tokens: int = per_call(
        SamplingParams.max_tokens, "-n --max-tokens", whole, "N", "most tokens of an answer"
    )
    stop: tuple[str, ...] = per_call((), "--stop", str, "TEXT", "stop before TEXT (repeatable)")

    chat_template: str = option(
        "", "--chat-template", str, "NAME|FILE", "instead of the model's own", rare=True
    )
    system: str = option("", "-sys --system", str, "TEXT", "what the model should be", only="chat")
    color: str = option(
        "auto", "--color", one_of("auto", "on", "off"), "auto|on|off", "of drafted tokens",
        only="chat",
    )  # fmt: skip
    history: bool = option(
        True, "--history", switch, "true|false", "remember what was typed", only="chat", rare=True
    )
    # Options that a tuned pair chose, and not the user.
    settled: frozenset[str] = field(default=frozenset(), compare=False)

    def sampling(self, stop_tokens: Set[int]) -> SamplingParams:
        """The sampling part, with the model's own stop tokens."""
        shared = {one.name for one in fields(SamplingParams)} & {one.name for one in fields(self)}
        values = {name: getattr(self, name) for name in shared}
        return SamplingParams(stop_tokens=stop_tokens, **values)


def options() -> list[tuple[Field[Any], Option]]:
    """Every field that is an option, in order."""
    return [(one, one.metadata["option"]) for one in fields(Config) if one.metadata]


PER_CALL = tuple(one.name for one, opt in options() if opt.per_call)


def with_values(config: Config, values: Mapping[str, Any], source: str) -> Config:
    """`config` with `values`, texts or TOML's and Python's types, read as their options do.

    A model named in one way is no longer named in another: a file, a repository or within a pair.
    Raises: UsageError naming `source`, the key and, for an unknown key, the nearest known one.
    """
    known = {one.name: (one, opt) for one, opt in options()}
    check_known(values, list(known), source)
    read: dict[str, Any] = {}
    for name, value in values.items():
        try:
            read[name] = _read(*known[name], value)
        except ArgumentTypeError as error:
            raise UsageError(f"{source}: {name} is {error}") from None
    settled = config.settled - read.keys()
    return replace(config, settled=settled, **read | renamed(vars(config), read))


def _read(one: Field[Any], opt: Option, value: Any) -> Any:
    """One value by its option's reader. Raises: ArgumentTypeError."""
    if isinstance(one.default, tuple):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
            raise ArgumentTypeError(f"{value!r}: expected a text or a list of texts")
        return tuple(values)
    if value is None and one.default is None:
        return None
    if one.name == "json_schema" and isinstance(value, Mapping):
        return json_text(value)
    misplaced = isinstance(value, bool) and opt.read is not switch
    if misplaced or not isinstance(value, (str, Real, Path)):
        raise ArgumentTypeError(f"{value!r}: expected {opt.metavar or 'true or false'}")
    return opt.read(str(value))


def check_known(names: Iterable[str], known: Sequence[str], source: str) -> None:
    """Raises: UsageError naming `source`, the first unknown name, and the nearest known one."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
            raise UsageError(f"{source}: unknown key {name!r}: {hint}")


Layer = tuple[Mapping[str, Any], str]  # values of options, and where they were said


def in_file(path: Path) -> Layer:
    """What the TOML file at `path` says. Raises: UsageError naming the file."""
    try:
        return tomllib.loads(text_of(path, expected="a TOML file")), str(path)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def in_environment(environ: Mapping[str, str]) -> Layer:
    """What the EDGESPEC_* variables say that name options.

    Others are not ours, unless they nearly name one. Raises: UsageError.
    """
    given = {one.name: variable_of(one.name) for one, _ in options()}
    known = list(given.values())
    for variable in environ:
        if variable.startswith("EDGESPEC_") and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1, cutoff=0.93)
            if close:
                raise UsageError(f"{variable}: unknown variable: did you mean {close[0]}?")
    values = {name: environ[variable] for name, variable in given.items() if variable in environ}
    for name, value in values.items():
        with_values(Config(), {name: value}, given[name])  # which an error names
    return values, "environment"


def variable_of(name: str) -> str:
    """The environment variable of a field."""
    return f"EDGESPEC_{name.upper()}"


def add_flags(parser: ArgumentParser, command: str, *, every: bool = False) -> None:
    """One flag per field that `command` has; a flag that is not given is None in the namespace.

    every: also describe the rare ones.
    """
    group = parser
    for one, opt in options():
        if one.name in GROUPS:
            group = parser.add_argument_group(GROUPS[one.name])  # type: ignore[assignment]
        if opt.only not in ("", command):
            continue
        text = SUPPRESS if opt.rare and not every else opt.text
        if not opt.metavar:
            add = partial(group.add_argument, dest=one.name, action="store_const")
            add(*opt.flags, const=True, help=text)
            add(*map(_denied, opt.flags), const=False, help=SUPPRESS)  # what a file had switched on
            continue
        action = "append" if isinstance(one.default, tuple) else "store"
        n_shown = 1 if opt.flags[0].startswith("--") else 2
        for flags, shown in ((opt.flags[:n_shown], text), (opt.flags[n_shown:], SUPPRESS)):
            if flags:  # further spellings work but would fill the help
                group.add_argument(
                    *flags, dest=one.name, type=opt.read, metavar=opt.metavar, help=shown,
                    action=action,
                )  # fmt: skip


def _denied(flag: str) -> str:
    """The flag that switches another's option off."""
    return flag.replace("--", "--no-", 1)


def layers(
    flags: Namespace, environ: Mapping[str, str] | None = None, *, path: Path | None = None
) -> list[Layer]:
    """What the user says, the config file first, then the environment, then the flags.

    path: the config file, by default the user's own, which need not exist.
    """
    environ = os.environ if environ is None else environ
    own = path or config_file(environ)
    file = [in_file(own)] if path is not None or own.is_file() else []
    given = {one.name: getattr(flags, one.name, None) for one, _ in options()}
    typed = {name: value for name, value in given.items() if value is not None}
    return [*file, in_environment(environ), (typed, "flags")]


def laid(config: Config, said: Iterable[Layer]) -> Config:
    """`config` with these over it, one after the other."""
    return reduce(lambda below, layer: with_values(below, *layer), said, config)


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """$EDGESPEC_HOME/config.toml, else config.toml in the system's folder for settings."""
    return _folder(environ, "XDG_CONFIG_HOME", ".config", "APPDATA", "") / "config.toml"


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """$EDGESPEC_HOME, else the system's folder for files that can be made again."""
    return _folder(environ, "XDG_CACHE_HOME", ".cache", "LOCALAPPDATA", "Caches")


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """$EDGESPEC_HOME, else the system's folder for what a program has learned and should keep."""
    return _folder(environ, "XDG_STATE_HOME", ".local/state", "LOCALAPPDATA", "")


def _folder(
    environ: Mapping[str, str] | None, xdg: str, default: str, windows: str, mac: str
) -> Path:
    environ = os.environ if environ is None else environ
    if environ.get("EDGESPEC_HOME"):
        return place(environ["EDGESPEC_HOME"])
    if environ.get(xdg):
        return Path(environ[xdg]) / "edgespec"
    if sys.platform == "win32" and environ.get(windows):
        return Path(environ[windows]) / "edgespec"
    if sys.platform == "darwin":
        default = f"Library/{mac or 'Application Support'}"
    try:
        return Path.home() / default / "edgespec"
    except RuntimeError as error:  # an empty environment, and nobody has this user's number
        raise UsageError(
            "no home folder is known: expected HOME or EDGESPEC_HOME in the environment; set one"
        ) from error
