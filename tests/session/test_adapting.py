"""`adapt`: a session whose draft model learns, the text being what it would be without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgespec.export import lora
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.export.trim.head import trim
from hf_maker import write_adapter

import edgespec
from edgespec.adapt.adapter import fresh
from edgespec.adapt.adapter_file import Day
from edgespec.adapt.online import Online
from edgespec.cli import main
from edgespec.cli.adapt_pair import prompts_of, rows_of, topics_of
from edgespec.errors import UsageError
from edgespec.session.adapting import First, columns, fingerprint, sides_of
from edgespec.store.pairs import bundled, find

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]


def said(session: edgespec.Session, **how: object) -> str:
    return "".join(piece.text for piece in session.chat(ASK, max_tokens=40, **how))


@pytest.mark.parametrize(
    ("pair", "exact"),
    [
        ("demo", False),
        ("demo-foreign", False),
        pytest.param("demo", True, marks=pytest.mark.slow),
    ],
)
def test_a_text_is_the_same_while_the_drafter_learns(
    pair: str, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(
        pair=pair, adapt=True, exact=exact, speculative="on", temperature=0.0, adapt_share=0.5
    ) as session:
        plain = said(session, speculative="off")
        learner = session.pair.learner
        assert learner is not None
        assert learner._share == 0.5
        learner._share = 1e9
        for _ in range(3):
            assert said(session) == plain
            learner.model.correction = learner.trainer.adapter  # unproven, so that it tells
        assert learner.n_steps > 0 and len(learner.examples) > 40
        assert session.stats.n_accepted > 0
        assert len(learner.trainer.adapter.rows) > 0


@pytest.mark.slow
def test_a_text_is_the_same_whatever_topic_it_is_taken_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    for name, value in {"YOUNG": 1, "LIKE": 9.0, "STRANGERS": 1}.items():  # all is strange
        monkeypatch.setattr(f"edgespec.adapt.familiar.{name}", value)
    bus = [{"role": "user", "content": "Find me a bus to the coast."}]
    asks = [ASK, ASK, bus, bus, ASK]
    options = {"temperature": 0.0, "max_tokens": 30, "speculative": "on"}
    with edgespec.load(adapt=True, adapt_topics=4, **options) as session:
        learner = session.pair.learner
        assert learner is not None
        learner._share = 1e9
        for i, ask in enumerate(asks):
            if i == 4:
                monkeypatch.setattr("edgespec.adapt.familiar.LIKE", 0.0)  # all is familiar
            texts = [
                "".join(piece.text for piece in session.chat(ask, speculative=how))
                for how in ("off", "on")
            ]
            assert texts[0] == texts[1]
            learner.heads.gate.good = learner.trainer.adapter.copy()  # unproven, so that it tells
        assert sorted(learner.topics.heads) == [0, 1]
        assert learner.model.correction is not None
        assert session.stats.n_accepted > 0
    (routes,) = tmp_path.rglob("*.topics")
    assert routes.stat().st_mode & 0o777 == 0o600


def test_any_request_ends_what_learns_in_idle_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(adapt=True, speculative="on") as session:
        learner = session.pair.learner
        assert learner is not None
        said(session)
        ended: list[bool] = []
        stop = learner.idle.stop
        monkeypatch.setattr(learner.idle, "stop", lambda: ended.append(True) or stop())
        assert not ended
        session.chat(ASK, max_tokens=4, speculative="off")
        assert ended


def test_a_learned_head_is_shown_and_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(adapt=True, speculative="on") as session:
        learner = session.pair.learner
        assert learner is not None
        adapter = fresh(np.arange(5), learner.trainer.adapter.n_hidden, rank=8)
        adapter.bias[:] = 1
        path = learner.heads.files.save(adapter, {"2026-01-31": Day(3, 100, 1.0, 1.5)})
    with edgespec.load(adapt=True, speculative="on") as session:
        assert (
            session.pair.learner is not None and session.pair.learner.model.correction is not None
        )
    assert main(["adapt", "show"]) == 0
    assert "2026-01-31: 3 updates by 100 positions, 1.00 -> 1.50 tok" in capsys.readouterr().out
    assert main(["adapt", "reset", "--pair", "demo"]) == 0
    assert not path.exists()
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"speculative": "off"}, "--adapt teaches nothing: no draft model is open"),
        ({"drafter": "ngram"}, "--adapt teaches nothing: no draft model is open"),
        (
            {"pair": "demo-foreign", "bridge": "tli"},
            "--adapt teaches nothing over --bridge tli: expected auto or exact",
        ),
        ({"pair": "demo-foreign", "bridge": "exact"}, ""),
        ({}, ""),
    ],
)
def test_where_nothing_can_be_learned_one_line_says_so(
    how: dict[str, str], what: str, tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(adapt=True, **{"speculative": "on", **how}):
        lines = [one.getMessage() for one in caplog.records if "--adapt" in one.getMessage()]
    assert [line[: len(what)] for line in lines] == ([what] if what else [])


def test_nothing_learns_unless_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(speculative="on") as session:
        assert session.pair.learner is None


def test_tokens_of_the_target_stand_in_the_column_of_their_first_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(pair="demo-foreign", speculative="on") as session:
        assert session.pair.translation is not None and session.pair.draft_model is not None
        mapping = session.pair.translation.mapping
        ids = np.arange(300, 400)
        found = First(mapping)(ids)
        for token, column in zip(ids.tolist(), found.tolist(), strict=True):
            pieces = mapping.draft.encode(mapping.target.pieces[token])
            direct = int(mapping.preimage[token])
            assert column == (direct if direct >= 0 else pieces[0] if pieces else -1)
        both = columns(session.pair.draft_model, mapping)
        np.testing.assert_array_equal(both.of_target(ids), found)


def test_an_adapter_beside_the_drafter_has_heads_prompts_and_rows_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    drafter = bundled(find("demo").drafter)
    base = open_gguf_checkpoint(drafter)
    shape = base["blk.0.attn_output.weight"].floats().shape
    write_adapter(tmp_path / "peft", {"model.layers.0.self_attn.o_proj": shape})
    mine, *_ = lora.export(tmp_path / "peft", base, tmp_path / "mine")
    found = []
    for adapter in ("", str(mine)):
        options = {"adapt": True, "adapt_keep_text": True, "lora_draft": adapter}
        with edgespec.load(speculative="on", **options) as session:
            learner, kept = session.pair.learner, session.pair._prompts
            assert learner is not None and kept is not None
            config = session.config
            assert learner.topics._files.map == topics_of(config).map
            assert kept.path == prompts_of(config).path
            found.append((learner.topics._files.map, kept.path, rows_of(config)))
    assert not set(found[0]) & set(found[1])
    with pytest.raises(UsageError, match="none.gguf is not there: expected an adapter"):
        sides_of(drafter, drafter, str(tmp_path / "none.gguf"))


def test_a_fingerprint_tells_files_apart_that_differ_in_the_middle_alone(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    data = bytearray(9 << 20)
    file.write_bytes(data)
    first = fingerprint(file)
    data[4 << 20 : 5 << 20] = b"x" * (1 << 20)
    file.write_bytes(data)
    assert fingerprint(file) != first
    data[-1] = 1
    file.write_bytes(data)
    second = fingerprint(file)
    data[-1] = 0
    file.write_bytes(data)
    assert second != fingerprint(file) != first


def test_a_fingerprint_changes_with_size_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"a" * 10)
    first = fingerprint(file)
    assert fingerprint(tmp_path) == first  # the largest file of a folder
    file.write_bytes(b"a" * 9 + b"b")
    assert fingerprint(file) != first
    file.write_bytes(b"a" * 11)
    assert fingerprint(file) != first


@pytest.mark.slow
def test_a_trimmed_drafter_learns_to_say_what_it_had_no_row_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    monkeypatch.setattr(Online, "_label", lambda *_: None)  # the head learns nothing else
    drafter, small = bundled(find("demo").drafter), tmp_path / "small.gguf"
    with edgespec.load(speculative="off", temperature=0.0) as session:
        plain = said(session)
        ids = session.target.tokenizer.encode(plain)
    missing = sorted(set(ids))[::4]  # a fourth of what the answer is made of
    trim(drafter, small, np.setdiff1d(np.arange(4096), missing))
    options: dict[str, object] = {
        "draft_model": str(small), "drafter": "model", "temperature": 0.0, "speculative": "on",
        "draft_tokens": 4, "adapt": True,
    }  # fmt: skip
    with edgespec.load(**options) as session:
        accepted = []
        for _ in range(3):
            assert said(session) == plain
            accepted.append(session.stats.n_accepted)
        assert accepted[0] < accepted[1] == accepted[2]
        learner = session.pair.learner
        assert learner is not None and learner.grown is not None
        held = learner.grown.missed.held
        assert held and held <= set(missing)
    with edgespec.load(**options) as session:
        assert said(session) == plain
        assert session.stats.n_accepted == accepted[1]
    with edgespec.load(**options, adapt_rows=0) as session:
        assert said(session) == plain
        assert session.stats.n_accepted <= accepted[0]


@pytest.mark.slow
def test_a_head_of_other_columns_is_not_taken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    small = tmp_path / "small.gguf"
    trim(bundled(find("demo").drafter), small, np.arange(0, 4096, 4))
    options = {"draft_model": str(small), "speculative": "on", "adapt": True}

    def opened(**more: object) -> tuple[int, bool]:
        """Columns of the head, and whether it is corrected."""
        with edgespec.load(**options, **more) as session:
            learner = session.pair.learner
            assert learner is not None
            said(session)
            return learner.model.n_columns, learner.model.correction is not None

    def keep(n_columns: int) -> None:
        with edgespec.load(**options) as session:
            assert session.pair.learner is not None
            learner = session.pair.learner
            n_hidden = learner.model.capabilities.hidden_width
            adapter = fresh(np.array([3, 1000]), n_hidden, rank=8)
            learner.heads.files.save(adapter, {}, n_columns=n_columns)

    for n_columns, grows, stays in ((4096, True, False), (1024, False, True), (0, False, True)):
        keep(n_columns)
        assert opened()[1] is grows
        assert opened(adapt_rows=0) == (1024, stays)
