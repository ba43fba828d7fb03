"""The chat page in headless Chromium: what it does with the service, and how its states look.

`UPDATE_SCREENSHOTS=1 pytest tests/unit/serving/test_page.py` writes the pictures anew; look at them.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import ANSWER, QUESTION, TRACE, Live
from PIL import Image, ImageChops, ImageFilter, ImageStat
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = Path(__file__).parents[2] / "data" / "page"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

# Stands in for the service and the clock where a picture is to show one moment of an answer.
STUB = """
window.clock = 1000; performance.now = () => window.clock;
const encoder = new TextEncoder();
const line = event => encoder.encode("data: " + JSON.stringify(event) + "\\n\\n");
window.feed = (...events) => events.forEach(event => window.pipe.enqueue(line(event)));
window.finish = () => { window.pipe.enqueue(encoder.encode("data: [DONE]\\n\\n")); window.pipe.close(); };
window.fetch = async (path, options) => {
  if (path.endsWith("/models")) return Response.json({ data: [{ id: "llama3_8b-reasoning" }] });
  window.asked = JSON.parse(options.body);
  if (window.refusal) return Response.json({ error: { message: window.refusal } }, { status: 429 });
  const stop = () => window.pipe.error(new DOMException("stopped", "AbortError"));
  options.signal.addEventListener("abort", stop);
  return new Response(new ReadableStream({ start: pipe => { window.pipe = pipe; } }));
};
"""
RICH = r"""The **area** is $\pi r^2$, so with *r* = 3:

$$A = \pi \cdot 3^2 = 9\pi \approx 28.27$$

\[ x_{1,2} = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}, \quad \sum_{i=1}^{n} i = \frac{n(n+1)}{2} \]

## Steps
1. Square: `3 * 3`
2. Multiply
- it costs $5 or $6
- \(\boxed{\sqrt[3]{27} = 3}\)

```python
def area(r):
    return 3.14159 * r**2  # <b>plain</b>
```
Done <img src=x onerror="document.title='broken'">"""

MATHS = r"""Two unknowns:
$$\begin{aligned} x + y &= 5 \\ 2x - y &= 1 \end{aligned}$$
\[ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \cdot v,
\quad f(x) = \begin{cases} x^2 & x < 0 \\ 1 & \text{else} \end{cases} \]
So $\displaystyle a \lt b$ and \(\begin{bmatrix} 1 \\ 2 \end{bmatrix}\), and cut off \(\begin{aligned} x &= 2\)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, live: Live) -> Iterator[Page]:
    """Return the page of the running service; errors on it and requests to elsewhere fail the test."""
    page = browser.new_page(viewport={"width": 900, "height": 640})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(live.url) else None)
    page.goto(live.url)
    expect(page.locator("#model option")).to_have_count(1)
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def stubbed(browser: Browser, live: Live) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 900, "height": 640})
    page.add_init_script(STUB)
    page.goto(live.url)
    expect(page.locator("#model option")).to_have_count(1)
    yield page
    page.close()


def ask(page: Page, text: str = QUESTION) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def feed(page: Page, *deltas: dict[str, str], usage: tuple[int, int] | None = None, seconds: float = 0) -> None:
    events: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    if usage:
        counts = {"completion_tokens": usage[0], "completion_tokens_details": {"reasoning_tokens": usage[1]}}
        events.append({"choices": [], "usage": counts})
    page.evaluate(f"() => {{ window.clock += {seconds * 1000}; feed(...{json.dumps(events)}); }}")
    if usage:
        page.evaluate("() => window.finish()")
        expect(page.get_by_role("button", name="Send")).to_be_visible()


def same_picture(page: Page, name: str, folder: Path) -> None:
    """Compare with the picture kept, but for the edges of letters, which differ from font to font."""
    kept, found = PICTURES / f"{name}.png", folder / f"{name}.png"
    page.screenshot(path=found, animations="disabled")
    if os.environ.get("UPDATE_SCREENSHOTS"):
        shutil.copy(found, kept)
    first, second = (Image.open(path).convert("RGB").filter(ImageFilter.BoxBlur(6)) for path in (kept, found))
    assert first.size == second.size
    difference = ImageChops.difference(first, second)
    assert max(ImageStat.Stat(difference).mean) < 1.5, f"{found} differs from {kept}"


