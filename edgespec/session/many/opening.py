"""From a configuration to what answers several requests: how many sequences, and which models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgespec.adapt.learned import Kind, Learned
from edgespec.backends import ModelOptions, backend_of
from edgespec.backends.preview import Preview, preview
from edgespec.config import Config, cache_folder
from edgespec.decode.sampling import check_params
from edgespec.device import free_memory
from edgespec.drafters.bridges.each import Each
from edgespec.drafters.bridges.learner import Learner
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.guarded import GuardedTexts, Several
from edgespec.drafters.together import Together
from edgespec.drafters.window import ROOM, SINKS, SMALLEST
from edgespec.pace import cost_store
from edgespec.pace.cost import LiveCosts
from edgespec.session import opening
from edgespec.session.many.drafting import Drafting
from edgespec.session.many.many import N_QUEUE, Answers, Many
from edgespec.session.many.solo import Solo
from edgespec.session.many.worth import KeptBeside, Worth
from edgespec.session.methods import translation_of, without_model
from edgespec.session.session import Session
from edgespec.store.pairs import n_bytes
from edgespec.text.detokenizer import StopText
from edgespec.types import Progress

log = logging.getLogger("edgespec")
USUAL = 8  # generations at once, where memory allows
SHARE = 4  # the part of free memory that their caches may take, unless a number is asked for
WIDEST = 64  # rows of a forward whose times are measured
MORE_TOKENS = 1.5  # another vocabulary may need so many times the tokens for a text


def open_many(
    config: Config,
    *,
    n_parallel: int = 0,
    n_queue: int = N_QUEUE,
    progress: Progress | None = None,
) -> Answers:
    """What answers several requests at once by the configured target.

    n_parallel: generations at once, 0 for as many as memory allows up to USUAL, each with a context
    of --ctx-size. One at a time, which is said once, where the target cannot be shared.
    Raises: as `edgespec.load`; ContextError if so many do not fit.
    """
    check_params(config.sampling(frozenset()))
    StopText(config.stop)
    path = opening.paths_of(config, progress, drafter=False)[0]
    why = why_not(path, config)
    if why or n_parallel == 1:
        if why and n_parallel != 1:
            log.warning("%s: requests are answered one at a time", why)
        return Solo(Session(config, progress=progress), n_queue=n_queue)
    is_named = "model" in config.drafter.split(",") and opening.drafts_with_a_model(config)
    if is_named and opening.paths_of(config, progress)[1] is None:
        raise without_model("model")
    options = opening.options_of(config)[0]
    n_context, n = sizes(config, progress, n_parallel)
    if config.adapt:
        log.warning("--adapt: beside other requests the drafter does not learn")
        config = replace(config, adapt=False)
    if config.adapt_keep_text:
        log.warning("--adapt-keep-text: beside other requests no prompts are kept")
        config = replace(config, adapt_keep_text=False)
    with ExitStack() as opened:
        target, shared = open_shared(path, options, n, n_context, progress)
        opened.callback(target.close)
        drafting = None
        if config.speculative != "off" and config.drafter != "none" and config.draft_tokens != 0:
            drafting = open_drafting(config, path, target, n, n_context, opened, progress)
        return Many(config, path, target, shared, drafting, opened.pop_all(), n_queue=n_queue)
    raise AssertionError("an ExitStack suppresses nothing")


def why_not(path: Path, config: Config) -> str:
    """Why a target reads one text at a time; empty if it reads several."""
    if config.exact:
        return "--exact"
    if backend_of(path) != "llamacpp":
        return f"{path.name} is run by ONNX Runtime"
    seen = preview(path, opening.options_of(config)[0])
    try:
        if seen.token_ids is not None:
            return f"{path.name} has a trimmed head"  # which a session refuses
        if seen.cache is not None and seen.cache.state_bytes:
            return f"{path.name} keeps a recurrent state"
        if seen.cache is not None and seen.cache.window_bytes:
            return f"{path.name} keeps windows of its text"
    finally:
        seen.close()
    return ""


def sizes(config: Config, progress: Progress | None, n_parallel: int) -> tuple[int, int]:
    """Tokens of each sequence, and how many there are."""
    target, draft = foreseen(config, progress, drafter=not n_parallel)
    n_context = config.ctx_size or target.most_context
    return n_context, n_parallel or most_fitting(target, draft, config, n_context)


def most_fitting(target: Preview, draft: Preview | None, config: Config, n_context: int) -> int:
    """Sequences, 1 to USUAL, whose caches fit beside the weights and within their SHARE."""
    free = free_memory()
    if free is None or target.cache is None:
        return USUAL
    room = min(free // SHARE, free - kept_bytes(target, draft))
    n_of = range(2, USUAL + 1)
    fits = [n for n in n_of if caches_bytes(target, draft, config, n, n_context) <= room]
    return max(fits, default=1)


def kept_bytes(target: Preview, draft: Preview | None) -> int:
    """Weights and logits that would lie in the memory of all programs, however many ask."""
    sides = [one for one in (target, draft) if one is not None and one.shares_memory]
    return sum(one.weights_bytes + one.logits_bytes for one in sides)


def needed_bytes(config: Config, *, n_parallel: int = 0) -> int | None:
    """Memory that `open_many` would take, None where files do not say or it is a GPU's.

    As the doctor counts it: weights whole, though those that are mapped can be dropped.
    Raises: UsageError, ModelFileError for files that are not here.
    """
    target, draft = foreseen(config, None)
    sides = [one for one in (target, draft) if one is not None]
    if not all(one.shares_memory and one.cache is not None for one in sides):
        return None
    n_context = config.ctx_size or target.most_context
    n = 1 if why_not(target.path, config) else n_parallel
    n = n or most_fitting(target, draft, config, n_context)
    return kept_bytes(target, draft) + caches_bytes(target, draft, config, n, n_context)


def foreseen(
    config: Config, progress: Progress | None, *, drafter: bool = True
) -> tuple[Preview, Preview | None]:
    """Previews of the target, and of the draft model if one drafts; drafter: whether to look."""
    wants = drafter and opening.drafts_with_a_model(config)
    path, draft_path = opening.paths_of(config, progress, drafter=wants)
    options, _ = opening.options_of(config)
    found = [preview(path, options)]
    if draft_path is not None:
        found.append(preview(draft_path, opening.options_of(config, draft_path)[1]))
    for one in found:
        one.close()
    return found[0], found[1] if draft_path is not None else None


def caches_bytes(
    target: Preview, draft: Preview | None, config: Config, n: int, n_context: int
) -> int:
    """Of n sequences of so many tokens of the target, and of the same texts in the drafter."""
    size = 0 if target.cache is None else target.cache.n_bytes(n * n_context)
    if draft is None or draft.cache is None:
        return size
    return size + draft.cache.n_bytes(n * shown(draft, target.n_vocab, n_context, config))


def shown(draft: Preview, n_vocab: int, n_context: int, config: Config) -> int:
    """Tokens that a draft model sees at most of a text of n_context of a target's n_vocab kinds."""
    size = int(n_context * (1.0 if draft.n_vocab == n_vocab else MORE_TOKENS))
    if window := config.draft_window:  # a longer text is shown from its first tokens and its end
        size = min(size, max(window + SINKS + ROOM, SMALLEST))
    return size


