"""What a call chooses over the session's own configuration, read and checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgespec.config import Config, check_known, with_values
from edgespec.decode.sampling import biases, check_params
from edgespec.option import CONSTRAINTS, Options
from edgespec.protocols import OpenModel
from edgespec.session import opening
from edgespec.session.request import checked_count
from edgespec.text.template import ENABLE
from edgespec.types import SamplingParams

OF_A_CALL = ("logit_bias", "n_top")  # a session has none of its own


def config_of(config: Config, options: Options) -> Config:
    """The configuration with a call's own values. Raises: UsageError."""
    values: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    check_known(values, tuple(Options.__annotations__), "generate")
    for name in OF_A_CALL:
        values.pop(name, None)
    if values.keys() & set(CONSTRAINTS):  # the session's other one does not count
        values = {**dict.fromkeys(CONSTRAINTS, ""), **values}
    return with_values(config, values, "generate")


def thoughts(config: Config) -> dict[str, Any]:
    """What the chat template is told of thoughts: nothing where that is left to it."""
    return {} if config.think == "auto" else {ENABLE: config.think == "on"}


def params_of(
    config: Config,
    target: OpenModel,
    *,
    n_prompt: int = 0,
    options: Options | None = None,
    n_context: int = 0,
) -> SamplingParams:
    """The sampling parameters of a configuration, with a call's own.

    n_prompt: tokens of the prompt, for an answer in JSON that has to end before the context.
    n_context: of the generation, 0: the target's. Raises: UsageError.
    """
    room = min(config.max_tokens, (n_context or target.n_context) - n_prompt + 1)
    constraint = opening.open_constraint(config, target.tokenizer, room)
    params = replace(config.sampling(target.tokenizer.stop_tokens), constraint=constraint)
    if options is not None:
        n_top = checked_count("n_top", -1 if (n := options.get("n_top")) is None else n, -1)
        bias = biases(options.get("logit_bias") or {}, target.n_vocab)
        params = replace(params, logit_bias=bias, n_top=n_top)
    check_params(params)
    return params