def test_a_chat_streams_collapses_its_thinking_and_counts(page: Page) -> None:
    ask(page)
    answer = page.locator(".answer").last
    expect(answer).to_have_text(ANSWER)
    thinking = page.locator("details")
    expect(thinking).not_to_have_attribute("open", "")
    expect(page.locator(".stats")).to_contain_text("13 of thinking")
    thinking.locator("summary").click()
    expect(page.locator(".thought")).to_be_visible()
    expect(page.locator(".thought")).to_have_text(TRACE)


def test_the_switch_and_the_slider_reach_the_model(page: Page) -> None:
    page.get_by_role("switch", name="Thinking").uncheck()
    expect(page.locator("#amount")).to_have_text("off")
    expect(page.locator("#budget")).to_be_disabled()
    ask(page)
    expect(page.locator(".answer").last).to_have_text("It is 43.")
    page.keyboard.press("Alt+t")
    expect(page.locator("#amount")).to_have_text("no limit")
    for _ in range(10):
        page.locator("#budget").press("ArrowLeft")
    expect(page.locator("#amount")).to_have_text("16 tokens")


def test_the_page_works_from_the_keyboard(stubbed: Page) -> None:
    expect(stubbed.get_by_label("Message")).to_be_focused()
    stubbed.keyboard.type("one")
    stubbed.keyboard.press("Shift+Enter")
    stubbed.keyboard.type("two")
    stubbed.keyboard.press("Enter")
    expect(stubbed.get_by_role("button", name="Stop")).to_be_visible()
    feed(stubbed, {"reasoning": "hm"}, {"content": "three"})
    expect(stubbed.locator(".answer")).to_have_text("three")
    stubbed.keyboard.press("Escape")
    expect(stubbed.locator(".stats")).to_have_text("stopped")
    stubbed.keyboard.type("four")
    stubbed.keyboard.press("Enter")
    expect(stubbed.get_by_role("button", name="Stop")).to_be_visible()
    asked = stubbed.evaluate("() => window.asked")
    assert [turn["content"] for turn in asked["messages"]] == ["one\ntwo", "three", "four"]
    assert asked["chat_template_kwargs"] == {"enable_thinking": True}
    assert "thinking_token_budget" not in asked
    stubbed.keyboard.press("Alt+n")
    expect(stubbed.locator(".turn")).to_have_count(0)


def test_a_new_chat_forgets_what_was_being_said(stubbed: Page) -> None:
    ask(stubbed, "one")
    feed(stubbed, {"content": "two"})
    expect(stubbed.locator(".answer")).to_have_text("two")
    stubbed.get_by_role("button", name="New chat").click()
    expect(stubbed.get_by_role("button", name="Send")).to_be_visible()
    ask(stubbed, "three")
    feed(stubbed, {"content": "four"}, usage=(4, 0))
    assert [turn["content"] for turn in stubbed.evaluate("() => window.asked.messages")] == ["three"]
    assert [turn["content"] for turn in stubbed.evaluate("() => turns")] == ["three", "four"]


def test_what_is_stopped_while_it_thinks_says_so(stubbed: Page) -> None:
    ask(stubbed, "one")
    feed(stubbed, {"reasoning": "hm"}, seconds=2)
    expect(stubbed.locator("article")).to_have_attribute("aria-busy", "true")
    stubbed.keyboard.press("Escape")
    expect(stubbed.locator(".stats")).to_have_text("stopped")
    expect(stubbed.locator("summary")).to_have_text("Thought for 2.0 s")
    expect(stubbed.locator("article")).to_have_attribute("aria-busy", "false")


def test_every_control_has_a_name_and_is_reached_by_tab(stubbed: Page) -> None:
    names = []
    for _ in range(6):
        stubbed.keyboard.press("Shift+Tab")
        names.append(stubbed.evaluate("() => document.activeElement.id"))
    assert names == ["budget", "think", "model", "fresh", "", "send"]  # "" is the browser's own bar
    ask(stubbed, "one")
    feed(stubbed, {"content": "two"}, usage=(1, 0))
    expect(stubbed.get_by_role("combobox", name="Earlier chats")).to_be_enabled()
    expect(stubbed.get_by_role("button", name="Forget")).to_be_enabled()
    for role, name in [("slider", "Most tokens of thinking"), ("switch", "Thinking"), ("combobox", "Model")]:
        expect(stubbed.get_by_role(role, name=name)).to_have_count(1)  # type: ignore[arg-type]
    expect(stubbed.get_by_role("slider")).to_have_attribute("aria-valuetext", "no limit")


