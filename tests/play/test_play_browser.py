"""The pages in a real browser: Chromium without a window, driven by Selenium; skipped where these are not installed."""

import contextlib
import json
import shutil
import time

import pytest

import fastscalar as fs
from fastscalar.play.graphs import Graphs
from fastscalar.play.page import Page
from fastscalar.play.room import Room
from fastscalar.play.samples import Samples
from fastscalar.play.training import Trainer

webdriver = pytest.importorskip("selenium.webdriver", reason="no Selenium: pip install selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no browser: chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page():
    (X, y), (X_test, y_test) = fs.datasets.synthetic_digits(2000, 200)
    X, X_test = X.reshape(-1, 784) / 255, X_test.reshape(-1, 784) / 255
    samples = Samples(X, y, X_test, y_test, "synthetic digits", "NOT MNIST")
    trainer = Trainer(fs.MLP(784, [16, 10], seed=0), samples, fs.cross_entropy)
    with Page(Room(Graphs(), trainer)) as page:
        trainer.epoch(3)
        yield page


@pytest.fixture
def opened(browser, page):
    """The page, fresh; afterwards: no error in the console, and no request that left this machine."""
    with contextlib.suppress(Exception):
        browser.execute_script("localStorage.clear()")
    browser.get_log("browser")
    browser.get_log("performance")
    size(browser, 1280)
    browser.get(page.url)
    until(browser, "return document.documentElement.dataset.ready")
    yield browser
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "ERROR")]
    assert not errors
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith((page.url, "data:", "file:", "chrome:", "about:", "devtools:")), url


def size(browser, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500})


def until(browser, script, seconds=20):
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(script)):
        assert time.monotonic() < end, script
        time.sleep(0.05)
    return value


def click(browser, name):
    browser.find_element("id", name).click()


def text(browser, name):
    return browser.find_element("id", name).text


def draw(browser):
    from selenium.webdriver.common.action_chains import ActionChains

    paper = browser.find_element("id", "paper")
    steps = ActionChains(browser, duration=10).move_to_element_with_offset(paper, 0, -90).click_and_hold()
    steps.move_to_element_with_offset(paper, 0, 0).move_to_element_with_offset(paper, 0, 90).release().perform()


def test_a_digit_is_read_and_taught(opened):
    assert "NOT MNIST" in text(opened, "note")
    draw(opened)
    until(opened, "return Draw.answer && !Draw.answer.empty && !Draw.busy")
    chances = opened.execute_script("return Draw.answer.chances")
    assert chances[1] == max(chances)
    assert opened.execute_script("return document.querySelectorAll('#bars .best').length") == 1
    before = chances[7]
    opened.find_element("css selector", "#labels button:nth-child(8)").click()
    until(opened, "return document.getElementById('taught').textContent.length > 10")
    assert opened.execute_script("return Draw.answer.chances[7]") > before
    click(opened, "clear")
    until(opened, "return Draw.answer.empty")


def test_a_digit_is_drawn_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    paper = opened.find_element("id", "paper")
    paper.send_keys(Keys.ARROW_UP * 9 + " " + Keys.ARROW_DOWN * 18 + " ")
    until(opened, "return Draw.answer && !Draw.answer.empty && !Draw.busy")
    assert opened.execute_script("return Draw.answer.best") == 1
    paper.send_keys(Keys.DELETE)
    until(opened, "return Draw.answer.empty")


def test_training_is_steered(opened):
    from selenium.webdriver.common.keys import Keys

    click(opened, "tab-train")
    before = until(opened, "return Train.now && Train.now.samples")
    click(opened, "run")
    until(opened, f"return Train.now.state === 'running' && Train.now.samples > {before + 100}")
    rate = opened.find_element("id", "lr")
    rate.send_keys(Keys.CONTROL + "a")
    rate.send_keys("0.005\t")
    until(opened, "return Train.now.settings.lr === 0.005")
    until(opened, "return document.getElementById('weights').width > 100")
    click(opened, "run")
    until(opened, "return Train.now.state === 'paused'")
    rate.send_keys(Keys.CONTROL + "a")
    rate.send_keys("-3\t")
    until(opened, "return document.getElementById('trouble').textContent.length > 5")
    until(opened, "return document.getElementById('lr').value === '0.005'")
    click(opened, "look")
    until(opened, "return document.getElementById('wrong').textContent.length > 5")


def test_a_graph_is_played_and_gone_through_by_hand(opened):
    click(opened, "tour-open")
    until(opened, "return Graph.hand !== null && Graph.key === 'hand'")
    click(opened, "tour-next")
    until(opened, "return Graph.hand !== null && Graph.key === 'diamond'")
    for order, expected in (("zxy", "4"), ("zyx", None)):
        opened.execute_script("Graph.byHand(true)")
        for name in order:
            opened.execute_script(f"Graph.click(Graph.drawing.boxes.find((b) => b.label === '{name}'))")
        said = text(opened, "doing")
        assert ("a.grad 4" in said) if expected else ("every gradient is right" in said), said
    click(opened, "tour-close")
    click(opened, "first")
    assert opened.execute_script("return Graph.position") == 0
    click(opened, "following")
    assert "x = a * a" in text(opened, "doing")
    click(opened, "play")
    until(opened, "return Graph.position === Graph.steps()")