def open_shared(
    path: Path, options: ModelOptions, n: int, n_context: int, progress: Progress | None
) -> tuple[Any, Any]:
    """A model and its n sequences of so many tokens. Raises: ContextError, ModelFileError."""
    from edgespec.backends.llamacpp.shared import SharedModel

    options = replace(options, max_leaves=n, n_context=n * n_context, windows=False)
    its_log = logging.getLogger("edgespec.llamacpp")
    its_log.addFilter(is_news)
    try:
        model = opening.told(path, options, progress)
    finally:
        its_log.removeFilter(is_news)
    try:
        return model, SharedModel(model, n)
    except BaseException:
        model.close()
        raise


def is_news(record: logging.LogRecord) -> bool:
    """Not what llama.cpp says of all sequences' contexts, as if they were one text's."""
    return "training context overflow" not in record.getMessage()


def open_drafting(
    config: Config, path: Path, target: Any, n: int, n_context: int, opened: ExitStack,
    progress: Progress | None,
) -> Drafting:  # fmt: skip
    """Who drafts for all: n-grams, and the draft model where it has the target's vocabulary."""
    name = cost_store.key_of(path, config, device=target.device)
    file = cache_folder() / "costs-many" / name
    table = cost_store.load(file)
    if table is None:
        what = f"measuring what widths cost here, once (at most {cost_store.SWEEP_S:.0f} s)"
        with opening.telling(progress, what):
            table = cost_store.measured(target, file, max_width=min(WIDEST, most_rows(target)))
        target.truncate(0)
    names = {"auto": ["ngram", "model"]}.get(config.drafter, config.drafter.split(","))
    costs, seconds = LiveCosts(table), table.seconds
    if "model" in names and opening.drafts_with_a_model(config):
        sizes, worth = (n, n_context), Worth()
        together, kinds = open_drafters(
            config, path, target, sizes, seconds, worth, opened, progress
        )
        if together is not None:
            learned = Learned(kinds)
            opened.callback(learned.save)
            return Drafting(costs, names, together, worth=worth, learned=learned)
        names = ["ngram"]
    return Drafting(costs, names)


