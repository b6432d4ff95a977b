"""Lines that begin with "/": each command, what it is given, what it does to the conversation."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from edgespec.backends import is_adapter
from edgespec.cli.output import show_progress
from edgespec.cli.terminal.charts import session_chart
from edgespec.cli.terminal.line import bare, file_names, first_word, last_word, unquoted
from edgespec.cli.terminal.talk import Leave, Talk, note, tell
from edgespec.config import PER_CALL, SPECULATIVE, THINK, Config, options, with_values
from edgespec.decode.sampling import check_params
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import place, text_of
from edgespec.option import CONSTRAINTS
from edgespec.session import opening
from edgespec.store import pairs, tuned
from edgespec.store.hub.names import spec_of
from edgespec.store.offers import unnamed
from edgespec.text.detokenizer import StopText
from edgespec.types import ModelInfo, Piece

Answer = Iterator[Piece] | None
FLAG_OF = {one.name: next(flag for flag in opt.flags if flag[:2] == "--") for one, opt in options()}
NUMBER = re.compile(r"[-+]?[\d.]+")
MODEL_FILES = (".gguf", ".onnx", ".onnx_adapter")


def help_(talk: Talk, rest: str) -> Answer:
    """/help: every command, and what the keys do."""
    width = max(len(f"{one.name} {one.takes}") for one in COMMANDS)
    for one in COMMANDS:
        others = f" (or {', '.join(one.others)})" if one.others else ""
        tell(f"{f'{one.name} {one.takes}':<{width}}  {one.about}{others}", indent=width + 2)
    for paragraph in KEYS:
        tell(paragraph, indent=0)
    return None


def leave(talk: Talk, rest: str) -> Answer:
    """/exit"""
    raise Leave(0)


def clear(talk: Talk, rest: str) -> Answer:
    """/clear: the system message stays."""
    talk.conversation.clear()
    note("[the conversation is empty]")
    return None


def regen(talk: Talk, rest: str) -> Answer:
    """/regen"""
    return talk.conversation.again()


def system(talk: Talk, rest: str) -> Answer:
    """/system, /system TEXT, /system none"""
    if rest:
        talk.conversation.system = "" if rest == "none" else bare(rest)
    now = talk.conversation.system
    note(f"[system message: {now}]" if now else "[no system message]")
    return None


def set_(talk: Talk, rest: str) -> Answer:
    """/set, /set NAME VALUE: what a call may choose, from the next answer on."""
    name, _, value = rest.partition(" ")
    if not name:
        tell(settings(talk.session.config))
        return None
    name = field_of(name)
    if not value.strip():
        raise UsageError(f"/set {name} without a value: expected one, as in /set temperature 0.7")
    if name == "speculative":
        return spec(talk, value.strip())
    wanted: object = value.strip()
    default = getattr(Config(), name)
    if wanted == shown(default) == "none":
        wanted = default
    elif isinstance(default, tuple):
        wanted = words_of(value)
    others = dict.fromkeys(CONSTRAINTS, "") if name in CONSTRAINTS else {}  # one form at a time
    config = with_values(talk.session.config, {**others, name: wanted}, "/set")
    try:
        check_params(config.sampling(frozenset()))
        StopText(config.stop)
        opening.open_constraint(config, talk.session.tokenizer, config.max_tokens)
    except UsageError as error:  # they name the flag
        raise UsageError(re.sub(rf"^{FLAG_OF[name]}\b", f"/set {name}", str(error))) from error
    talk.session.config = config
    note(f"[{name} is {shown(getattr(config, name))}]")
    return None


def field_of(name: str) -> str:
    """The setting that is meant, by its own name or a flag's. Raises: UsageError."""
    known = {one: one for one in PER_CALL}
    for one, option in options():
        if one.name in PER_CALL:
            known |= {flag.strip("-").replace("-", "_"): one.name for flag in option.flags}
    key = name.strip("-").replace("-", "_")
    if key in known:
        return known[key]
    if key in {one.name for one, _ in options()}:
        raise UsageError(
            f"/set {name}: expected one of {', '.join(PER_CALL)}; {key} is for /model, /draft, or "
            "a flag when you start"
        )
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"expected {', '.join(PER_CALL)}"
    raise UsageError(f"/set {name}: there is no such value: {hint}")


def think(talk: Talk, rest: str) -> Answer:
    """/think: what the model thought before its last answer; /think on, off or auto."""
    if rest:
        return set_(talk, f"think {rest}")
    note(talk.thought.strip() or "[no thoughts before the last answer]")
    return None


def settings(config: Config) -> str:
    """Every value /set takes, a line each."""
    return "\n".join(f"{name:<18} {shown(getattr(config, name))}" for name in PER_CALL)


def shown(value: object) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "none"
    return "none" if value in (None, "") else str(value)


