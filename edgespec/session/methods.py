"""Ways to decode by name: which drafter, and who decides how much it drafts.

"plain" drafts nothing, "auto" as much as pays, "fixed-4" always 4 tokens, "ngram" looks the text
itself up in place of the configured drafter. "fixed-4@tli" drafts over that bridge, where the
drafter's vocabulary is not the target's. All methods share the models that are open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.adapt.learned import Kind, Learned
from edgespec.config import BRIDGES, Config, cache_folder, state_folder
from edgespec.decode.uniforms import rule_of
from edgespec.drafters import find_drafter
from edgespec.drafters.ahead import Ahead
from edgespec.drafters.bridges.pairing import Translation, difference
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.guarded import Enduring, Guarded
from edgespec.drafters.mixed import Mixed
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import UsageError
from edgespec.pace.controller import AutoController, FixedController
from edgespec.pace.cost import LiveCosts
from edgespec.pace.head import MAX_WIDTH
from edgespec.pace.kept import Kept
from edgespec.pace.planner import AutoPlanner
from edgespec.protocols import Drafter, OpenModel, Speculator
from edgespec.types import SamplingParams

if TYPE_CHECKING:
    from edgespec.adapt.online import Online

NOTHING = Learned(())
ALWAYS = 4  # tokens drafted per round with `--speculative on` unless told


@dataclass(frozen=True)
class Method:
    """A way to decode; its speculator may have learned from earlier rounds.

    bridge: what the drafter, or a part of it, drafts over; "" within the target's vocabulary.
    translated: that part. learned: what is to be kept of what the speculator learns. ahead: what
    drafts while the target verifies, and must rest between answers. planner: who decides how much
    is drafted, where that is not always the same.
    """

    name: str
    speculator: Speculator
    bridge: str = ""
    translated: Translated | None = None
    learned: Learned = NOTHING
    ahead: Ahead | None = None
    planner: AutoPlanner | None = None

    @cached_property
    def most(self) -> int:
        """Tokens that it may draft at once."""
        return self.speculator.most

    def limit(self, n: int | None) -> None:
        """Draft at most n tokens a round from now on; None: as many as ever."""
        self.speculator.most = self.most if n is None else min(n, self.most)

    def end(self) -> None:
        """A generation is over."""
        if self.ahead is not None:
            self.ahead.rest()
        self.learned.save_if_worth()

    def check_lossless(self, params: SamplingParams, config: Config) -> None:
        """Raises: UsageError for an approximate bridge that nobody allowed."""
        exact = self.translated is None or self.translated.lossless
        if not (exact or rule_of(params) == "match" or config.allow_approximate):
            raise UsageError(
                f"the bridge {self.bridge} is not lossless when sampling: expected --bridge exact, "
                "--temp 0, a --seed, or --allow-approximate"
            )


class Methods:
    """Makes methods for one target.

    translation: None for a drafter of the target's own vocabulary. own: an application's drafter,
    guarded like all of them. costs: called when a method first needs to know what the target's
    widths cost. kept: the file of what was learned of the pair's acceptance. learner: of the draft
    model's head, which is told how its drafts fared. share: of the target's
    bytes that the draft model has. apart: it has a device of its own.
    """

    def __init__(
        self,
        config: Config,
        draft_model: OpenModel | None,
        translation: Translation | None,
        own: Guarded | None,
        costs: Callable[[], LiveCosts],
        kept: Path,
        learner: Online | None = None,
        *,
        share: float = 0.1,
        apart: bool = False,
    ) -> None:
        self._share = share
        self._config, self._costs, self._own, self._kept = config, costs, own, kept
        self._draft_model, self._translation, self._apart = draft_model, translation, apart
        self._learner = learner

    def configured(self, speculative: str) -> Method:
        """The configured method for auto, on or off, whose learning is kept."""
        config = self._config
        if speculative == "off" or config.draft_tokens == 0 or config.drafter == "none":
            return self.named("plain")
        if speculative == "on":
            k = ALWAYS if config.draft_tokens == "auto" else config.draft_tokens
            return self.named(f"fixed-{k}", keep=True)
        return self.named("auto", keep=True)

    def named(self, name: str, *, keep: bool = False) -> Method:
        """A method by name; keep: what its drafter learns is to be saved.

        Its drafter has learned nothing, but for the n-grams and the acceptance saved earlier.
        Raises: UsageError for an unknown name.
        """
        way, _, bridge = name.partition("@")
        self._check_bridge(name, bridge)
        if way == "plain":
            return Method(name, Plain())
        fixed: FixedController | None = None
        if way.startswith("fixed-") and way[6:].isdecimal():
            fixed = FixedController(int(way[6:]))
        elif way not in ("auto", "ngram"):
            raise UsageError(
                f"no method is called {name!r}: expected plain, auto, ngram or fixed-4"
            )
        chosen = self._chosen("ngram" if way == "ngram" else self._config.drafter)
        bridge = self._bridge(chosen, bridge)
        translated, kinds = None, list[Kind]()
        if bridge and self._translation is not None and self._draft_model is not None:
            model = self._draft_model
            translated, ngrams = self._translation.drafter(
                model, bridge, self._learner, most_shown=self._config.draft_window
            )
            kinds.append(ngrams)
        if self._own is not None and way != "ngram":
            return self._by_own(name, self._own, fixed)
        if self._learner is not None and "model" in chosen:
            kinds.append(self._learner)
        ahead = self._ahead(translated) if "model" in chosen else None
        drafters = [self._one(part, ahead or translated) for part in chosen]
        speculator: Speculator
        planner = None
        if fixed is None:
            # Even a single one is mixed where its drafts are cut to what its confidence promises.
            planner = AutoPlanner(self._costs(), most=self._most)
            speculator = mixed = Mixed(drafters, planner, step=self._share)
            if "model" in chosen:
                kinds.append(Kept(self._kept, mixed))
        else:
            one = len(drafters) == 1
            speculator = Paced(drafters[0], fixed) if one else Mixed(drafters, fixed)
        speculator = Enduring(speculator, [drafter.guard for drafter in drafters])
        learned = Learned(kinds if keep else ())
        return Method(name, speculator, bridge, translated, learned, ahead, planner)

    def _by_own(self, name: str, own: Guarded, fixed: FixedController | None) -> Method:
        """With an application's drafter."""
        if fixed is not None:
            return Method(name, Enduring(Paced(own, fixed), [own.guard]))
        auto = AutoController(self._costs(), most=self._most)
        return Method(name, Enduring(Paced(own, auto), [own.guard]), planner=auto.planner)

    def _check_bridge(self, name: str, bridge: str) -> None:
        """Raises: UsageError for a method that names an unknown bridge, or needs none."""
        if bridge and bridge not in BRIDGES:
            raise UsageError(f"{name} names the bridge {bridge!r}: expected {', '.join(BRIDGES)}")
        if bridge and self._translation is None:
            raise UsageError(
                f"{name} names a bridge, but the drafter has the target's vocabulary: "
                f"expected {name.partition('@')[0]}"
            )

    @property
    def _most(self) -> int:
        """Tokens that `--draft-tokens` allows to draft at once."""
        most = self._config.draft_tokens
        return MAX_WIDTH if isinstance(most, str) else most

    def _chosen(self, names: str) -> list[str]:
        """The drafters of a comma list."""
        if names == "auto":
            return ["ngram", "model"] if self._draft_model is not None else ["ngram"]
        return names.split(",")

    def _bridge(self, chosen: Sequence[str], asked: str) -> str:
        """The bridge that these drafters need, "" for none."""
        if self._translation is None or "model" not in chosen:
            return ""
        bridge = asked or self._config.bridge
        return "exact" if bridge == "auto" else bridge

    def _ahead(self, translated: Translated | None) -> Ahead | None:
        """What drafts with the draft model while the target verifies, if it can.

        Not while that model learns: its guesses and its head would change in another thread.
        """
        model = self._draft_model
        if model is None or not self._apart or self._learner is not None:
            return None
        return Ahead(translated or self._with_model(model), model.cancel)

    def _with_model(self, model: OpenModel) -> Drafter:
        """A drafter of the target's own vocabulary."""
        most_shown = self._config.draft_window
        drafter: Drafter = find_drafter("model")(
            model, learner=self._learner, most_shown=most_shown
        )
        return drafter

    def _one(self, name: str, made: Drafter | None) -> Guarded:
        """A drafter by its name; made: the one that drafts with the model, if there already."""
        model = self._draft_model
        if name == "ngram":
            return Guarded(find_drafter("ngram")())
        if name == "model" and model is not None:
            return Guarded(made or self._with_model(model), model=model)
        if name == "none":
            raise UsageError("--drafter is none: expected a drafter to draft with, as in ngram")
        raise without_model(name)


def without_model(name: str) -> UsageError:
    """For a drafter that is named and needs a draft model, which is not."""
    return UsageError(f"--drafter {name} without a draft model: give one with -md, or use ngram")


def translation_of(
    config: Config, target: OpenModel, draft: OpenModel, names: tuple[str, str]
) -> Translation | None:
    """What a drafter of another vocabulary needs, None for one of the target's own.

    names: of drafter and target, for who looks at what was learned.
    Raises: UsageError if `--bridge` does not go with that.
    """
    one, other = ((model.tokenizer, model.n_vocab) for model in (draft, target))
    what = difference(one, other)
    if not what:
        if config.bridge not in ("auto", "same"):
            raise UsageError(
                f"--bridge {config.bridge}: the drafter has the target's vocabulary, expected "
                "auto or same"
            )
        return None
    if config.bridge == "same":
        raise UsageError(
            f"--bridge same, but the drafter's vocabulary differs from the target's ({what}): "
            "expected the same one; use --bridge auto"
        )
    return Translation(one, other, state_folder(), names, cache=cache_folder())