def test_maths_in_rows_and_columns(stubbed: Page, tmp_path: Path) -> None:
    ask(stubbed, "Solve")
    feed(stubbed, {"content": MATHS}, usage=(60, 0), seconds=1)
    shapes = [
        [row.locator("> mtd").count() for row in table.locator("> mtr").all()]
        for table in stubbed.locator("mtable").all()
    ]
    assert shapes == [[2, 2], [2, 2], [2, 2], [1, 1], [2]]
    expect(stubbed.locator(".answer")).not_to_contain_text("\\")
    same_picture(stubbed, "maths", tmp_path)


def test_an_error_gives_the_question_back(stubbed: Page, tmp_path: Path) -> None:
    ask(stubbed, "How?")
    feed(stubbed, {"content": "So.\n\n" * 30}, usage=(30, 0), seconds=1)
    stubbed.evaluate("() => { window.refusal = 'all 3 places are taken; ask again in 7 s'; }")
    ask(stubbed, "Why?")
    expect(stubbed.locator(".stats.wrong")).to_have_text("all 3 places are taken; ask again in 7 s")
    expect(stubbed.get_by_role("alert")).to_be_in_viewport()
    expect(stubbed.get_by_label("Message")).to_have_value("Why?")
    same_picture(stubbed, "error", tmp_path)


def test_what_a_model_writes_is_rendered_and_never_run(stubbed: Page, tmp_path: Path) -> None:
    ask(stubbed, "What is the area?")
    feed(
        stubbed, *({"content": RICH[start : start + 7]} for start in range(0, len(RICH), 7)), usage=(120, 0), seconds=2
    )
    answer = stubbed.locator(".answer")
    expect(answer.locator("math")).to_have_count(4)
    expect(answer.locator("mfrac")).to_have_count(2)
    expect(answer.locator("munderover")).to_have_count(1)
    expect(answer.locator("pre code")).to_have_text("def area(r):\n    return 3.14159 * r**2  # <b>plain</b>")
    expect(answer.locator("li")).to_have_count(4)
    expect(answer.locator("img, b")).to_have_count(0)
    expect(answer).to_contain_text("it costs $5 or $6")
    expect(stubbed).to_have_title("Reasoning chat")
    same_picture(stubbed, "rendered", tmp_path)


def test_the_states_look_as_they_did(stubbed: Page, tmp_path: Path) -> None:
    same_picture(stubbed, "empty", tmp_path)
    ask(stubbed, "What is 47 times 8?")
    feed(stubbed, {"reasoning": "40 * 8 = 320\n7 * 8 = 56"}, seconds=1)
    expect(stubbed.locator(".stats")).to_have_text("1.0 s")
    same_picture(stubbed, "thinking", tmp_path)
    feed(stubbed, {"reasoning": "\n320 + 56 = 376"}, {"content": "The answer is 376."}, seconds=1)
    feed(stubbed, usage=(63, 46), seconds=1)
    expect(stubbed.locator(".stats")).to_have_text("63 tokens, 46 of thinking, 3.0 s, 21 tokens/s")
    expect(stubbed.locator("summary")).to_have_text("Thought for 2.0 s")
    same_picture(stubbed, "answered", tmp_path)


def test_a_phone_in_the_dark(stubbed: Page, tmp_path: Path) -> None:
    stubbed.set_viewport_size({"width": 360, "height": 640})
    stubbed.emulate_media(color_scheme="dark")
    ask(stubbed, "What is the area of a circle with a radius of three?")
    feed(stubbed, {"reasoning": "short"}, {"content": RICH}, usage=(120, 3), seconds=2)
    assert stubbed.locator("html").evaluate("page => page.scrollWidth") == 360
    same_picture(stubbed, "phone", tmp_path)


