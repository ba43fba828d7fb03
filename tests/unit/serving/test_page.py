"""The chat page in headless Chromium: what it does with the service, and how its states look.

`UPDATE_SCREENSHOTS=1 pytest tests/unit/serving/test_page.py` writes the pictures anew; look at them.
"""

from pathlib import Path

import pytest
from chromium import CHROMIUM, ask, browser, feed, page, same_picture, stubbed
from live import ANSWER, TRACE
from playwright.sync_api import Page, expect

__all__ = ["browser", "page", "stubbed"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
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
