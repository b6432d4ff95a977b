"""A report in words: one sentence of what to do, and notes on why or what else.

Every figure is the report's own but those under `Measured elsewhere`, which are named as such.
"""

from __future__ import annotations

import math

from edgespec.backends.filling import price
from edgespec.check.doctor.breakeven import Width, fastest, least, widths_of
from edgespec.check.doctor.overlap import CONTROL, OTHER, PADDED, SAME, Overlap
from edgespec.check.doctor.report import Report
from edgespec.check.doctor.texts import KINDS
from edgespec.check.doctor.trial import OFF, Trial

WORTH = 1.05  # times plain decoding, below which a drafter is not recommended

# Measured elsewhere: 0.55 B weights, two Zen 4 cores with AVX-512, llama-cpp-python 0.3.36 and
# onnxruntime 1.31.1. A forward of 4 tokens over one: F16 1.42, Q8_0 2.07, Q4_0 2.44, Q4_K_M 3.11;
# MatMulNBits int4 of block 128 1.58. One token: Q4_0 11.6 ms, Q4_K_M 11.2, int4 of block 128 11.0.
INT4_VERIFY, F16_VERIFY = 1.58, 1.42
ZEN4 = "0.55 B weights on two Zen 4 cores"
# 0.53 B weights on two Xeon cores, the same libraries, stories: tokens/s plain and with a drafter.
XEON = "0.53 B weights on two Xeon cores"
XEON_F16, XEON_Q4 = (12.9, 37.7), (29.9, 43.8)  # Q4_K_M
# 1.5 B weights there, onnxruntime 1.32: 4 tokens over one, in int8-channel.
XEON_CHANNEL, CHANNEL_VERIFY = "1.5 B weights on two Xeon cores with AMX", 1.14
LIKE_THOSE = 100_000_000  # parameters from which a target is compared with these
DEAR = 1.8  # tokens' time for verifying 4, from which another kind of file is worth a word
FLOATS = ("all F32", "F32", "F16", "BF16")


def recommendation(report: Report) -> str:
    """What to do, in a sentence."""
    if not report.works:
        return _cannot(report)
    if report.trial is None:
        return _by_vocabulary(report)
    said = _by_trial(report, report.trial)
    if report.trial.is_busy:
        return f"the device was too busy to tell: run this again when it is quiet; so far: {said}"
    return said


def notes(report: Report) -> list[str]:
    """What else is worth knowing, each in a line."""
    found = list[str]()
    memory, trial = report.memory, report.trial
    if memory.asked > memory.target.n_context:
        found.append(
            f"the target was made for {memory.target.n_context:,} tokens of context: beyond "
            f"those, of the {memory.asked:,} asked for, its answers get worse"
        )
    if memory.fits is False and memory.most_context:
        found.append(
            f"a context of {memory.target.n_context:,} tokens does not fit the free memory: "
            f"use -c {memory.most_context}"
        )
    if report.special is not None and report.overlap is not None:
        if report.special.template == "different" and report.overlap.kind in (SAME, CONTROL):
            found.append("the drafter was made for another chat format than the target's, which "
                         "it will read: it may be right less often in chats")  # fmt: skip
        if report.overlap.n_proposable < report.overlap.n_shared:
            found.append(
                f"the drafter's head is trimmed: it can propose {report.overlap.n_proposable:,} "
                f"of the {report.overlap.n_shared:,} tokens that both have"
            )
    if trial is not None and trial.slowdown > OFF:
        found.append(
            f"a token takes {trial.slowdown:.1f} times what it took when its costs were measured "
            "first: other programs are busy or the device is hot; run this again when it is quiet"
        )
    elif trial is not None and trial.is_busy:
        found.append(
            f"{trial.load:.1f} programs wanted each core in the last minute: what was measured "
            "says little"
        )
    if trial is not None and trial.filling is not None:
        found.append(
            f"{price(trial.filling)}; the costs measured are those of the widths that compute alike"
        )
    if trial is not None and report.target.n_params >= LIKE_THOSE:
        found += _of_quantization(report, trial)
    if report.known:
        found.append(
            f"known pairs for this target: {', '.join(report.known)} (`edgespec models show "
            f"{report.known[0]}`)"
        )
    if report.suited and str(report.suited[0]) not in recommendation(report):
        found.append(f"a drafter here has the target's own vocabulary: -md {report.suited[0]}")
    return found


def vocabulary_line(overlap: Overlap) -> str:
    """How the two vocabularies go together."""
    if overlap.kind == SAME:
        return "the same, id for id"
    if overlap.kind == PADDED:
        longer = "target" if overlap.n_target > overlap.n_draft else "drafter"
        return f"the same, id for id; the {longer} has {overlap.n_unused:,} more ids, all unused"
    if overlap.kind == CONTROL:
        return "the same tokens, other control tokens"
    return (
        f"another: the drafter has {percent(overlap.target_share, 1)} of the target's tokens, the "
        f"target {percent(overlap.draft_share, 1)} of the drafter's; "
        f"{percent(overlap.text_share)} of a short mixed text ({KINDS}) falls into the same tokens"
    )


