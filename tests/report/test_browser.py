"""The page in a real browser: headless Chromium, driven from its command line.

A page is looked at by a script that is put into a copy of it; what the script finds is read from
the document that Chromium prints. This needs no driver, no package and no port.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from html import escape, unescape
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageStat

from kvharness.claims.judge import judge
from kvharness.report.page import page
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import Lab

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DARK = "--blink-settings=preferredColorScheme=0"
HOSTILE = "</script><img src=x onerror=alert(1)>"
#: Runs after the page's own script; `found` is what a test reads.
FRAME = """
window.addEventListener("load", () => {
  const found = {};
  try { (%s)(found); } catch (error) { found.error = String(error.stack); }
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
"""
HOST = """<!doctype html><body>
<iframe style="width:%dpx;height:900px;border:0" srcdoc="%s"></iframe>
<script>window.addEventListener("load", () => document.body.append(document.adoptNode(
  document.querySelector("iframe").contentDocument.getElementById("found"))))</script>"""

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome on PATH (apt-get install chromium)"
)


@dataclass(frozen=True)
class Browser:
    """Opens pages; each run has a profile of its own."""

    folder: Path

    def run(self, html: str, *options: str, width: int = 1200) -> subprocess.CompletedProcess[str]:
        file = self.folder / "page.html"
        file.write_bytes(html.encode("utf-8", "replace"))
        return subprocess.run(
            [
                str(BROWSER),
                "--headless=new",
                # CI is root in a container, where the sandbox cannot start.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-extensions",
                "--no-first-run",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={self.folder / 'profile'}",
                f"--window-size={width},900",
                "--virtual-time-budget=3000",
                *options,
                file.as_uri(),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=True,
        )

    def look(self, html: str, script: str, *options: str, width: int = 1200) -> dict[str, Any]:
        """What a function of ``found`` puts there."""
        looked = _with_script(html, FRAME % script)
        # The narrowest window is 500 pixels wide, so narrower pages stand in a frame.
        shown = looked if width >= 500 else HOST % (width, escape(looked))
        done = self.run(shown, "--dump-dom", *options, width=max(width, 500))
        match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
        assert match is not None, done.stdout[-2000:]
        found: dict[str, Any] = json.loads(unescape(match[1]))
        assert "error" not in found, found["error"]
        assert _console(done) == []
        return found


def _with_script(html: str, script: str) -> str:
    """The page's policy lets no other script run, so it is told of this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = html.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return allowed.replace("</body>", f"<script>{script}</script></body>")


def _console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)


@pytest.fixture(scope="module")
def html(lab: Lab) -> str:
    evidence = lab.evidence(lab.records())
    claims = [
        lab.claim(),
        lab.claim(id="gone", expect={"tiny": Verdict.REFUTED}),
        lab.claim(id="absent", policy="nobody"),
    ]
    return page(evidence, judge(claims, evidence), [lab.header])


def test_the_page_as_it_is_says_nothing_on_the_console(browser: Browser, html: str) -> None:
    done = browser.run(html, "--dump-dom")
    assert _console(done) == []
    assert "Every output, side by side" in done.stdout


def test_a_script_that_is_not_its_own_does_not_run(browser: Browser, html: str) -> None:
    foreign = html.replace("</body>", '<script>document.title = "taken"</script></body>')
    done = browser.run(foreign, "--dump-dom")
    assert "<title>taken" not in done.stdout
    assert any("Content Security Policy" in line for line in _console(done))


@pytest.fixture(scope="module")
def used(html: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one visit of the page finds, after some clicks."""
    return Browser(tmp_path_factory.mktemp("browser")).look(html, VISIT)


VISIT = """(found) => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const style = (selector) => getComputedStyle(one(selector));
  const size = (part) => part.getBoundingClientRect();
  all(".series").forEach((each) => { each.style.transition = "none"; });

  found.page = style("body").backgroundColor;
  found.line = style('#curves .panel.on [data-policy="h2o"] .line').stroke;

  const seen = (part) => part.checkVisibility() && size(part).width > 20 && size(part).height > 8;
  found.figures = {};
  for (const { dataset: { figure } } of all("[data-figure]").filter(seen))
    found.figures[figure] = (found.figures[figure] || 0) + 1;
  found.unnamed = all("svg[data-figure]")
    .filter((svg) => svg.getAttribute("role") !== "img" || !svg.getAttribute("aria-label")).length;
  found.lost = all("nav a").filter((a) => !one(`${a.getAttribute("href")} > h2`)).length;

  const shown = () => all("#forest .panel.on")
    .map(({ dataset }) => [dataset.metric, dataset.scope]);
  const press = (text) => all("#forest .switch button").find((b) => b.textContent === text).click();
  found.before = shown();
  press("qa");
  press("score");
  found.after = shown();
  found.pressed = all("#forest .switch button[aria-pressed=true]").map((b) => b.textContent);

  const opacity = (policy) => Number(style(`#evidence .series[data-policy="${policy}"]`).opacity);
  one('#curves [data-focus="h2o"]').click();
  found.focused = [opacity("h2o"), opacity("knorm")];
  found.focusPressed = one('#evidence [data-focus="h2o"]').getAttribute("aria-pressed");
  one('#evidence [data-focus="h2o"]').click();
  found.unfocused = [opacity("h2o"), opacity("knorm")];

  const tip = document.getElementById("tip");
  const over = (part, x) => part.dispatchEvent(
    new PointerEvent("pointerover", { bubbles: true, clientX: x, clientY: 300 }));
  over(one('#curves .panel.on [data-policy="keydiff"] .mark'), 1190);
  found.tip = [tip.textContent, tip.hidden, size(tip).right];
  over(document.body, 10);
  found.tipAfter = tip.hidden;
}"""


def test_every_figure_is_there_and_can_be_read(used: dict[str, Any]) -> None:
    # Three suites, two retentions; of the forests and matrices those of one metric and scope.
    assert used["figures"] == {
        "headroom": 3,
        "curves": 3,
        "forest": 2,
        "matrix": 2,
        "findings": 1,
        "scatter": 3,
        "costs": 1,
        "claim": 1,
    }
    assert used["unnamed"] == used["lost"] == 0


def test_panels_change_with_their_switches(used: dict[str, Any]) -> None:
    assert used["before"] == [["recovered", "all suites"]]
    assert used["after"] == [["score", "qa"]]
    assert used["pressed"] == ["score", "qa"]


def test_a_chosen_policy_stands_out_everywhere(used: dict[str, Any]) -> None:
    chosen, other = used["focused"]
    assert chosen == 1
    assert other < 0.5
    assert used["focusPressed"] == "true"
    assert used["unfocused"] == [1, 1]


def test_a_mark_says_what_it_stands_for(used: dict[str, Any]) -> None:
    text, hidden, right = used["tip"]
    assert re.fullmatch(r"keydiff, keep 0\.1: 0\.\d\d \[.*\], n = 24", text)
    assert (hidden, used["tipAfter"]) == (False, True)
    assert right <= 1200


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(browser: Browser, html: str, width: int) -> None:
    found = browser.look(
        html,
        """(found) => {
          document.querySelectorAll("details").forEach((each) => { each.open = true; });
          document.querySelectorAll(".panel").forEach((each) => each.classList.add("on"));
          found.window = window.innerWidth;
          found.page = document.documentElement.scrollWidth;
          const scrolls = (part) => part.closest(".scroll, nav ul");
          found.wide = [...document.querySelectorAll("main *, header *")]
            .filter((part) => !scrolls(part))
            .filter((part) => part.getBoundingClientRect().right > window.innerWidth + 1)
            .map((part) => part.outerHTML.slice(0, 80));
        }""",
        width=width,
    )
    assert found["window"] == width
    assert found["page"] <= width
    assert found["wide"] == []


EXPLORE = """(found) => {
  const box = document.getElementById("explorer");
  const form = box.querySelector("form").elements;
  const pick = (name, at) => {
    form[name].value = at;
    form[name].dispatchEvent(new Event("change"));
  };
  const rows = () => [...box.querySelectorAll(".outputs tbody tr")]
    .map((tr) => [...tr.children].map((cell) => cell.textContent));
  found.first = rows();
  pick("suite", 1); pick("retention", 1); pick("which", 5); pick("question", 2);
  found.second = rows();
  found.about = box.querySelector(".about").textContent;
  found.questions = form.question.length;
  found.marks = box.querySelectorAll(".outputs mark").length;
  box.querySelector('.map td[data-item="7"]').click();
  found.clicked = form.which.value;
  form.next.click();
  found.next = form.which.value;
  found.kept = form.question.value;
  const chosen = [...box.querySelectorAll(".map td.chosen")].map((td) => td.dataset.item);
  found.chosen = new Set(chosen).size;
  const count = (selector) => box.querySelectorAll(selector).length;
  found.map = [count(".map tr"), count(".map tr:first-child td")];
  found.images = document.images.length;
}"""


def test_the_item_explorer_follows_its_choices(browser: Browser, html: str, lab: Lab) -> None:
    found = browser.look(html, EXPLORE)
    first = {row[0]: row[1] for row in found["first"]}
    assert first["keydiff"] == "keydiff says 0"
    assert [row[0] for row in found["first"]][:3] == ["full", "floor", "oracle"]
    second = {row[0]: row[1:] for row in found["second"]}
    (record,) = [
        record
        for record in lab.records(["keydiff"], suites=["qa"], retentions=["0.5"])
        if record.item == "qa-s0-05"
    ]
    question = record.questions[2]
    text, exact, slots, nll, evidence = second["keydiff"]
    assert text == question.generated == "keydiff says 2"
    assert float(exact) == question.exact
    numbers = [question.slot_accuracy, question.nll, question.evidence_kept]
    assert [float(slots), float(nll), float(evidence)] == pytest.approx(numbers, abs=1e-3)
    assert "qa-s0-05, seed 0, single: 1024 tokens" in found["about"]
    assert (found["questions"], found["marks"], found["kept"]) == (4, 7, "2")
    assert (found["clicked"], found["next"], found["chosen"]) == ("7", "8", 1)
    assert found["map"] == [8, 24]


def test_hostile_outputs_are_only_text(browser: Browser, lab: Lab) -> None:
    records = [
        replace(
            record,
            policy={"snapkv": HOSTILE}.get(record.policy, record.policy),
            variant=HOSTILE,
            questions=tuple(replace(q, generated=HOSTILE) for q in record.questions),
        )
        for record in lab.records()
    ]
    claim = lab.claim(why=HOSTILE, source=HOSTILE)
    evidence = lab.evidence(records)
    found = browser.look(page(evidence, judge([claim], evidence), [lab.header]), EXPLORE)
    rows = {row[0]: row[1] for row in found["second"]}
    assert rows[HOSTILE] == rows["full"] == HOSTILE
    assert HOSTILE in found["about"]
    assert found["images"] == 0


def test_stores_that_lack_something(browser: Browser, lab: Lab) -> None:
    bare = lab.records(["h2o"], suites=["needle"], retentions=["0.5"], seeds=1, items=1)
    silent = "(found) => { found.hidden = document.getElementById('explorer').hidden; }"
    assert browser.look(page(lab.evidence(bare), [], []), silent) == {"hidden": False}
    assert browser.look(page(lab.empty(), [], []), silent) == {"hidden": True}


def test_dark(browser: Browser, html: str, used: dict[str, Any], tmp_path: Path) -> None:
    dark = browser.look(html, VISIT, DARK)
    assert dark["page"] != used["page"]
    assert dark["line"] != used["line"]
    assert dark["figures"] == used["figures"]
    browser.run(html, f"--screenshot={tmp_path / 'dark.png'}", DARK)
    with Image.open(tmp_path / "dark.png") as picture:
        assert ImageStat.Stat(picture.convert("L")).mean[0] < 60