def show(talk: Talk, rest: str) -> Answer:
    """/show: models, template, context, settings."""
    session, talked = talk.session, talk.conversation
    tell(f"{'target':<18} {model_words(session.target.info())}")
    if session.pair.draft_model is not None:
        tell(f"{'drafter':<18} {model_words(session.pair.draft_model.info())}")
    tell(f"{'where':<18} {session.where()}")
    tell(f"{'chat template':<18} {session.template.name}")
    left_out = f", {talked.n_left_out} no longer seen" if talked.n_left_out else ""
    tell(
        f"{'context':<18} {session.target.length:,} of {session.target.n_context:,} tokens, "
        f"{len(talked.messages)} messages{left_out}"
    )
    tell(f"{'system message':<18} {talked.system or 'none'}")
    tell(settings(session.config))
    return None


def model_words(info: ModelInfo) -> str:
    """A model in a line."""
    n = f"{info.n_params / 1e9:.2f} B" if info.n_params >= 1e8 else f"{info.n_params / 1e6:.2f} M"
    return f"{info.path} ({info.architecture}, {n} parameters, {info.quant})"


def save(talk: Talk, rest: str) -> Answer:
    """/save FILE"""
    file = file_of(rest, "/save")
    talk.conversation.save(file)
    note(f"[saved {len(talk.conversation.messages)} messages in {file}]")
    return None


def load(talk: Talk, rest: str) -> Answer:
    """/load FILE"""
    file = file_of(rest, "/load")
    talk.conversation.load(file)
    note(f"[the conversation is {file}: {len(talk.conversation.messages)} messages]")
    return None


def read(talk: Talk, rest: str) -> Answer:
    """/read FILE, /read FILE QUESTION: asks with the file's text."""
    file, question = first_word(rest)
    text = text_of(file_of(file, "/read"), "/read")
    return talk.conversation.ask(f"{question}\n\n{text}".strip())


def file_of(text: str, command: str) -> str:
    """The file that was named, perhaps in quotes. Raises: UsageError if none was."""
    file = bare(text)
    if not file:
        raise UsageError(f"{command} without a file: expected {command} FILE")
    return file


