"""The bridge's Java with real CPython in the JVM: figures of scenarios (jvm/Scenarios.java)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "android_demo" / "bridge" / "src" / "main" / "java"
JVM = Path(__file__).parent / "jvm"
COMPILER = ("javac", "-Xlint:all", "-Werror", "--release")
Figures = dict[str, str]


def needed(what: str, is_here: bool) -> None:
    """Skips without it, and fails where continuous integration should have it."""
    if is_here:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what} is needed")
    pytest.skip(f"no {what} here")


def compiled(release: str, sources: Path, target: Path, *classes: Path) -> Path:
    """The classes of all sources in a folder; a warning is an error."""
    files = map(str, sorted(sources.rglob("*.java")))
    path = os.pathsep.join(map(str, classes))
    command = [*COMPILER, release, "-d", str(target), *(["-cp", path] if path else []), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    """What each scenario printed."""
    needed("javac (JDK 17)", shutil.which("javac") is not None)
    spec = find_spec("jep")
    needed('jep (pip install -e ".[jvm]")', spec is not None)
    assert spec is not None and spec.origin is not None
    jep, folder = Path(spec.origin).parent, tmp_path_factory.mktemp("bridge")
    (jar,) = jep.glob("jep-*.jar")
    bridge = compiled("11", BRIDGE, folder / "bridge")
    tests = compiled("17", JVM, folder / "tests", bridge, jar)
    path = os.pathsep.join(map(str, (bridge, tests, jar)))
    command = ["java", "-Xmx96m", f"-Djava.library.path={jep}", "-cp", path, "Scenarios"]
    environment = {**os.environ, "EDGESPEC_HOME": str(folder / "home")}
    done = subprocess.run(
        [*command, str(folder), str(ROOT), *filter(None, sys.path)],
        capture_output=True, text=True, check=False, timeout=240, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return {name: dict(pair.split("=", 1) for pair in pairs) for name, *pairs in lines}


def test_an_answer_streams_into_java_token_by_token(said: dict[str, Figures]) -> None:
    figures = said["streams"]
    assert figures["name"] == "target"
    assert figures["finish"] == "length"
    assert figures["text"].startswith("Once upon a time")
    assert 20 < int(figures["pieces"]) <= int(figures["tokens"]) == 24
    assert 0 < int(figures["drafted"]) < int(figures["pieces"])
    assert int(figures["spread_ms"]) > 0  # not all at once at its end


@pytest.mark.alone
def test_another_thread_ends_an_answer_within_100_ms(said: dict[str, Figures]) -> None:
    assert said["cancels"]["finish"] == "cancelled"
    assert int(said["cancels"]["most_us"]) < 100_000


def test_exceptions_and_bad_paths_are_values(said: dict[str, Figures]) -> None:
    figures = said["survives"]
    assert figures["bad"].startswith("ModelFileError: /none/model.gguf does not exist")
    assert figures["thrown"].startswith("Fault: ")
    assert "the screen is gone" in figures["thrown"]
    assert "no_such_method" in figures["unknown"]
    assert figures["after"] == "stop"


def test_a_screen_sees_the_states_of_a_conversation(said: dict[str, Figures]) -> None:
    figures = said["conversation"]
    assert figures["failed"] == "CLOSED/ModelFileError"
    assert figures["refused"] == figures["busy"] == figures["same"] == "true"
    assert int(figures["spans"]) > 0
    assert "tokens/s" in figures["line"] and "of drafts accepted" in figures["line"]
    assert int(figures["stopped"]) in (3, 4)  # a question that may have been stopped at once
    assert figures["loaded"] == figures["stopped"]
    assert figures["regenerated"] == "2"
    assert figures["apart"] == "true"  # while it is answered no other takes its place
    assert figures["late"] == "talk/0/2"  # each conversation lies in its own file
    assert figures["hot"] == "the device is hot"
    assert figures["tooLong"] == "ContextError"  # what was kept since has not hidden it
    assert figures["last"] == "READY"
    assert figures["seen"] == "[LOADING, CLOSED, READY, ANSWERING]"


def test_both_ways_are_measured_by_real_runs(said: dict[str, Figures]) -> None:
    figures = said["measures"]
    assert float(figures["times"]) > 0
    assert min(float(figures["with"]), float(figures["without"])) > 1
    assert (figures["tokens"], figures["same"], figures["told"]) == ("288", "1", "6")
    assert "times as fast" in figures["text"]


def test_other_apps_are_served_who_know_the_key(said: dict[str, Figures]) -> None:
    assert said["serves"]["url"].startswith("http://127.0.0.1:")
    assert (said["serves"]["known"], said["serves"]["unknown"]) == ("200", "401")


def test_ten_times_opened_and_closed_memory_stays(said: dict[str, Figures]) -> None:
    assert int(said["reopens"]["growth_kib"]) < 20 * 1024