def most_rows(target: Any) -> int:
    """Of one forward."""
    return int(target.capabilities.n_rows) or WIDEST


def open_drafters(
    config: Config, path: Path, target: Any, sizes: tuple[int, int], target_s: Sequence[float],
    worth: Worth, opened: ExitStack, progress: Progress | None,
) -> tuple[GuardedTexts | None, list[Kind]]:  # fmt: skip
    """What drafts with the draft model; None, said once, for one that reads one text at a time.

    And what is to be kept of what it learns, worth included.

    sizes: how many texts of how many of the target's tokens. target_s: of its forwards, by rows.
    """
    draft_path = opening.paths_of(config, progress)[1]
    if draft_path is None:
        return None, []
    if why := why_not(draft_path, replace(config, exact=False)):
        log.warning("%s: beside other requests n-grams draft alone", why)
        return None, []
    n, n_context = sizes
    options = opening.options_of(config, draft_path)[1]
    options = replace(options, steps=False, hidden_states=False)
    window = config.draft_window
    seen = preview(draft_path, options)
    seen.close()
    size = shown(seen, target.n_vocab, n_context, config)
    model, shared = open_shared(draft_path, options, n, size, progress)
    opened.callback(model.close)
    names = draft_path.name, path.name
    translation = translation_of(config, target, model, names)
    step_s = [n_bytes(draft_path) / n_bytes(path) * one_s for one_s in target_s]
    several = Several(shared.sequences, model.cancel)
    sides = (draft_path, model), (path, target)
    kept = KeptBeside(opening.kept_file(config, sides), worth)
    if translation is None:
        return GuardedTexts(Together(shared, step_s, most_shown=window), several), [kept]
    if config.bridge not in ("auto", "exact"):
        log.warning("--bridge %s: beside other requests drafts go over exact", config.bridge)
    made = list[Translated]()
    ngrams: Learner | None = None
    for text in shared.sequences:
        one, ngrams = translation.drafter(text, "exact", most_shown=window, ngrams=ngrams)
        made.append(one)
    assert ngrams is not None
    return GuardedTexts(Each(made, step_s[0], translation.spelled), several), [kept, ngrams]
