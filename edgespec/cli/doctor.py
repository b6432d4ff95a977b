"""`edgespec doctor`: does this pair work here, at which acceptance does it pay, what else to try?

`--json` writes one object:
    schema          "edgespec.doctor/1"
    edgespec, device    version; the card that `edgespec devices` writes
    target, drafter     path, backend, architecture, n_params, quant, n_vocab, n_rows (of the head);
                    n_params 0 for a vocabulary without weights; drafter null for a target alone
    overlap         kind (same, padded: but for unused ids, control: but for control tokens, other),
                    n_target, n_draft (ids), n_unused, n_target_spelled, n_draft_spelled (different
                    byte strings), n_shared (in both), n_proposable (by a trimmed head, of those),
                    target_share, draft_share, text_share (of the target's in a text); or null
    special         template (same, different, target only, drafter only, none) and roles: bos, eos,
                    end_of_turn with target and drafter as written, null for none; or null
    memory          target and drafter: weights_bytes, kv_bytes, logits_bytes, n_context; n_bytes
                    of both, program_bytes beside them, peak_bytes of all, least_bytes (smallest
                    context), free_bytes (null: cannot be told), fits,
                    most_context (that fits, at most what is wanted; 0: none), asked (with -c)
    suited          files of drafters here that have the target's own vocabulary
    known_pairs     names of known pairs for a target of this file name
    measured        verify_s (seconds of 1, 2, .. tokens), draft_step_s, slowdown (of a token, over
                    when its costs were kept), load (programs per core before), filling (of a token
                    with --exact, over one read alone; null without), widths: k (drafted),
                    verify and round (in times of a plain token), acceptance (above which it pays,
                    null: none); trial: n_tested, n_accepted, acceptance; or null
    not_measured    why there is nothing measured, or ""
    works, problems, recommendation, notes
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from edgespec.backends.preview import Preview
from edgespec.check.doctor.advice import notes, recommendation, vocabulary_line
from edgespec.check.doctor.memory import Memory
from edgespec.check.doctor.report import Report, examine
from edgespec.check.doctor.special import Special
from edgespec.check.doctor.texts import TEXTS
from edgespec.check.doctor.trial import Trial, load_now, tried
from edgespec.cli.output import add_json, folded, show_progress, write_json
from edgespec.cli.prompts import usual
from edgespec.config import Config
from edgespec.device import device_card, free_memory, version
from edgespec.errors import Cancelled, EdgeSpecError, UsageError
from edgespec.files import in_words
from edgespec.session import opening

ABOUT = "Judge a pair of models: vocabularies, memory, measured costs, when drafting pays."
USAGE = "-m TARGET -md DRAFTER [--quick] [--json FILE] [options]"
EXAMPLE = "edgespec doctor -m target.gguf -md drafter.gguf"
DEFAULTS = Config()
SCHEMA = "edgespec.doctor/1"
INDENT = 12
SUPPOSED = 0.8  # acceptance that the table supposes where none was measured


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("--quick", action="store_true", help="read files only, measure nothing")
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Judge and say so; 1 if the pair cannot work."""
    drafting = replace(config, speculative="on", draft_tokens="auto")
    with_model = opening.drafts_with_a_model(drafting)
    target, draft = opening.paths_of(config, show_progress, drafter=with_model)
    report = examine(target, draft, opening.options_of(config, draft), TEXTS, free_memory())
    report = measured(report, config, args.quick)
    if args.json != "-":
        print("\n".join(folded(line, INDENT) for line in lines_of(report)))
    if args.json:
        head = {"schema": SCHEMA, "edgespec": version(), "device": device_card()}
        said = {"recommendation": recommendation(report), "notes": notes(report)}
        write_json({**head, **report.record(), **said}, args.json)
    return 0 if report.works else 1


def measured(report: Report, config: Config, quick: bool) -> Report:
    """The report with what a trial found, or why there was none; with a problem if it failed."""
    if not report.works:
        return replace(report, untried="it cannot work")
    if not report.has_weights:
        return replace(report, untried="a vocabulary without weights")
    if quick:
        return replace(report, untried="--quick")
    if report.memory.fits is False:
        config = replace(config, ctx_size=report.memory.most_context or 0)
    elif config.ctx_size:
        config = replace(config, ctx_size=report.memory.target.n_context)
    drafter = "ngram" if report.drafter is None else "model"
    config = replace(config, drafter=drafter, speculative="on", draft_tokens="auto")
    load = load_now()
    from edgespec.cli.run import opened  # not needed to read headers, which is to be quick

    try:
        with opened(config) as session:
            return replace(report, trial=replace(tried(session, questions(config)), load=load))
    except (Cancelled, UsageError):
        raise
    except EdgeSpecError as error:
        show_progress.clear()
        return replace(report, problems=(str(error),), untried="it failed")


