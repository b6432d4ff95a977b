"""A target and its draft model, open: who opened them closes them, and nobody else.

Knows methods and costs; nothing of text, prompts or generations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.config import Config, cache_folder, state_folder
from edgespec.drafters.ahead import apart
from edgespec.drafters.bridges.pairing import Translation
from edgespec.drafters.guarded import Guarded
from edgespec.pace import cost_store
from edgespec.pace.cost import CostTable, LiveCosts, plain_token_s
from edgespec.protocols import Drafter, OpenModel
from edgespec.session import opening
from edgespec.session.methods import Method, Methods
from edgespec.store.pairs import n_bytes
from edgespec.text.template import Message
from edgespec.types import Progress, Stats

if TYPE_CHECKING:  # what few sessions need is imported there: 8 % of a start's own time
    from edgespec.adapt.kept_prompts import KeptPrompts
    from edgespec.adapt.online import Online

log = logging.getLogger("edgespec")


class OpenPair:
    """The models that `config` names; the draft model as soon as a method drafts with it.

    path: of the target. own: a drafter of the application's, in place of the configured one; it
    stays the application's to close. undisturbed: within it nobody else uses the target; it tells
    whether no generation needs what the target has read.
    Raises: as `edgespec.load`.
    """

    def __init__(
        self,
        config: Config,
        own: Drafter | None,
        progress: Progress | None,
        undisturbed: Callable[[], AbstractContextManager[bool]],
    ) -> None:
        self._config, self._progress, self._undisturbed = config, progress, undisturbed
        self._kept, self._share = Path(), 0.0  # what was learned of acceptance; see Methods
        self._ways: dict[str, Method] = {}  # by auto, on, off
        self.draft_model: OpenModel | None = None
        self.translation: Translation | None = None
        self.learner: Online | None = None  # of the draft model's head
        self._prompts: KeptPrompts | None = None
        with_model = own is None and opening.drafts_with_a_model(config)
        self.path, draft_path = opening.paths_of(config, progress, drafter=with_model)
        if config.adapt and draft_path is None:
            log.warning(
                "--adapt teaches nothing: no draft model is open; expected one, whose head learns"
            )
        if config.adapt_keep_text and draft_path is None:
            log.warning(
                "--adapt-keep-text keeps no prompts: no draft model is open; expected one, to be "
                "trained by them"
            )
        with ExitStack() as self._opened:
            begin = None
            if draft_path is not None:
                meanwhile = opening.meanwhile(draft_path, config, progress)
                self._opened.callback(meanwhile.drop)
                begin = meanwhile.begin
            self.target: OpenModel = opening.open_target(self.path, config, progress, known=begin)
            self._opened.callback(self.target.close)
            if config.exact:
                opening.check_exact(self.target, self.path)
                self.target = self._exact()
            self._own = None if own is None else Guarded(own, n_vocab=self.target.n_vocab)
            self._open_drafter(draft_path, None if begin is None else meanwhile.take())
            self._opened = self._opened.pop_all()

    def _exact(self) -> OpenModel:
        """The target at widths that compute alike on this device, as known or found now."""
        from edgespec.backends import widths
        from edgespec.backends.exact import Exact

        name = cost_store.key_of(self.path, self._config, device=self.target.device)
        file = cache_folder() / "widths" / name
        known = widths.load(file)
        if known is None:
            with opening.telling(self._progress, "finding widths that compute alike here, once"):
                known = widths.find_widths(self.target)
            widths.save(known, file)
        return Exact(self.target, known)

    def _open_drafter(self, path: Path | None, model: OpenModel | None = None) -> None:
        """The draft model in `path`, if any, and the methods that draft with what is open now.

        model: it, if it is open already.
        """
        if path is not None:
            if model is None:
                model = opening.open_drafter(path, self._config, self.target, self._progress)
            self._opened.callback(model.close)
            names = path.name, self.path.name
            self.translation = opening.translation(
                self._config, self.target, model, names, self._progress
            )
            self.draft_model = model
            if self._config.adapt or self._config.adapt_keep_text:
                self._adapt(path, model)
            self._share = n_bytes(path) / n_bytes(self.path)
            sides = (path, model), (self.path, self.target)
            self._kept = opening.kept_file(self._config, sides)
        self.methods = self._methods(self._config)

    def _adapt(self, path: Path, model: OpenModel) -> None:
        """Have the draft model in `path` learn as configured."""
        from edgespec.adapt.kept_prompts import KeptPrompts
        from edgespec.session.adapting import LABELLED, learner, sides_of

        config = self._config
        sides = sides_of(path, self.path, config.lora_draft)
        if config.adapt_keep_text:
            self._prompts = KeptPrompts(state_folder(), *sides)
        if config.adapt:
            mapping = None if self.translation is None else self.translation.mapping
            if mapping is not None and config.bridge not in LABELLED:
                log.warning(
                    "--adapt teaches nothing over --bridge %s: expected %s, which tell what was "
                    "wrong", config.bridge, " or ".join(LABELLED),
                )  # fmt: skip
            self.draft_model, self.learner = learner(model, mapping, sides, config)

    def _methods(self, config: Config) -> Methods:
        """What makes methods with the models that are open."""
        model = self.draft_model
        return Methods(
            config, model, self.translation, self._own, lambda: self.live, self._kept,
            self.learner, share=self._share,
            apart=model is not None and apart(model.device, self.target.device),
        )  # fmt: skip

    def way(self, speculative: str) -> Method:
        """The configured method for auto, on or off; the draft model is opened when first used."""
        self._quiet()  # costs may be measured
        if speculative not in self._ways:
            config = replace(self._config, speculative=speculative)
            missing = self._own is None and self.draft_model is None
            if missing and opening.drafts_with_a_model(config):
                self._open_drafter(opening.paths_of(config, self._progress)[1])
            method = self._ways[speculative] = self.methods.configured(speculative)
            if self._own is None:
                self._opened.callback(method.speculator.close)  # before its model
            self._opened.callback(method.learned.save)
        return self._ways[speculative]

    def method(self, name: str, drafter: str) -> Method:
        """A method by name, with other drafters than the configured; what it learns is lost."""
        config = replace(self._config, drafter=drafter)
        return self._methods(config).named(name)

    @cached_property
    def costs(self) -> CostTable:
        """The target's cost by width on this device, from the cache folder or measured now."""
        name = cost_store.key_of(self.path, self._config, device=self.target.device)
        file = cache_folder() / "costs" / name
        known = cost_store.load(file)
        if known is not None:
            return known
        what = f"measuring what widths cost here, once (at most {cost_store.SWEEP_S:.0f} s)"
        self._quiet()
        with self._undisturbed() as is_idle, opening.telling(self._progress, what):
            if is_idle:
                self.target.truncate(0)  # a full cache would leave no room for wide ones
            return cost_store.measured(self.target, file)

    @cached_property
    def live(self) -> LiveCosts:
        """The costs as all of this pair's methods have seen them since."""
        return LiveCosts(self.costs)

    def priced(self, stats: Stats) -> Stats:
        """With what plain decoding would have taken, if costs are known already."""
        live: LiveCosts | None = self.__dict__.get("live")
        if live is None or not stats.n_rounds:
            return stats
        return replace(stats, plain_token_s=plain_token_s(stats, live))

    def anchor(self, method: Method, ids: Sequence[int], messages: Sequence[Message]) -> None:
        """A request comes: a drafter of another vocabulary reads these messages in its own chat
        format, and what learned in idle time has ended. It is kept where that was asked for.
        """
        self._quiet()
        if self.learner is not None:
            self.learner.begin(ids)
        if self._prompts is not None and messages:
            self._prompts.add(messages)
        if method.translated is not None and self.translation is not None:
            spelled = self.translation.spelled(messages) if messages else []
            method.translated.anchor(ids if spelled else [], spelled)

    def _quiet(self) -> None:
        """End what learns in idle time."""
        if self.learner is not None:
            self.learner.idle.stop()

    def forget_draft(self) -> None:
        """Empty the draft model's cache, where another drafter's text may lie."""
        if self.draft_model is not None:
            self.draft_model.truncate(0)

    def cancel(self) -> None:
        """End the forwards in progress with Cancelled; from any thread."""
        self.target.cancel()
        if self.draft_model is not None:
            self.draft_model.cancel()

    def use_threads(self, n: int) -> None:
        """Both models compute with at most n threads from now on, 0: as configured."""
        self.target.use_threads(n)
        if self.draft_model is not None:
            self.draft_model.use_threads(n)

    def where(self, method: Method) -> str:
        """What runs where by this method, in a line."""
        words = f"target on {self.target.device}"
        if not method.speculator.name:
            return words + "; no drafter"
        if self.draft_model is None:
            return f"{words}; drafter: {method.speculator.name}"
        bridge = f" over the {method.bridge} bridge" if method.bridge else ""
        adapter = f" with {Path(lora).name}" if (lora := self._config.lora_draft) else ""
        return f"{words}; drafter{adapter} on {self.draft_model.device}{bridge}"

    def close(self) -> None:
        """Save what drafters learned, then free the models."""
        self._opened.close()
