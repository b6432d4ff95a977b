"""A drafter of another vocabulary in a session: the same text, what it learns, what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgespec
from edgespec.cli.run import session_record
from edgespec.config import BRIDGES
from edgespec.drafters.bridges import pairing
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.translated import Translated
from edgespec.errors import TokenizerError, UsageError
from edgespec.session.session import Session

ASK = [{"role": "user", "content": "Tell me a story about a little dog."}]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def session(home: Path) -> Iterator[Session]:
    with edgespec.load(pair="demo-foreign", speculative="on", drafter="model") as session:
        yield session


def said(session: Session, **options: object) -> str:
    return "".join(piece.text for piece in session.chat(ASK, **options))  # type: ignore[arg-type]


def drafter_of(session: Session) -> Translated:
    drafter = session.method.translated
    assert isinstance(drafter, Translated)
    return drafter


def ngrams_of(session: Session) -> set[tuple[int, ...]]:
    cache = session.method.translated.bridge.units.cache
    return {pieces for pieces, _, _ in cache.entries()}


@pytest.mark.parametrize("bridge", BRIDGES)
def test_greedy_and_seeded_texts_are_those_of_plain_decoding(home: Path, bridge: str):
    options = {"max_tokens": 60}, {"max_tokens": 40, "temperature": 0.9, "seed": 5}
    with edgespec.load(speculative="off") as plain:
        expected = [said(plain, **given) for given in options]
    with edgespec.load(
        pair="demo-foreign", speculative="on", drafter="model", bridge=bridge
    ) as session:
        assert [said(session, **given) for given in options] == expected
        assert session.stats.n_accepted > 0


def test_sampling_without_a_seed_accepts_drafted_tokens(session: Session):
    assert said(session, temperature=1.0, max_tokens=60)
    assert session.stats.n_accepted > 5
    assert session.stats.n_tested > session.stats.n_accepted


def test_an_approximate_bridge_may_not_sample_unless_allowed(home: Path):
    wrong = "omnidraft is not lossless when sampling: expected --bridge exact"
    options = {"pair": "demo-foreign", "speculative": "on", "bridge": "omnidraft"}
    with edgespec.load(**options) as session:
        with pytest.raises(UsageError, match=wrong):
            said(session, temperature=1.0)
        assert said(session, max_tokens=4)
        assert said(session, max_tokens=4, temperature=1.0, seed=1)
    with edgespec.load(**options, allow_approximate=True) as session:
        assert said(session, temperature=1.0, max_tokens=20)


def test_plain_decoding_may_sample_whatever_the_bridge(home: Path):
    with edgespec.load(pair="demo-foreign", speculative="off", bridge="omnidraft") as session:
        assert said(session, temperature=1.0, max_tokens=4)


def test_a_bridge_that_does_not_go_with_the_pair_is_refused():
    with pytest.raises(UsageError, match="--bridge same, but the drafter's vocabulary differs"):
        edgespec.load(pair="demo-foreign", bridge="same")
    with pytest.raises(UsageError, match="--bridge tli: the drafter has the target's vocabulary"):
        edgespec.load(pair="demo", bridge="tli")
    with pytest.raises(UsageError, match="bridge is 'slem': expected one of auto, same, exact"):
        edgespec.load(pair="demo-foreign", bridge="slem")


def test_methods_name_their_bridge(session: Session):
    for bridge in BRIDGES:
        method = session.pair.methods.named(f"fixed-3@{bridge}")
        assert type(method.translated.bridge).__module__ == f"edgespec.drafters.bridges.{bridge}"
    with pytest.raises(UsageError, match="fixed-3@slem names the bridge 'slem': expected exact"):
        session.pair.methods.named("fixed-3@slem")


def test_a_method_of_a_pair_with_one_vocabulary_names_no_bridge():
    with (
        edgespec.load(speculative="on") as session,
        pytest.raises(UsageError, match="the drafter has the target's vocabulary: expected fixed"),
    ):
        session.pair.methods.named("fixed-3@tli")


def test_the_drafter_reads_a_conversation_in_its_own_format(session: Session):
    talk = [*ASK, {"role": "assistant", "content": "Once there was a dog."}, ASK[0]]
    ids = session.prompt(talk)
    session.prompt(ASK)  # others prepared since do not matter
    next(session.steps(ids, session.params()))
    spelled = drafter_of(session).ledger.sync(ids)
    pieces = session.pair.draft_model.tokenizer.piece
    text = b"".join(pieces(token, special=True) for token in spelled).decode()
    assert text.endswith("story about a little dog.<|im_end|>\n<|im_start|>assistant\n")
    assert "assistant\nOnce there was a dog.<|im_end|>" in text


def test_a_drafter_opened_for_one_answer_reads_that_in_its_own_format(home: Path):
    with edgespec.load(pair="demo-foreign", speculative="off", max_tokens=2) as session:
        said(session, speculative="on")
        spelled = session.method.translated.ledger.sync(
            [*session.prompt(ASK), *session.turns.output]
        )
        pieces = session.pair.draft_model.tokenizer.piece
        text = b"".join(pieces(token, special=True) for token in spelled).decode()
    assert "<|im_end|>\n<|im_start|>assistant\n" in text


def test_a_prompt_without_messages_crosses_by_its_bytes(session: Session):
    ids = session.encode("Once upon a time")
    drafter = drafter_of(session)
    drafter.ledger.sync(ids)
    assert drafter.ledger.check() == (b"Once upon a time",) * 2


@pytest.mark.slow
def test_what_was_learned_is_there_for_the_next_session(home: Path):
    with edgespec.load(pair="demo-foreign", speculative="on") as session:
        said(session, max_tokens=120)
        assert session.method.speculator.name == "mixed"
        learned = ngrams_of(session)
    assert learned
    with edgespec.load(pair="demo-foreign", speculative="on") as session:
        found = ngrams_of(session)
    assert found == learned


def test_methods_for_measuring_do_not_write_what_they_learn(session: Session, home: Path):
    session.use(session.pair.methods.named("fixed-4"))
    said(session, max_tokens=60)
    session.method.speculator.close()
    assert not list(home.rglob("*.bin"))


def test_a_state_folder_that_cannot_be_written_is_a_warning(home: Path, caplog):
    (home / "ngrams").write_text("in the way")
    with (
        caplog.at_level(logging.WARNING),
        edgespec.load(pair="demo-foreign", speculative="on") as session,
    ):
        assert said(session, max_tokens=30)
    assert [r for r in caplog.records if "n-grams" in r.message or "n-gram" in r.message]


def test_a_drafter_that_cannot_spell_a_text_pauses(session: Session, caplog, monkeypatch):
    drafter = drafter_of(session)

    def refuse(data: bytes, **_: object) -> list[int]:
        raise TokenizerError(f"{data!r} cannot be spelled")

    monkeypatch.setattr(drafter.ledger.draft, "encode", refuse)
    assert not len(drafter.draft(session.encode("Once"), 4))
    assert not len(drafter.draft(session.encode("Once"), 4))
    assert len([r for r in caplog.records if "pauses: it cannot spell" in r.message]) == 1


def test_a_record_tells_the_bridge_and_its_resyncs(session: Session):
    said(session, max_tokens=30)
    found = session_record(session, [])["drafter"]["bridge"]
    assert found["name"] == "exact"
    assert found["lossless"]
    assert found["n_full_syncs"] == 1  # the prompt
    assert found["n_syncs"] == session.stats.n_rounds


@pytest.mark.slow
def test_sessions_side_by_side_add_to_what_was_learned(home: Path):
    with edgespec.load(pair="demo-foreign", speculative="on") as idle:
        assert not ngrams_of(idle)
        with edgespec.load(pair="demo-foreign", speculative="on") as session:
            said(session, max_tokens=80)
            learned = ngrams_of(session)
        (file,) = home.rglob("*.bin")
        written = file.read_bytes()
        assert not ngrams_of(idle)
    assert file.read_bytes() == written  # who learned nothing writes nothing
    with edgespec.load(pair="demo-foreign", speculative="on") as session:
        assert ngrams_of(session) == learned


def test_vocabularies_are_compared_after_the_first_token(home: Path, monkeypatch):
    made = []
    monkeypatch.setattr(
        pairing, "Mapping", lambda *sides, **kw: made.append(sides) or Mapping(*sides, **kw)
    )
    with edgespec.load(pair="demo-foreign") as session:
        next(session.chat(ASK, max_tokens=40))
        assert not made
        for _ in range(2):
            said(session, max_tokens=12, speculative="on")
            assert session.stats.n_drafted > 0
    assert len(made) == 1


def test_vocabularies_that_cannot_be_compared_cost_the_drafter_alone(
    home: Path, monkeypatch, caplog
):
    def refuse(*_: object, **__: object) -> None:
        raise TokenizerError("none of the tokens spells anything")

    with edgespec.load(speculative="off", max_tokens=30) as plain:
        expected = said(plain)
    monkeypatch.setattr(pairing, "Mapping", refuse)
    options = {"pair": "demo-foreign", "speculative": "on", "drafter": "model"}
    with edgespec.load(**options, max_tokens=30) as session:
        assert said(session) == expected
    (line,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert "drafter model failed (none of the tokens spells anything): decoding goes on" in line


@pytest.mark.slow
def test_what_was_learned_is_written_while_a_session_goes_on(home: Path, session: Session):
    said(session, max_tokens=200)
    assert list(home.rglob("*.bin"))


def test_the_bridge_in_use_decides_whether_sampling_is_allowed(session: Session):
    approximate = session.pair.methods.named("fixed-4@omnidraft")
    exact = session.pair.methods.named("fixed-4@exact")
    session.use(approximate)
    with pytest.raises(UsageError, match="omnidraft is not lossless"):
        said(session, temperature=1.0)
    session.pair.methods.named("fixed-4@omnidraft")
    session.use(exact)
    assert said(session, temperature=1.0, max_tokens=8)


@pytest.mark.slow
@pytest.mark.parametrize("bridge", ["exact", "tli", "text"])
def test_banned_tokens_are_never_said(session: Session, bridge: str):
    session.use(session.pair.methods.named(f"fixed-4@{bridge}"))
    likely = [token for token in range(4096) if session.tokenizer.piece(token).startswith(b" ")]
    bans = dict.fromkeys(likely, float("-inf"))
    list(session.chat(ASK, temperature=1.0, max_tokens=30, logit_bias=bans))
    assert session.turns.output
    assert not set(session.turns.output) & set(likely)


def test_a_chat_template_that_does_not_parse_is_done_without(home: Path, monkeypatch, caplog):
    monkeypatch.setattr(
        "edgespec.backends.llamacpp.tokenizer.LlamaCppTokenizer.chat_template",
        "{% generation %}",
    )
    with edgespec.load(pair="demo-foreign", speculative="on") as session:
        assert "".join(piece.text for piece in session.generate("Once", max_tokens=8))
        assert session.pair.translation.spelled(ASK) == session.pair.translation.spelled(ASK) == []
    assert len([r for r in caplog.records if "as plain text" in r.message]) == 1