def questions(config: Config) -> list[str]:
    """Built-in prompts of all kinds that suit the target, in turns."""
    in_turns = zip(*usual(config).values(), strict=True)
    return [str(prompt.messages[0]["content"]) for prompts in in_turns for prompt in prompts]


def lines_of(report: Report) -> list[str]:
    """The report for a reader."""
    lines = [f"target:     {model_line(report.target)}"]
    if report.drafter is not None:
        lines.append(f"drafter:    {model_line(report.drafter)}")
    if report.overlap is not None:
        lines.append(f"vocabulary: {vocabulary_line(report.overlap)}")
    if report.special is not None:
        lines.append(f"chat:       {special_line(report.special)}")
    lines.append(f"memory:     {memory_line(report.memory)}")
    if report.trial is not None:
        lines += trial_lines(report.trial)
    lines += [f"problem:    {problem}" for problem in report.problems]
    lines += [f"note:       {note}" for note in notes(report)]
    return [*lines, f"advice:     {recommendation(report)}"]


def model_line(side: Preview) -> str:
    """One model in a line."""
    what = [side.architecture]
    if side.n_params:
        what += [f"{side.n_params / 1e6:,.1f} M parameters", side.quant]
    else:
        what.append("a vocabulary without weights")
    rows = "" if side.token_ids is None else f" ({len(side.token_ids):,} rows)"
    return f"{side.path}: {', '.join(what)}, {side.n_vocab:,} tokens{rows}{state_of(side)}"


def state_of(side: Preview) -> str:
    """How a model whose memory forgets takes tokens back, nothing for others."""
    if side.cache is None:
        return ""
    if side.cache.n_window:
        return f", most layers keep the last {side.cache.n_window:,} tokens only"
    if not side.cache.state_bytes:
        return ""
    how = "copied each round, and what stays is read again"
    if side.cache.n_back:
        how = f"up to {side.cache.n_back} tokens are taken back for free"
    return f", recurrent states of {in_words(side.cache.state_bytes)} ({how})"


def special_line(special: Special) -> str:
    """Templates and control tokens in a line."""
    said = {
        "same": "the same template",
        "different": "another template",
        "none": "no template in either file",
        "target only": "a template in the target's file only",
        "drafter only": "a template in the drafter's file only",
    }[special.template]
    differ = [
        f"{role} " + " and ".join(one or "none" for one in special.roles[role])
        for role in special.differing
    ]
    return f"{said}; target and drafter differ: {', '.join(differ)}" if differ else said


def memory_line(memory: Memory) -> str:
    """What the pair takes, in a line."""
    sides = [side for side in (memory.target, memory.drafter) if side is not None]
    weights = " + ".join(in_words(side.weights_bytes) for side in sides)
    caches = " + ".join(in_words(side.kv_bytes) for side in sides)
    rows = " + ".join(in_words(side.logits_bytes) for side in sides)
    taken = f"caches for {memory.target.n_context:,} tokens {caches}, rows of logits {rows}"
    if not all(side.weights_bytes for side in sides):
        return f"{taken}; the weights are not there"
    line = (
        f"weights {weights}, {taken}, in all {in_words(memory.n_bytes)}, "
        f"with the program {in_words(memory.peak_bytes)}"
    )
    if memory.free_bytes is None:
        return f"{line}; what is free there is not known"
    word = "fits" if memory.fits else "does not fit"
    return f"{line}; {word} the {in_words(memory.free_bytes)} that are free"


def trial_lines(trial: Trial) -> list[str]:
    """Costs, what each width needs, and what was accepted.

    Verifying and the whole round in times of one plain token; speed over plain decoding.
    """
    plain_s = trial.costs.seconds[0]
    line = f"costs:      a token of the target {plain_s * 1e3:.2f} ms"
    if trial.step_s is not None:
        share = trial.step_s / plain_s
        line += f", drafting one {trial.step_s * 1e3:.2f} ms ({share:.2f} of it)"
    acceptance = SUPPOSED if trial.acceptance is None else trial.acceptance
    head = f"drafted   verify    round  pays at{f'speed at {acceptance:.0%}':>14}"
    lines = [line, INDENT * " " + head]
    for width in trial.widths:
        pays = "never" if width.acceptance is None else f"{width.acceptance:.0%}"
        lines.append(
            f"{' ':{INDENT}}{width.k:>7}{width.verify:>8.2f}x{width.round:>8.2f}x{pays:>9}"
            f"{width.speed(acceptance):>13.2f}x"
        )
    if trial.acceptance is not None:
        lines.append(
            f"tried:      {trial.acceptance:.0%} of {trial.n_tested} drafted tokens accepted, in "
            "answers to built-in questions"
        )
    return lines