def percent(share: float, n_digits: int = 0) -> str:
    """A share in words, rounded down: what is not all is never called 100 %."""
    scale = 10.0**n_digits
    return f"{math.floor(share * 100 * scale + 1e-6) / scale:.{n_digits}f}%"


def _cannot(report: Report) -> str:
    line = f"this cannot work here: {report.problems[0]}"
    if report.drafter is not None and report.drafter.problems and not report.target.problems:
        line += "; without it, --drafter ngram looks the text itself up"
    return line


def _by_vocabulary(report: Report) -> str:
    """What can be said of a pair that was not measured."""
    if report.overlap is None:
        what = "leave --quick out to measure" if report.has_weights else "give one with weights"
        return f"nothing was measured ({report.untried}): {what}"
    if report.overlap.kind != OTHER:
        return (
            f"by its vocabulary the drafter suits ({vocabulary_line(report.overlap)}); whether it "
            f"is fast enough was not measured ({report.untried})"
        )
    own = f"-md {report.suited[0]} with" if report.suited else "a drafter with"
    return (
        "the drafter has another vocabulary, so its tokens would be translated "
        f"({percent(report.overlap.text_share)} of a mixed text falls into the same ones); {own} "
        "the target's own vocabulary would need none of that; nothing was measured "
        f"({report.untried})"
    )


def _by_trial(report: Report, trial: Trial) -> str:
    widths, acceptance = trial.widths, trial.acceptance
    cheapest = least(widths)
    alone = report.drafter is None
    if cheapest is None:
        lookup = (
            "" if alone or least(widths_of(trial.costs, 0.0)) is None else "--drafter ngram or "
        )
        return f"no drafter: {_why_none(trial, widths)}; use {lookup}--speculative off"
    pays = f"drafting pays from {cheapest.acceptance:.0%} on ({_tokens(cheapest.k)} a round)"
    what = "looking the text itself up" if alone else "it"
    if acceptance is None:
        return f"{what} proposed nothing in the answers tried; {pays}"
    best = fastest(widths, acceptance)
    speed = best.speed(acceptance)
    told = f"{acceptance:.0%} of {trial.n_tested} drafted tokens were right in the answers tried"
    if speed >= WORTH:
        use = "use --drafter ngram" if alone else "use it"
        fast = f"{_tokens(best.k)} a round would be {speed:.1f} times as fast as none"
        return f"{use}: {told}, and {pays}; {fast}"
    if speed >= 1:
        return f"{what} hardly pays: {told}; at best {speed:.2f} times as fast as drafting none"
    if alone:
        return f"no drafter: {told}, but {pays}; use --speculative off"
    other = f"-md {report.suited[0]}" if report.suited else "another one, --drafter ngram"
    return f"not this drafter: {told}, but {pays}; try {other}, or use --speculative off"


def _why_none(trial: Trial, widths: list[Width]) -> str:
    """Why no acceptance pays."""
    step = (trial.step_s or 0.0) / trial.costs.seconds[0]
    verify = widths[min(3, len(widths)) - 1] if widths else None
    also = "" if verify is None else f" and verifying {verify.k + 1} tokens {verify.verify:.1f}"
    return f"a draft step costs {step:.2f} of a target token{also}, so no acceptance pays"


def _tokens(k: int) -> str:
    return "1 token" if k == 1 else f"{k} tokens"


def _of_quantization(report: Report, trial: Trial) -> list[str]:
    """What another file of the same target would change, as measured elsewhere."""
    target, seconds = report.target, trial.costs.seconds
    if target.backend != "llamacpp" or not target.shares_memory or len(seconds) < 4:
        return []
    verify = seconds[3] / seconds[0]
    if target.quant in FLOATS:
        return [
            "in 4 bits a target answers a little differently, and is faster to begin with: "
            f"elsewhere ({XEON}) Q4_K_M ran {XEON_Q4[0]} tokens/s where F16 ran {XEON_F16[0]}, and "
            f"{XEON_Q4[1]} where F16 ran {XEON_F16[1]} with a drafter"
        ]
    if verify < DEAR:
        return []
    return [
        f"verifying 4 tokens costs {verify:.1f}x one here: drafting may gain more with an int4 "
        "ONNX target (`edgespec export onnx` on its F16 file); elsewhere "
        f"({ZEN4}) they cost {INT4_VERIFY:.1f}x, and one token no more than in Q4; F16 verifies "
        f"cheaply too ({F16_VERIFY:.1f}x), but its tokens take longer; with --precision "
        f"int8-channel they cost {CHANNEL_VERIFY:.1f}x ({XEON_CHANNEL}), and one token 1.3 times "
        "int4's"
    ]
