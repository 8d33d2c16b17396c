"""The page in a real browser, headless."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WAIT_S = 60

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,860"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    browser.get(server.url)
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#model option[value=demo]"))
    return browser


def until(browser, is_true):
    return WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(lambda _: is_true())


def ask(page, text):
    page.find_element(By.ID, "question").send_keys(text, Keys.ENTER)


def answers(page):
    return page.find_elements(By.CSS_SELECTOR, "article.theirs")


def is_done(page):
    return (
        page.find_element(By.ID, "status").get_attribute("textContent").startswith("The answer is complete")
    )


def test_a_question_is_answered_and_can_be_tried_again(page):
    ask(page, "Tell me a story about a fox.")
    until(page, lambda: is_done(page))
    (answer,) = answers(page)
    first = answer.find_element(By.CLASS_NAME, "body").text
    assert len(first) > 20
    assert "tokens/s" in answer.find_element(By.CLASS_NAME, "cost").text
    page.find_element(By.ID, "retry").click()
    until(page, lambda: len(answers(page)) == 1 and answers(page)[0] != answer)
    until(page, lambda: is_done(page))
    assert len(page.find_elements(By.CSS_SELECTOR, "article.mine")) == 1


def test_stopping_ends_the_answer_and_the_engine(page, server):
    page.execute_script(
        """const f = document.getElementById('settings').elements;
        f.temperature.value = 5; f.max_tokens.value = 1000;"""
    )
    ask(page, "Tell me everything.")
    until(page, lambda: answers(page) and answers(page)[-1].find_element(By.CLASS_NAME, "body").text)
    if page.find_element(By.ID, "stop").is_displayed():  # else it has ended by itself
        page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    until(page, lambda: page.find_element(By.ID, "send").is_displayed())
    until(page, lambda: server.app.answers.queue.num_running == 0)
    assert page.find_element(By.ID, "retry").is_enabled()


def test_a_failed_answer_says_why_and_is_out_of_the_way(page):
    longest = page.find_element(By.NAME, "max_tokens")
    page.execute_script("arguments[0].value = 99999", longest)
    ask(page, "Tell me of the fox.")
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, "article .error"))
    assert "maximum context length" in page.find_element(By.CLASS_NAME, "error").text
    page.execute_script("arguments[0].value = 5", longest)
    ask(page, "Tell me of the owl.")
    until(page, lambda: is_done(page))
    assert len(answers(page)) == 2
    cost = answers(page)[-1].find_element(By.CLASS_NAME, "cost").text
    assert "cut at the longest answer" in cost
    page.get_log("browser")  # the refusal is in it


def test_the_map_says_what_it_shows(page):
    until(page, lambda: "iB of" in page.find_element(By.ID, "memory-text").text)
    ask(page, "Tell me a story about a bear.")
    until(page, lambda: is_done(page))
    experts = page.find_element(By.ID, "map")  # which hears of the newest token a moment after it
    until(page, lambda: "24 experts were used" in experts.get_attribute("aria-label"))
    assert "6 layers" in experts.get_attribute("aria-label")
    rows = page.find_elements(By.CSS_SELECTOR, "#words tr")
    assert len(rows) == 6


def test_the_page_needs_nobody_else_and_says_no_error(page, server):
    urls = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert urls
    assert all(url.startswith(server.url) for url in urls)
    errors = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def test_what_a_model_writes_is_never_run(page):
    text = "<img src=x onerror=boom()> [x](javascript:boom()) `<b>` **bold**\n\n"
    text += "```html\n<script>boom()</script>\n```"
    page.execute_async_script(
        """const [text, done] = arguments;
        import('/page/markdown.js').then(({ render }) => {
          const into = document.createElement('div'); into.id = 'trial'; document.body.append(into);
          render(text, into); done(); })""",
        text,
    )
    trial = page.find_element(By.ID, "trial")
    assert trial.find_elements(By.CSS_SELECTOR, "img, script, b, a") == []
    assert trial.find_element(By.TAG_NAME, "strong").text == "bold"
    assert trial.find_element(By.CSS_SELECTOR, "pre code").text == "<script>boom()</script>"


def test_everything_has_a_name_and_can_be_reached_by_keyboard(page):
    unnamed = page.execute_script(
        """return [...document.querySelectorAll('button, input, select, textarea, [role=img], meter')]
        .filter((e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label')
                         || e.getAttribute('aria-labelledby'))).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(40):
        page.switch_to.active_element.send_keys(Keys.TAB)
        element = page.switch_to.active_element
        reached.add(element.get_attribute("id") or element.get_attribute("name"))
    assert {"send", "new", "model", "temperature", "max_tokens", "question"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page, scheme):
    """WCAG's contrast of 4.5 for the colours that text and its grounds have."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    names = ["page", "card", "mine", "code", "text", "soft", "error", "main", "on-main"]
    colours = dict(
        zip(
            names,
            page.execute_script(
                """const style = getComputedStyle(document.documentElement);
                return arguments[0].map((n) => style.getPropertyValue('--' + n).trim())""",
                names,
            ),
            strict=True,
        )
    )

    def light(name):
        parts = (int(colours[name][i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    pairs = [(t, g) for t in ("text", "soft") for g in ("page", "card", "mine")]
    for text, ground in [
        *pairs,
        ("text", "code"),
        ("soft", "code"),
        ("error", "page"),
        ("main", "page"),
        ("on-main", "main"),
    ]:
        darker, lighter = sorted((light(text), light(ground)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)
