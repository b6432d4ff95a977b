"""Every option once: `Config`'s fields make the command line's flags, EDGESPEC_* and TOML keys.

The field `draft_tokens` is `--draft-tokens`, `EDGESPEC_DRAFT_TOKENS` and, in config.toml,
`draft_tokens = 4`. Precedence: config file < environment < flag. Knows nothing of models.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

from edgespec.errors import UsageError
from edgespec.files import text_of
from edgespec.types import SamplingParams

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DRAFTERS = ("auto", "model", "ngram", "none")
SPECULATIVE = ("auto", "on", "off")
BRIDGES = ("auto", "same", "tli", "text", "omnidraft", "exact")
VERIFICATIONS = ("auto", "match", "rejection", "block")
GROUPS = {"pair": "models", "temperature": "sampling", "system": "conversation"}  # by first field


@dataclass(frozen=True)
class Option:
    """How one field is written: its flags, how its text is read, what `--help` says.

    only: the command that has the flag, "" for all. rare: shown by --help-all only.
    """

    flags: tuple[str, ...]
    read: Callable[[str], Any]
    metavar: str
    text: str
    only: str = ""
    rare: bool = False


def option(
    default: Any,
    flags: str,
    read: Callable[[str], Any],
    metavar: str,
    text: str,
    *,
    only: str = "",
    rare: bool = False,
) -> Any:
    """A dataclass field that is a command-line option."""
    made = Option(tuple(flags.split()), read, metavar, text, only, rare)
    return field(default=default, metadata={"option": made})


def whole(text: str) -> int:
    """A count. Raises: ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ArgumentTypeError(f"{text!r}: expected a whole number, 0 or more")
    return number


def real(text: str) -> float:
    """A finite number. Raises: ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ArgumentTypeError(f"{text!r}: expected a number")
    return number


def whole_or_auto(text: str) -> int | str:
    """A count or "auto". Raises: ArgumentTypeError."""
    if text == "auto":
        return text
    try:
        return whole(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{text!r}: expected a number of tokens, or auto") from None


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes the given words only."""

    def read(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(f"{text!r}: expected one of {', '.join(choices)}")
        return text

    return read


def switch(text: str) -> bool:
    """Yes or no. Raises: ArgumentTypeError."""
    found = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
    if text.lower() not in found:
        raise ArgumentTypeError(f"{text!r}: expected true or false")
    return found[text.lower()]


def drafter_names(text: str) -> str:
    """A comma list of drafters, as written. Raises: ArgumentTypeError."""
    names = text.split(",")
    for name in names:
        if name not in DRAFTERS:
            raise ArgumentTypeError(f"{name!r}: expected {', '.join(DRAFTERS)}, or model,ngram")
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
    ctx_size: int = option(0, "-c --ctx-size", whole, "N", "context, 0: the model's, at most 4096")
    threads: int = option(0, "-t --threads", whole, "N", "target's threads, 0: all cores")
    threads_draft: int = option(1, "-td --threads-draft", whole, "N", "drafter's threads (1)")
    speculative: str = option(
        "auto", "--speculative", one_of(*SPECULATIVE), "auto|on|off", "auto pauses if not faster"
    )
    draft_tokens: int | str = option(
        "auto", "--draft-tokens --draft-max", whole_or_auto, "N|auto", "tokens drafted per round"
    )
    drafter: str = option(
        "auto", "--drafter", drafter_names, "NAME", "model, ngram, none, or model,ngram"
    )
    bridge: str = option(
        "auto", "--bridge", one_of(*BRIDGES), "NAME", "auto, same, exact, tli, text, omnidraft"
    )
    allow_approximate: bool = option(
        False,
        "--allow-approximate",
        switch,
        "",
        "let --bridge omnidraft sample, not losslessly",
        rare=True,
    )
    temperature: float = option(0.0, "--temp --temperature", real, "X", "0: likeliest token")
    top_k: int = option(0, "--top-k", whole, "N", "of the N likeliest, 0: all")
    top_p: float = option(1.0, "--top-p", real, "X", "of the likeliest that sum to X")
    min_p: float = option(0.0, "--min-p", real, "X", "at least X times the likeliest")
    repeat_penalty: float = option(1.0, "--repeat-penalty", real, "X", "1: off", rare=True)
    frequency_penalty: float = option(
        0.0, "--frequency-penalty", real, "X", "per use, 0: off", rare=True
    )
    presence_penalty: float = option(
        0.0, "--presence-penalty", real, "X", "if used, 0: off", rare=True
    )
    verification: str = option(
        "auto",
        "--verification",
        one_of(*VERIFICATIONS),
        "RULE",
        "match, rejection or block",
        rare=True,
    )
    json_schema: str = option(
        "",
        "-j --json-schema",
        str,
        "SCHEMA",
        "answer in JSON: schema or its file; {} is any object",
    )
    grammar: str = option(
        "", "--grammar", str, "GBNF", "answer by this grammar: GBNF or its file", rare=True
    )
    seed: int | None = option(None, "--seed", whole, "N", "same seed, same text")
    max_tokens: int = option(512, "-n --max-tokens", whole, "N", "most tokens of an answer")
    stop: tuple[str, ...] = option((), "--stop", str, "TEXT", "stop before TEXT (repeatable)")

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

    def sampling(self, stop_tokens: frozenset[int]) -> SamplingParams:
        """The sampling part, with the model's own stop tokens."""
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            verification=self.verification,
            seed=self.seed,
            max_tokens=self.max_tokens,
            stop_tokens=stop_tokens,
        )


