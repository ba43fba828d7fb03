"""The chat page in headless Chromium, with the service or with a stub that shows one moment of an answer."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import QUESTION, Live
from PIL import Image, ImageChops, ImageFilter, ImageStat
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = Path(__file__).parents[2] / "data" / "page"

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
