"""What the chat page keeps, copies, tries again and renders, in headless Chromium."""

from pathlib import Path

import pytest
from chromium import CHROMIUM, ask, browser, feed, page, same_picture, stubbed
from live import ANSWER, QUESTION
from playwright.sync_api import Page, expect

__all__ = ["browser", "page", "stubbed"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


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
    expect(answer).to_contain_text("good bad ![img](https://example.org/x.png)")
    expect(answer).to_contain_text("<b onclick=x>bold</b> a < b gone")
    expect(stubbed).to_have_title("Reasoning chat")
    same_picture(stubbed, "markdown", tmp_path)
