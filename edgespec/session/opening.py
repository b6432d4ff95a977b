"""From a configuration to open models: which files, how they are opened, what translates.

Knows nothing of generation. Whatever takes long is told to a Progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions, open_model
from edgespec.config import Config, cache_folder
from edgespec.drafters.bridges.pairing import Translation
from edgespec.errors import UsageError
from edgespec.files import place, text_of
from edgespec.pace import cost_store
from edgespec.protocols import OpenModel, Tokenizer
from edgespec.session.meanwhile import Meanwhile
from edgespec.session.methods import translation_of
from edgespec.store import hub, pairs
from edgespec.types import Constraint, Progress

# A drafter of 2 MB takes 0.37 ms a token on one core, 0.61 on two that wait for each other.
SMALL_BYTES = 16 << 20


def paths_of(
    config: Config, progress: Progress | None = None, *, drafter: bool = True
) -> tuple[Path, Path | None]:
    """The files of target and draft model, fetched or made if need be; drafter: whether to look.

    Raises: UsageError, ModelFileError, BackendError.
    """
    target = file_named(config.model, config.hf_repo, "-m", "-hf", config, progress)
    draft = None
    if drafter:
        draft = file_named(
            config.draft_model, config.hf_repo_draft, "-md", "-hfd", config, progress
        )
    if target is not None:
        return target, draft
    pair, cache = pairs.find(config.pair), cache_folder()
    target = pairs.file_of(pair.target, cache, progress, offline=config.offline)
    if drafter and draft is None:
        draft = pairs.file_of(pair.drafter, cache, progress, offline=config.offline)
    return target, draft


def file_named(
    file: str, repo: str, flag: str, repo_flag: str, config: Config, progress: Progress | None
) -> Path | None:
    """The model that is named, by path or on the hub; None if neither is."""
    if file and repo:
        raise UsageError(
            f"{flag} {file} and {repo_flag} {repo}: expected one of them; leave the other out"
        )
    if repo:
        return hub.fetch(repo, offline=config.offline, progress=progress)
    return place(file) if file else None


def drafts_with_a_model(config: Config) -> bool:
    """Whether the configuration wants its draft model opened."""
    wanted = bool({"auto", "model"} & set(config.drafter.split(",")))
    return wanted and config.speculative != "off" and config.draft_tokens != 0


def open_target(
    path: Path,
    config: Config,
    progress: Progress | None = None,
    *,
    known: Callable[[int, int], None] | None = None,
) -> OpenModel:
    """The target; known: see ModelOptions. Raises: UsageError, ModelFileError, ContextError."""
    target: OpenModel = told(path, replace(options_of(config)[0], known=known), progress)
    if target.token_ids is not None:
        n_rows = len(target.token_ids)
        target.close()
        raise UsageError(trimmed(path, n_rows))
    return target


def check_exact(target: OpenModel, path: Path) -> None:
    """Raises: UsageError for a target whose forwards are not of one class of widths alone."""
    if getattr(target, "is_recurrent", False):
        raise UsageError(
            f"--exact: {path.name} keeps a recurrent state, and what stays of a draft is read "
            "again in one piece: expected a model that only attends; leave --exact out"
        )


def trimmed(path: Path, n_rows: int) -> str:
    """What is wrong with a target whose head was trimmed."""
    return (
        f"{path.name} has a trimmed head ({n_rows:,} rows): expected a whole model as target; "
        "give this one as drafter, with -md"
    )


def options_of(config: Config, draft: Path | None = None) -> tuple[ModelOptions, ModelOptions]:
    """How target and drafter are opened: the drafter on the CPU if the target was put there.

    They take turns, so the drafter has the target's cores; with as many threads they share a pool.
    draft: the drafter's file, if known; a small one runs on one core.
    """
    is_small = draft is not None and draft.is_file() and draft.stat().st_size < SMALL_BYTES
    follows = config.device_draft == "auto" and config.device == "cpu"
    return (
        ModelOptions(
            n_context=config.ctx_size,
            n_threads=config.threads,
            device=config.device,
            n_gpu_layers=-1 if config.n_gpu_layers is None else config.n_gpu_layers,
            kv_type=config.kv_type,
            loading=config.loading,
            exact=config.exact,
            windows=not config.exact,
            widths=(1,) if config.speculative == "off" else (1, 4),
        ),
        ModelOptions(
            n_threads=config.threads_draft or (1 if is_small else config.threads),
            device="cpu" if follows else config.device_draft,
            kv_type=config.kv_type_draft,
            hidden_states=config.adapt,
            windows=True,
            steps=True,
            lora=config.lora_draft,
            loading=config.loading,
        ),
    )


def meanwhile(path: Path, config: Config, progress: Progress | None) -> Meanwhile:
    """The draft model in `path`, to be opened beside the target."""
    return Meanwhile(path, options_of(config, path)[1], trying(path, progress))


def open_drafter(
    path: Path, config: Config, target: OpenModel, progress: Progress | None
) -> OpenModel:
    """The draft model, with the target's context.

    Raises: UsageError, ModelFileError, ContextError.
    """
    options = options_of(config, path)[1]
    options = replace(options, n_context=target.n_context, counted_by=target.n_vocab)
    model: OpenModel = told(path, options, progress)
    return model


def translation(
    config: Config, target: OpenModel, model: OpenModel, names: tuple[str, str],
    progress: Progress | None,
) -> Translation | None:  # fmt: skip
    """What translates a drafter's tokens, if need be; the model is closed if nothing can.

    Raises: UsageError.
    """
    try:
        with telling(progress, "comparing the vocabularies"):
            return translation_of(config, target, model, names)
    except BaseException:
        model.close()
        raise


def open_constraint(config: Config, tokenizer: Tokenizer, n_tokens: int) -> Constraint | None:
    """The grammar that answers have to follow, and end in within n_tokens; None for none.

    Raises: UsageError for a bad schema or grammar, or a tokenizer that has no grammars.
    """
    if not config.json_schema and not config.grammar:
        return None
    if config.json_schema and config.grammar:
        raise UsageError("--json-schema and --grammar: expected one of them")
    from edgespec.backends.llamacpp.grammar import constraint_of
    from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer

    if not isinstance(tokenizer, LlamaCppTokenizer):
        flag = "--json-schema" if config.json_schema else "--grammar"
        raise UsageError(
            f"{flag}: the model's tokenizer is a tokenizer.json: expected one in a GGUF file; "
            "export the model from a GGUF"
        )
    return constraint_of(tokenizer, grammar_of(config), n_tokens=n_tokens)


def grammar_of(config: Config) -> str:
    """The grammar in GBNF that answers have to follow, "" for none. Raises: UsageError."""
    if config.grammar:
        gbnf = config.grammar
        if "::=" not in gbnf and "\n" not in gbnf:
            gbnf = text_of(
                gbnf, "--grammar", expected='a grammar such as root ::= "yes" or its file'
            )
        return gbnf
    if not config.json_schema:
        return ""
    from edgespec.grammar.schema import gbnf_of

    schema = config.json_schema
    if not schema.lstrip().startswith("{"):
        schema = text_of(schema, "--json-schema", expected="a schema such as {} or its file")
    return gbnf_of(schema)


def kept_file(config: Config, sides: Sequence[tuple[Path, OpenModel]]) -> Path:
    """Where what was learned of a pair's acceptance lies; sides: drafter and target, open."""
    keys = [cost_store.key_of(file, config, device=one.device)[:12] for file, one in sides]
    if config.lora_draft:
        from edgespec.session.adapting import fingerprint

        keys.append(fingerprint(Path(config.lora_draft))[:12])
    return cache_folder() / "pace" / f"{'-'.join(keys)}.json"


def told(
    path: Path, options: ModelOptions, progress: Progress | None,
    open_: Callable[[Path, ModelOptions], Any] | None = None,
) -> Any:  # fmt: skip
    """The open model; `progress` hears of it."""
    what = f"loading {path.name}"
    if progress is not None:
        options = replace(
            options,
            progress=lambda share: progress(what, min(share, 0.99)),
            trying=trying(path, progress),
        )
    with telling(progress, what):
        return (open_ or open_model)(path, options)


def trying(path: Path, progress: Progress | None) -> Callable[[float], None] | None:
    """What tells `progress` of a trial of ways to load a model."""
    if progress is None:
        return None
    return lambda share: progress(f"trying how {path.name} runs fastest here, once", share)


@contextmanager
def telling(progress: Progress | None, what: str) -> Iterator[None]:
    """Around what may take long and cannot tell how far it is."""
    if progress is not None:
        progress(what, 0.0)
    yield
    if progress is not None:
        progress(what, 1.0)