def test_a_switch_in_a_message_is_left_to_the_service(page: Page) -> None:
    ask(page, f"{QUESTION} /no_think")
    expect(page.locator(".answer").last).to_have_text("It is 43.")
    expect(page.locator("details")).to_be_hidden()
    page.get_by_role("switch", name="Thinking").uncheck()
    page.get_by_role("button", name="New chat").click()
    ask(page, f"/think {QUESTION}")
    expect(page.locator(".answer").last).to_have_text(ANSWER)


def test_a_stream_that_ends_early_is_shown_as_cut(stubbed: Page) -> None:
    ask(stubbed, "one")
    feed(stubbed, {"content": "half an ans"})
    stubbed.evaluate("() => window.pipe.close()")
    expect(stubbed.locator(".stats.wrong")).to_contain_text("cut")
    expect(stubbed.locator(".answer")).to_have_text("half an ans")
    stubbed.get_by_role("button", name="Retry").click()
    feed(stubbed, {"content": "whole"}, usage=(1, 0))
    expect(stubbed.locator(".answer")).to_have_text("whole")
    assert [turn["content"] for turn in stubbed.evaluate("() => window.asked.messages")] == ["one"]
    assert [turn["content"] for turn in stubbed.evaluate("() => turns")] == ["one", "whole"]


def test_chats_are_kept_by_the_browser_until_they_are_forgotten(stubbed: Page) -> None:
    for question, answer in (("one", "**two**"), ("three", "four")):
        ask(stubbed, question)
        feed(stubbed, {"reasoning": "hm"}, {"content": answer}, usage=(2, 1))
        stubbed.get_by_role("button", name="New chat").click()
    stubbed.reload()
    chats = stubbed.get_by_label("Earlier chats")
    expect(chats.locator("option")).to_have_text(["Earlier chats", "three", "one"])
    chats.select_option("one")
    expect(stubbed.locator(".answer strong")).to_have_text("two")
    expect(stubbed.locator(".thought")).to_have_text("hm")
    ask(stubbed, "five")
    feed(stubbed, {"content": "six"}, usage=(1, 0))
    sent = stubbed.evaluate("() => window.asked.messages")
    assert sent == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "**two**"},
        {"role": "user", "content": "five"},
    ]
    stubbed.get_by_role("button", name="Forget").click()
    expect(chats.locator("option")).to_have_text(["Earlier chats", "three"])
    assert "one" not in stubbed.evaluate("() => localStorage.getItem('nemo-reasoning-chats')")


def test_an_answer_is_copied_as_it_was_written(stubbed: Page) -> None:
    stubbed.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(stubbed, "one")
    feed(stubbed, {"content": "**two** and `x`"}, usage=(2, 1))
    stubbed.get_by_role("button", name="Copy").click()
    expect(stubbed.get_by_role("button", name="Copied")).to_be_visible()
    assert stubbed.evaluate("() => navigator.clipboard.readText()") == "**two** and `x`"


def test_markdown_of_every_kind_is_built_without_html(stubbed: Page, tmp_path: Path) -> None:
    ask(stubbed, "Show me")
    text = (
        "| a | b |\n|---|--:|\n| 1 | $x^2$ |\n\n> quoted *words*\n\n- [x] done\n- one\n  - nested `code`\n\n"
        "[good](https://example.org/?a=1&b=2) [bad](javascript:alert(1)) ![img](https://example.org/x.png)\n\n"
        "<script>document.title='broken'</script> <b onclick=x>bold</b> a &lt; b ~~gone~~\n\n***\nlast"
    )
    feed(stubbed, {"content": text}, usage=(9, 0), seconds=1)
    answer = stubbed.locator(".answer")
    expect(answer.locator("td")).to_have_count(2)
    expect(answer.locator("td math")).to_have_count(1)
    expect(answer.locator("blockquote em")).to_have_text("words")
    expect(answer.locator("li li code")).to_have_text("code")
    expect(answer.locator("a")).to_have_count(1)
    expect(answer.locator("a")).to_have_attribute("href", "https://example.org/?a=1&b=2")
    expect(answer.locator("script, b, img, [onclick]")).to_have_count(0)
    expect(answer).to_contain_text("<b onclick=x>bold</b> a < b")
    expect(stubbed).to_have_title("Reasoning chat")
    same_picture(stubbed, "markdown", tmp_path)