def options() -> list[tuple[Field[Any], Option]]:
    """Every field with its option, in order."""
    return [(one, one.metadata["option"]) for one in fields(Config)]


def with_values(config: Config, values: Mapping[str, Any], source: str) -> Config:
    """`config` with `values`, texts or TOML's and Python's types, read as their options do.

    Raises: UsageError naming `source`, the key and, for an unknown key, the nearest known one.
    """
    known = {one.name: opt for one, opt in options()}
    check_known(values, list(known), source)
    read: dict[str, Any] = {}
    for name, value in values.items():
        try:
            read[name] = _read(known[name], name, value)
        except ArgumentTypeError as error:
            raise UsageError(f"{source}: {name} is {error}") from None
    return replace(config, **read)


def _read(opt: Option, name: str, value: Any) -> Any:
    """One value by its option's reader. Raises: ArgumentTypeError."""
    if name == "stop":
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
            raise ArgumentTypeError(f"{value!r}: expected a text or a list of texts")
        return tuple(values)
    if value is None and name == "seed":
        return None
    if name == "json_schema" and isinstance(value, Mapping):
        return json_text(value)
    misplaced = isinstance(value, bool) and opt.read is not switch
    if misplaced or not isinstance(value, (str, Real, Path)):
        raise ArgumentTypeError(f"{value!r}: expected {opt.metavar or 'true or false'}")
    return opt.read(str(value))


def json_text(schema: Mapping[str, Any]) -> str:
    """A schema given as an object. Raises: ArgumentTypeError."""
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"no plain JSON ({error}): expected a schema") from None


def check_known(names: Iterable[str], known: Sequence[str], source: str) -> None:
    """Raises: UsageError naming `source`, the first unknown name, and the nearest known one."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
            raise UsageError(f"{source}: unknown key {name!r}: {hint}")


def from_file(config: Config, path: Path) -> Config:
    """`config` overlaid with the TOML file at `path`. Raises: UsageError naming file and key."""
    try:
        values = tomllib.loads(text_of(path, expected="a TOML file"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    return with_values(config, values, str(path))


def from_environment(config: Config, environ: Mapping[str, str]) -> Config:
    """`config` overlaid with the EDGESPEC_* variables that name options.

    Others are not ours, unless they nearly name one. Raises: UsageError.
    """
    known = [variable_of(one.name) for one, _ in options()]
    for variable in environ:
        if variable.startswith("EDGESPEC_") and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1, cutoff=0.93)
            if close:
                raise UsageError(f"{variable}: unknown variable: did you mean {close[0]}?")
    for one, _ in options():
        variable = variable_of(one.name)
        if variable in environ:
            config = with_values(config, {one.name: environ[variable]}, variable)
    return config


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
            group.add_argument(
                *opt.flags, dest=one.name, action="store_const", const=True, help=text
            )
            continue
        action = "append" if one.name == "stop" else "store"
        n_shown = 1 if opt.flags[0].startswith("--") else 2
        for flags, shown in ((opt.flags[:n_shown], text), (opt.flags[n_shown:], SUPPRESS)):
            if flags:  # further spellings work but would fill the help
                group.add_argument(
                    *flags, dest=one.name, type=opt.read, metavar=opt.metavar, help=shown,
                    action=action,
                )  # fmt: skip


def resolve(
    flags: Namespace,
    environ: Mapping[str, str] | None = None,
    *,
    path: Path | None = None,
    base: Config | None = None,
) -> Config:
    """The configuration in force: `base` < config file < environment < flags.

    path: the config file, by default the user's own, which need not exist.
    """
    environ = os.environ if environ is None else environ
    config = base or Config()
    own = path or config_file(environ)
    if path is not None or own.is_file():
        config = from_file(config, own)
    config = from_environment(config, environ)
    given = {one.name: getattr(flags, one.name, None) for one, _ in options()}
    return with_values(config, {k: v for k, v in given.items() if v is not None}, "flags")


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
        return Path(environ["EDGESPEC_HOME"]).expanduser()
    if environ.get(xdg):
        return Path(environ[xdg]) / "edgespec"
    if sys.platform == "win32" and environ.get(windows):
        return Path(environ[windows]) / "edgespec"
    if sys.platform == "darwin":
        return Path.home() / "Library" / (mac or "Application Support") / "edgespec"
    return Path.home() / default / "edgespec"