def words_of(text: str) -> list[str]:
    """Words as a shell splits them. Raises: UsageError for a quote that is left open."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text}: {error}: expected words, or words in quotes") from error


def model(talk: Talk, rest: str) -> Answer:
    """/model NAME|FILE|USER/REPO[:QUANT]: the conversation goes on with another target."""
    config = talk.session.config
    if rest:
        said = named(bare(rest), "model"), "/model"
        reopen(talk, tuned.applied([said], unnamed(config)))
    note(f"[{talk.session.target.info().path}; {talk.session.where()}]")
    return None


def draft(talk: Talk, rest: str) -> Answer:
    """/draft N|auto|none|FILE|USER/REPO: how far to draft, or with what; FILE: or its adapter."""
    config = talk.session.config
    if rest == "auto":
        auto = {"draft_tokens": "auto", "drafter": "auto"}
        reopen(talk, with_values(config, auto, "/draft"))
    elif NUMBER.fullmatch(rest):
        reopen(talk, with_values(config, {"draft_tokens": rest}, "/draft"))
    elif rest == "none":
        reopen(talk, with_values(config, {"drafter": "none"}, "/draft"))
    elif rest:
        reopen(talk, drafting_with(config, bare(rest)))
    words = f"{talk.session.where()}; draft_tokens {talk.session.config.draft_tokens}"
    if config.speculative == "off" and rest not in ("", "none"):
        words += "; speculation is off: /spec auto uses it"
    note(f"[{words}]")
    return None


def drafting_with(config: Config, text: str) -> Config:
    """With another draft model, or the same and an adapter of it."""
    file = place(text)
    if file.is_file() and is_adapter(file):
        given = {"lora_draft": str(file), "drafter": "auto"}
        adapted = with_values(config, given, "/draft")
        if opening.paths_of(adapted, show_progress)[1] is None:
            raise UsageError(f"/draft {text} is an adapter: expected a draft model for it first")
        return adapted
    other = replace(config, draft_model="", hf_repo_draft="", lora_draft="")
    return with_values(other, {**named(text, "draft_model"), "drafter": "auto"}, "/draft")


def named(text: str, field: str) -> dict[str, str]:
    """The configuration's words for a model: a file, a repository, or a known pair's name."""
    repo = {"model": "hf_repo", "draft_model": "hf_repo_draft"}[field]
    path = place(text)
    if not path.exists() and on_the_hub(text):
        return {repo: text}
    if path.exists() or (field == "model" and text.endswith(MODEL_FILES)):
        return {field: str(path)}
    if field == "model":
        return {"pair": text if text in tuned.names() else pairs.find(text).name}
    raise ModelFileError(
        f"/draft {text}: no such file: expected a draft model, its adapter, none, auto or a number"
    )


def on_the_hub(text: str) -> bool:
    """Whether that names a repository; folder/model.gguf is a file, though it could be one."""
    try:
        return bool(spec_of(text).choice) or not text.endswith(MODEL_FILES)
    except UsageError:
        return False


def reopen(talk: Talk, config: Config) -> None:
    """Open what `config` names; what can be told without closing the old models is told first."""
    wanted = opening.drafts_with_a_model(config)
    for path in opening.paths_of(config, show_progress, drafter=wanted):
        if path is not None and not path.exists():
            raise ModelFileError(f"{path}: no such file: expected a model; name another")
    talk.reopen(config)


def spec(talk: Talk, rest: str) -> Answer:
    """/spec, /spec on|off|auto"""
    if rest and rest not in SPECULATIVE:
        raise UsageError(f"/spec is {rest!r}: expected one of {', '.join(SPECULATIVE)}")
    if rest:
        talk.session.speculate(rest)
    note(f"[speculation {talk.session.config.speculative}; {talk.session.where()}]")
    return None


def stats(talk: Talk, rest: str) -> Answer:
    """/stats"""
    talk.draw(session_chart)
    return None


@dataclass(frozen=True)
class Command:
    """One command; completes: what its first word can be, "file" for files, "pair" for pairs."""

    name: str
    obey: Callable[[Talk, str], Answer]
    takes: str
    about: str
    others: tuple[str, ...] = ()
    completes: tuple[str, ...] = ()


COMMANDS = (
    Command("/help", help_, "", "this list", ("/?",)),
    Command("/exit", leave, "", "leave", ("/bye", "/quit")),
    Command("/clear", clear, "", "forget what was said", ("/new",)),
    Command("/regen", regen, "", "answer the last question again"),
    Command("/system", system, "[TEXT]", "tell the model what to be; none: nothing"),
    Command("/set", set_, "[NAME VALUE]", "temperature, max_tokens, seed, ...", (), PER_CALL),
    Command("/show", show, "", "models, template, context used, settings"),
    Command("/save", save, "FILE", "keep the conversation", (), ("file",)),
    Command("/load", load, "FILE", "go on with a saved one", (), ("file",)),
    Command("/read", read, "FILE [TEXT]", "ask with a file's text", (), ("file",)),
    Command("/model", model, "[NAME|FILE]", "another pair or target", (), ("pair", "file")),
    Command("/draft", draft, "[FILE|N|auto|none]", "another drafter, its adapter, how many tokens",
            (), ("auto", "none", "file")),
    Command("/spec", spec, "[on|off|auto]", "draft always, never, or while it pays", (),
            SPECULATIVE),
    Command("/think", think, "[on|off|auto]", "think before answering; alone: the last thoughts",
            (), THINK),
    Command("/stats", stats, "", "acceptance by position, speed of the answers"),
)  # fmt: skip
WITHOUT_MODEL = (help_, leave, clear, system, save, load, stats)
KEYS = (
    "",
    'Green text was drafted. """ begins and ends a message of several lines; a space and \\ at its '
    "end continue a line. Tab completes. A question that begins with / is typed with a space "
    "before it.",
    "Ctrl-C stops an answer and keeps what was said, or forgets the line; twice leaves (exit code "
    "130). Ctrl-D leaves.",
)


def obey(talk: Talk, line: str) -> Answer:
    """Do what a line that begins with "/" says; the answer to stream, if it asks for one.

    Raises: Leave, EdgeSpecError.
    """
    words = line.strip()
    name, _, rest = words.partition(" ")
    name, _, more = name.partition("\n")
    name = name.lower()
    rest = unquoted(f"{more} {rest}".strip() if more else rest.strip())
    known = {spelling: one for one in COMMANDS for spelling in (one.name, *one.others)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "/help lists them"
        raise UsageError(f"no command {name}: {hint} (a question may begin with a space)")
    act = known[name].obey
    if act not in WITHOUT_MODEL and not (act in (model, draft) and rest):
        talk.check_open()
    return act(talk, rest)


def complete(text: str) -> Iterable[str]:
    """What may stand in place of the last word of what is typed."""
    if not text.startswith("/"):
        return []
    name, space, rest = text.partition(" ")
    if not space:
        return [one.name for one in COMMANDS if one.name.startswith(text)]
    kinds = next((one.completes for one in COMMANDS if name in (one.name, *one.others)), ())
    if last_word(text) != rest:
        return []
    words = [word for word in kinds if word not in ("file", "pair")]
    if "pair" in kinds:
        words += [*pairs.names(), *tuned.names()]
    found = [word for word in words if word.startswith(rest)]
    return found + (file_names(last_word(text)) if "file" in kinds else [])