def test_of_two_graphs_the_one_asked_for_last_is_shown(opened):
    """Whichever answer comes first."""
    click(opened, "tab-graph")
    until(opened, "return Graph.drawing !== null")
    for order in ((100, 0), (0, 100)):
        opened.execute_script("""
            const answers = { hand: arguments[0], neuron: arguments[1] }, before = ask;
            ask = async (name, message) => {
              const answer = await before(name, message);
              await new Promise((done) => setTimeout(done, answers[message.graph]));
              return answer;
            };
            window.both = Promise.all([Graph.load('hand'), Graph.load('neuron')]).then(() => { ask = before; });
        """, *order)
        opened.execute_async_script("window.both.then(arguments[0])")
        labels = opened.execute_script("return Graph.drawing.boxes.map((b) => b.label).sort().join('')")
        assert labels == "bwxy"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_fits_and_says_what_it_is(opened, width, language, theme):
    size(opened, width)
    if language == "zh":
        click(opened, "lang")
    opened.execute_script(f"document.documentElement.dataset.theme = '{theme}'; App.redraw.forEach((f) => f())")
    for view in ("draw", "train", "graph"):
        click(opened, f"tab-{view}")
        until(opened, f"return !document.getElementById('{view}').hidden")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width, view
        unnamed = opened.execute_script("""
            return [...document.querySelectorAll('button, input, select, canvas, a, svg[role], [role=tab]')]
              .filter((e) => e.checkVisibility() && e.getAttribute('aria-hidden') !== 'true')
              .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
                               || (e.labels && [...e.labels].some((l) => l.textContent.trim()))))
              .map((e) => e.outerHTML.slice(0, 80))""")
        assert not unnamed
    words = opened.find_element("tag name", "header").text
    assert ("计算图" in words) == (language == "zh")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(opened, width, theme):
    """The rules of WCAG that a machine can check, on every view."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="no axe: pip install axe-core-python").Axe()
    size(opened, width)
    opened.execute_script(f"document.documentElement.dataset.theme = '{theme}'; App.redraw.forEach((f) => f())")
    draw(opened)
    for view in ("draw", "train", "graph"):
        click(opened, f"tab-{view}")
        until(opened, f"return !document.getElementById('{view}').hidden")
        if view == "graph":
            click(opened, "tour-open")
            until(opened, "return Graph.drawing !== null")
        found = axe.run(opened, options={"resultTypes": ["violations"]})["violations"]
        assert not [(view, rule["id"], [node["html"][:120] for node in rule["nodes"][:3]]) for rule in found]


CONTRAST = """
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const luminance = (c) => c.map((v) => linear(v / 255))
      .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (a, b) => {
      const [x, y] = [luminance(rgb(a)), luminance(rgb(b))];
      return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    };
    return arguments[0].map(([a, b]) => [a, b, contrast(a, b)]).filter((row) => row[2] < 4.5);
"""
PAIRS = [["text", "ground"], ["text", "card"], ["dim", "card"], ["dim", "ground"], ["main", "card"],
         ["on-main", "main"], ["bad", "card"], ["text", "mark"], ["text", "leaf"], ["text", "scalar"], ["text", "wide"],
         ["text", "const"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_contrast(opened, theme):
    opened.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    assert opened.execute_script(CONTRAST, PAIRS) == []


def test_a_saved_page_works_without_a_server(browser, page, tmp_path):
    page.save(tmp_path / "page.html")
    browser.get_log("browser")
    browser.get((tmp_path / "page.html").as_uri())
    until(browser, "return document.documentElement.dataset.ready")
    until(browser, "return Train.points.length > 0")
    click(browser, "tab-graph")
    until(browser, "return Graph.drawing && Graph.drawing.boxes.length > 3")
    click(browser, "first")
    click(browser, "following")
    assert browser.execute_script("return Graph.position") == 1
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_large_graph_is_opened_and_left(browser):
    def f():
        x = fs.Tensor(1.0)
        for _ in range(500):
            x = x * 1.001
            x = x + 0.01
        return x

    with fs.play(f, open_browser=False, block=False) as page:
        browser.get(page.url)
        until(browser, "return Graph.drawing && Graph.drawing.folded")
        browser.execute_script("Graph.click(Graph.drawing.boxes.find((b) => b.op === '*'))")
        until(browser, "return Graph.group !== null")
        assert browser.execute_script("return Graph.drawing.boxes.length") > 50
        click(browser, "outer")
        until(browser, "return Graph.drawing.folded")
