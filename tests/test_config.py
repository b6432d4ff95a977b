"""config.py: each option once, precedence, and errors that name the nearest key."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from edgespec.config import (
    PER_CALL,
    Config,
    add_flags,
    cache_folder,
    config_file,
    in_environment,
    in_file,
    laid,
    layers,
    options,
    state_folder,
    variable_of,
    with_values,
)
from edgespec.errors import UsageError
from edgespec.option import LoadOptions, Options
from edgespec.session.load import load
from edgespec.types import SamplingParams


def flags(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_flags(parser, "chat")
    return parser.parse_args(words)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", "top_k = 1\nthreads = 1\nctx_size = 1\n")
    environ = {"EDGESPEC_THREADS": "2", "EDGESPEC_CTX_SIZE": "2"}
    config = laid(Config(), layers(flags("-c", "3"), environ, path=file))
    assert (config.top_k, config.threads, config.ctx_size, config.min_p) == (1, 2, 3, 0.0)


def test_the_users_own_file_is_read_if_there(tmp_path: Path) -> None:
    environ = {"EDGESPEC_HOME": str(tmp_path)}
    assert laid(Config(), layers(flags(), environ)) == Config()
    written(tmp_path / "config.toml", 'drafter = "ngram"\n')
    assert laid(Config(), layers(flags(), environ)).drafter == "ngram"


def test_a_command_may_have_its_own_defaults(tmp_path: Path) -> None:
    base = Config(max_tokens=64)
    environ = {"EDGESPEC_HOME": str(tmp_path)}
    assert laid(base, layers(flags(), environ)).max_tokens == 64
    assert laid(base, layers(flags("-n", "9"), environ)).max_tokens == 9


def test_every_option_can_be_set_by_flag_variable_and_key(tmp_path: Path) -> None:
    samples = {"speculative": "on", "drafter": "ngram", "stop": "x", "verification": "block",
               "bridge": "tli", "allow_approximate": "true", "exact": "true", "adapt": "true",
               "adapt_keep_text": "true", "adapt_topics": "2", "adapt_share": "0.1",
               "adapt_within": "false", "draft_window": "256",
               "offline": "true", "color": "on", "think": "off",
               "history": "false", "kv_type": "q8_0", "kv_type_draft": "q8_0",
                   "loading": "map"}  # fmt: skip
    for one, option in options():
        sample = samples.get(one.name, "5")
        said = in_environment({variable_of(one.name): sample})
        read = getattr(with_values(Config(), *said), one.name)
        assert read != getattr(Config(), one.name), one.name
        quoted = f'{one.name} = "{sample}"'
        said = in_file(written(tmp_path / "c", quoted))
        assert getattr(with_values(Config(), *said), one.name) == read
        for flag in option.flags:
            given = flags(flag, sample) if option.metavar else flags(flag)  # a switch takes nothing
            config = laid(Config(), layers(given, {"EDGESPEC_HOME": str(tmp_path)}))
            assert getattr(config, one.name) == read, flag


WIDER = {  # what a keyword takes beside the field's own type
    "json_schema": str | Mapping[str, Any],
    "stop": str | Sequence[str],
}


def test_load_and_a_call_take_what_the_table_says() -> None:
    own = {"model", "draft_model", "drafter"}  # arguments of load with a wider type
    for_load = {one.name for one, option in options() if not option.only} - own
    assert set(get_type_hints(LoadOptions)) == for_load
    assert set(get_type_hints(Options)) == {*PER_CALL, "logit_bias", "n_top"}
    assert own | {"progress", "keywords"} == set(inspect.signature(load).parameters)
    of_config, typed = get_type_hints(Config), get_type_hints(LoadOptions)
    for name in for_load:
        expected = WIDER.get(name, of_config[name])
        assert typed[name] == (expected | None if name in PER_CALL else expected), name


def test_load_refuses_what_is_no_option_of_it_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="load: unknown key 'top_kk': did you mean 'top_k'"):
        load(top_kk=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="load: unknown key 'history': known keys are pair, model"):
        load(history=False)  # type: ignore[call-arg]


def test_every_sampling_option_is_one_of_a_call_and_reaches_the_parameters_by_name() -> None:
    config = Config(temperature=0.5, top_k=3, verification="block", seed=4, max_tokens=5)
    params = config.sampling(frozenset({7}))
    shared = {one.name for one in fields(SamplingParams)} & {one.name for one, _ in options()}
    assert shared < set(PER_CALL)
    assert len(shared) == 10
    assert {name: getattr(params, name) for name in shared} == {
        name: getattr(config, name) for name in shared
    }
    assert Config().sampling(frozenset()) == SamplingParams()


def test_stop_may_be_given_several_times() -> None:
    said = layers(flags("--stop", "a", "--stop", "b"), {"EDGESPEC_HOME": "/nowhere"})
    given = laid(Config(), said)
    assert given.stop == ("a", "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("draft_token = 4", "unknown key 'draft_token': did you mean 'draft_tokens'"),
        ("draft-tokens = 4", "unknown key 'draft-tokens': did you mean 'draft_tokens'"),
        ("zzzzz = 1", "unknown key 'zzzzz': known keys are pair, model"),
        ("threads = -1", "threads is '-1': expected a whole number, 0 or more"),
        ("threads = true", "threads is True: expected N"),
        ("threads = 1.5", "threads is '1.5': expected a whole number"),
        ('temperature = "hot"', "temperature is 'hot': expected a number"),
        ("temperature = nan", "temperature is 'nan': expected a number"),
        ('draft_tokens = "many"', "draft_tokens is 'many': expected a number of tokens, or auto"),
        ('speculative = "yes"', "speculative is 'yes': expected one of auto, on, off"),
        ('drafter = "oracle"', "drafter is 'oracle': expected auto, model, ngram, none"),
        ('drafter = "ngram,none"', "drafter is 'ngram,none': expected one name, or different"),
        ("stop = 3", "stop is 3: expected a text or a list of texts"),
        ("[threads]\nx = 1", "threads is {'x': 1}: expected N"),
        ("threads = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_with_key_and_remedy(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = written(tmp_path / "config.toml", text)
    with pytest.raises(UsageError, match=expected) as caught:
        with_values(Config(), *in_file(file))
    assert str(file) in str(caught.value)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file.*expected a TOML file"):
        laid(Config(), layers(flags(), {}, path=tmp_path / "none.toml"))


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(UsageError, match="EDGESPEC_SEED: seed is 'x': expected a whole number"):
        with_values(Config(), *in_environment({"EDGESPEC_SEED": "x"}))


def test_a_variable_that_nearly_names_an_option_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="EDGESPEC_TEMPRATURE.* did you mean EDGESPEC_TEMPERATUR"):
        with_values(Config(), *in_environment({"EDGESPEC_TEMPRATURE": "1"}))
    others = {"EDGESPEC_HOME": "x", "EDGESPEC_TEST_DATA": "x", "EDGESPEC_BUILDER_PYTHON": "x"}
    assert with_values(Config(), *in_environment(others)) == Config()


def test_variables_that_name_no_option_are_not_ours() -> None:
    assert with_values(Config(), *in_environment({"EDGESPEC_TEST_DATA": "x"})) == Config()


def test_values_from_python_are_checked_like_flags() -> None:
    assert with_values(Config(), {"seed": None, "stop": ["a"]}, "load").stop == ("a",)
    with pytest.raises(UsageError, match="load: top_k is '-3'"):
        with_values(Config(), {"top_k": -3}, "load")


def test_a_model_is_named_as_it_was_named_last() -> None:
    """By a file or a repository, of target and drafter; an adapter goes with its draft model."""
    tuned = Config(model="t.gguf", draft_model="d.gguf", lora_draft="a.gguf", threads=2)
    other = with_values(tuned, {"hf_repo_draft": "u/d"}, "flags")
    assert other == Config(model="t.gguf", hf_repo_draft="u/d", threads=2)
    other = with_values(other, {"draft_model": "e.gguf", "lora_draft": "b"}, "flags")
    assert other == Config(model="t.gguf", draft_model="e.gguf", lora_draft="b", threads=2)
    assert with_values(other, {"hf_repo": "u/t"}, "flags").model == ""
    assert with_values(tuned, {"draft_model": "d.gguf"}, "flags") == tuned
    both = with_values(
        Config(), *in_environment({"EDGESPEC_MODEL": "t", "EDGESPEC_HF_REPO": "u/t"})
    )
    assert (both.model, both.hf_repo) == ("t", "u/t")  # which is refused where it is opened


def test_a_pair_takes_the_place_of_models_named_before_it() -> None:
    file = Config(model="t.gguf", draft_model="d.gguf", lora_draft="a.gguf", threads=2)
    for pair in ("demo", "demo-foreign"):
        assert with_values(file, {"pair": pair}, "flags") == Config(pair=pair, threads=2)
    with_them = with_values(file, {"pair": "x", "draft_model": "e.gguf"}, "flags")
    assert with_them == Config(pair="x", draft_model="e.gguf", threads=2)


def test_folders_follow_the_environment(tmp_path: Path) -> None:
    assert cache_folder({"EDGESPEC_HOME": "/e", "XDG_CACHE_HOME": "/x"}) == Path("/e")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/edgespec")
    assert config_file({"XDG_CONFIG_HOME": "/x"}) == Path("/x/edgespec/config.toml")
    assert state_folder({"XDG_STATE_HOME": "/x", "XDG_CACHE_HOME": "/y"}) == Path("/x/edgespec")
    assert state_folder({"EDGESPEC_HOME": "/e", "XDG_STATE_HOME": "/x"}) == Path("/e")
    assert cache_folder({}).is_relative_to(Path.home())
    assert state_folder({}).is_relative_to(Path.home())


def test_rare_options_work_but_do_not_fill_the_help() -> None:
    short, long = ArgumentParser(), ArgumentParser()
    add_flags(short, "chat")
    add_flags(long, "chat", every=True)
    assert "--repeat-penalty" not in short.format_help()
    assert "--repeat-penalty" in long.format_help()
    assert short.parse_args(["--repeat-penalty", "1.5"]).repeat_penalty == 1.5


@pytest.mark.parametrize("text", ["1", "63", "-5", "all"])
def test_a_window_too_small_to_draft_from_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="draft_window is '.*': expected"):
        with_values(Config(), *in_environment({"EDGESPEC_DRAFT_WINDOW": text}))


@pytest.mark.parametrize("text", ["-0.1", "0.51", "1", "nan", "much"])
def test_a_share_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="adapt_share is '.*': expected"):
        with_values(Config(), *in_environment({"EDGESPEC_ADAPT_SHARE": text}))
    assert (
        with_values(Config(), *in_environment({"EDGESPEC_ADAPT_SHARE": "0.5"})).adapt_share == 0.5
    )


def test_what_a_file_switched_on_a_flag_switches_off(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("adapt = true\nexact = true\n", encoding="utf-8")
    parser = ArgumentParser()
    add_flags(parser, "chat")
    config = laid(Config(), layers(parser.parse_args(["--no-adapt"]), {}, path=file))
    assert (config.adapt, config.exact) == (False, True)


def test_options_of_one_command_are_no_flags_of_others() -> None:
    parser = ArgumentParser()
    add_flags(parser, "bench")
    with pytest.raises(SystemExit):
        parser.parse_args(["--color", "on"])
    given = laid(
        Config(),
        layers(parser.parse_args([]), {"EDGESPEC_COLOR": "on", "EDGESPEC_HOME": "/nowhere"}),
    )
    assert given.color == "on"
