"""The page at / in a real browser: Chromium, driven by selenium, against the demo pair."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import call

import edgespec
from edgespec.server.running import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with edgespec.serve(speculative="on", draft_tokens=2, threads=1) as one:
            yield one


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser, 360 pixels wide, with what its console says."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        reason = "no chromium here: apt-get install chromium chromium-driver"
        if os.environ.get("CI") and shutil.which("apt-get") and os.geteuid() == 0:
            pytest.fail(reason)  # .ci/run should have brought it
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("profile")
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--user-data-dir={profile}", "--window-size=520,800"):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(profile)})
    service = webdriver.ChromeService(executable_path=driver)
    with webdriver.Chrome(options=options, service=service) as one:
        narrow = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
        one.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        one.profile = profile
        yield one


@pytest.fixture
def page(chromium: Any, server: Server) -> Iterator[Any]:
    """The page, empty; afterwards its console must have nothing to complain of."""
    chromium.get(server.url)
    chromium.execute_script("sessionStorage.clear()")
    chromium.get(server.url)
    yield chromium
    assert [one for one in chromium.get_log("browser") if one["level"] != "INFO"] == []


def one(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def wait(page: Any, script: str, timeout_s: float = 20.0) -> Any:
    """What a script returns once that is true."""
    until = time.monotonic() + timeout_s
    while not (found := page.execute_script(f"return {script}")):
        assert time.monotonic() < until, script
        time.sleep(0.02)
    return found


IDLE = "!document.getElementById('send').disabled"
ANSWERED = f"{IDLE} && document.querySelector('article.assistant .foot')"


def ask(page: Any, text: str, tokens: int = 40) -> None:
    page.execute_script("document.getElementById('tokens').value = arguments[0]", tokens)
    page.switch_to.active_element.send_keys(text + "\n")


def test_a_question_is_answered_with_the_keyboard_alone(page: Any, server: Server) -> None:
    wait(page, "document.getElementById('model').textContent === 'demo'")
    page.execute_script("document.getElementById('speculative').value = 'on'")
    ask(page, "Tell me a story about a little fox.")
    wait(page, ANSWERED)
    messages = [{"role": "user", "content": "Tell me a story about a little fox."}]
    given = {"messages": messages, "max_tokens": 40}
    whole = call(server.url, "/v1/chat/completions", given).body
    said = one(page, "article.assistant .words").text
    assert said.split() == whole["choices"][0]["message"]["content"].split()
    drafted = one(page, "article.assistant .drafted")
    tint = drafted.value_of_css_property("background-color")
    assert tint not in ("rgba(0, 0, 0, 0)", "transparent")
    assert "tokens/s" in one(page, "article.assistant .foot").text
    label = one(page, "svg.chart").get_attribute("aria-label")
    assert label.startswith("Accepted by position: 1: ")


def test_it_fits_360_pixels(page: Any) -> None:
    ask(page, "Tell me a story.")
    wait(page, ANSWERED)
    page.execute_script("document.getElementById('settings').open = true")
    widths = page.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth, "
        "Math.max(...[...document.querySelectorAll('button, article, form, textarea')]"
        ".map((one) => one.getBoundingClientRect().right))]"
    )
    assert widths[0] == 360 and widths[1] <= 360 and widths[2] <= 360


def test_a_stopped_answer_ends_here_and_there(page: Any, server: Server) -> None:
    page.execute_script("document.getElementById('temperature').value = 1.5")
    ask(page, "Tell me a very long story.", 900)
    wait(page, "document.querySelector('article.assistant .words')")
    page.switch_to.active_element.send_keys("\ue00c")  # Escape
    wait(page, f"{IDLE} && document.getElementById('notice').textContent === 'stopped'")
    until = time.monotonic() + 5
    while sum(server._bench.counts()):
        assert time.monotonic() < until


def test_a_question_without_an_answer_can_be_sent_again(page: Any, server: Server) -> None:
    def roles() -> str:
        return str(page.execute_script("return talk.map((one) => one.role).join(' ')"))

    box = "document.getElementById('question').value"
    bench = server._bench
    ask(page, "Tell me a story about a cow.", 12)
    wait(page, ANSWERED)
    story = one(page, "article.assistant .words").text
    full = [bench._work("demo") for _ in range(bench.limits.queue + 8)]
    try:
        ask(page, "And now?")
        assert wait(page, box) == "And now?"
        assert "ask again later" in wait(
            page, f"{IDLE} && document.getElementById('notice').textContent"
        )
        assert roles() == "user assistant"
        page.execute_script("document.getElementById('again').click()")
        wait(page, f"{IDLE} && document.querySelector('article.assistant .foot')")
        assert roles() == "user assistant" and one(page, "article.assistant .words").text == story
    finally:
        bench._live.difference_update(full)
    page.get_log("browser")  # the refusals are told there
    one(page, "#send").click()
    wait(page, f"{IDLE} && talk.length === 4")
    assert roles() == "user assistant user assistant" and not page.execute_script(f"return {box}")
    page.execute_script("talk.push({role: 'user', content: 'Why?'}); keep()")  # left meanwhile
    page.refresh()
    assert wait(page, box) == "Why?" and roles() == "user assistant user assistant"


def test_it_is_answered_again_and_kept_when_reloaded(page: Any) -> None:
    ask(page, "Tell me a story about a bear.")
    wait(page, ANSWERED)
    said = one(page, "article.assistant .words").text
    one(page, "#again").click()
    wait(page, ANSWERED)
    assert one(page, "article.assistant .words").text == said
    page.refresh()
    wait(page, ANSWERED)
    assert one(page, "article.assistant .words").text == said
    assert one(page, "article.user").text == "Tell me a story about a bear."
    page.find_element("css selector", "#clear").click()
    assert not page.find_elements("css selector", "article")


def test_both_ways_are_shown_side_by_side(page: Any) -> None:
    page.execute_script(
        "document.getElementById('tokens').value = 40;"
        "document.getElementById('speculative').value = 'on';"
        "talk.push({role: 'user', content: 'Hi'}, {role: 'assistant', content: 'Hello'});"
        "const ask = fetch; window.fetch = (where, how) => { "
        "window.asked = JSON.parse(how.body).messages.map((one) => one.role).join(' '); "
        "return ask(where, how); }"
    )
    one(page, "#question").send_keys("Tell me a story about a cat.")
    one(page, "#compare").click()
    wait(page, f"{IDLE} && document.querySelector('#both > p')")
    speeds = [found.text for found in page.find_elements("css selector", "#both .speed")]
    assert len(speeds) == 2 and all(speed.endswith("tokens/s") for speed in speeds)
    assert "times the speed, the same text" in one(page, "#both > p").text
    assert len(page.find_elements("css selector", "#both svg.chart")) == 1
    assert page.execute_script("return window.asked") == "user assistant user"


def test_a_conversation_is_copied_and_exported(page: Any) -> None:
    ask(page, "Tell me a story about a dog.", 12)
    wait(page, ANSWERED)
    page.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => "
        "{ window.copied = text; }}, configurable: true})"
    )
    one(page, "article.assistant .foot button").click()
    copied = wait(page, "window.copied")
    assert copied.split() == one(page, "article.assistant .words").text.split()
    one(page, "#export").click()
    file = Path(page.profile) / "conversation.json"
    until = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    messages = json.loads(file.read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]


MARKDOWN = """# Head *one*
A **strong `word`** and [a link](https://example.test/x), no [trap](javascript:alert(1)).
<img src=x onerror=alert(1)> & more

- one
- two
1. first

> said

```python
def f(x):  # a comment
    return "<b>" + 12
```

| a | b |
|---|---|
| 1 | 2 |
"""


def rendered(page: Any, text: str) -> str:
    script = (
        "const words = new Words(); words.add(arguments[0], false); "
        "const node = document.createElement('div'); words.render(node); return node.innerHTML"
    )
    return str(page.execute_script(script, text))


def test_markdown_is_drawn_and_nothing_of_it_runs(page: Any) -> None:
    html = rendered(page, MARKDOWN)
    for part in (
        "<h3>Head <em>one</em></h3>", "<strong>strong <code>word</code></strong>",
        '<a href="https://example.test/x"', "<ul><li>one</li><li>two</li></ul>",
        "<ol start=\"1\"><li>first</li></ol>", "<blockquote><div>said</div></blockquote>",
        '<span class="w">def</span> f(x):  <span class="c"># a comment</span>',
        '<span class="s">"&lt;b&gt;"</span> + <span class="n">12</span>',
        "<th>a </th><th> b</th>", "<td>1 </td><td> 2</td>",
        "&lt;img src=x onerror=alert(1)&gt; &amp; more", "[trap](javascript:alert(1))",
    ):  # fmt: skip
        assert part in html, part
    assert "<img" not in html and "<script" not in html


def test_any_text_is_drawn_letter_by_letter(page: Any) -> None:
    """As it comes in a stream, whatever is cut; letters are neither lost nor made up."""
    script = (
        "const words = new Words(), node = document.createElement('div');"
        "for (const letter of arguments[0]) { words.add(letter, true); words.render(node); }"
        "return node.textContent"
    )
    plain = "a <b> & 'c' _d e_f *g h ``` i | j\n  k"
    assert page.execute_script(script, plain) == plain.replace("\n", "")
    assert page.execute_script(script, MARKDOWN)


def test_the_policy_lets_nothing_else_in(server: Server) -> None:
    found = call(server.url, "/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for name in ("page.css", "page.js"):
        assert f'"{name}"' in found.data.decode()
        assert call(server.url, f"/{name}").status == 200
    assert b"http://" not in found.data and b"https://" not in found.data


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_dark_and_light_are_both_readable(page: Any, scheme: str) -> None:
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, paper = (brightness(text) for text in page.execute_script(script))
    assert (ink > paper) == (scheme == "dark") and abs(ink - paper) > 150


MOST_BYTES = 150_000
PNG = b"\x89PNG\r\n"


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_pictures_are_taken_of_it(page: Any, scheme: str, tmp_path: Path) -> None:
    """Those of the documentation, in the folder that EDGESPEC_PICTURES names, if it does."""
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    page.execute_script("document.getElementById('speculative').value = 'on'")
    ask(page, "Tell me a story about a little fox.")
    wait(page, ANSWERED)
    folder = Path(os.environ.get("EDGESPEC_PICTURES") or tmp_path)
    file = folder / f"page-{scheme}.png"
    page.save_screenshot(str(file))
    data = file.read_bytes()
    assert data.startswith(PNG) and 5_000 < len(data) <= MOST_BYTES
    assert int.from_bytes(data[16:20], "big") == 360


def brightness(colour: str) -> float:
    """The mean of an rgb(r, g, b)."""
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")][:3]
    return sum(numbers) / 3


def test_a_key_is_asked_for_where_one_is_needed(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.serve(speculative="off", threads=1, api_key="secret") as server:
        chromium.get(server.url)
        wait(chromium, "document.getElementById('notice').textContent.includes('API key')")
        field = one(chromium, "#key")
        field.send_keys("secret\t")
        wait(chromium, "document.getElementById('model').textContent === 'demo'")
        chromium.get("about:blank")
    chromium.get_log("browser")  # the refusal is told there
