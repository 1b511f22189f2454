"""From what is wrong to its node, its step and its line of code: with one click, and never in doubt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from support.browsing import Screen
from support.synthetic import write_trial

pytestmark = pytest.mark.browser
Open = Callable[..., Screen]


def test_one_click_shows_node_step_line_and_remedy(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).open("?trial=bugged")
    page = screen.page
    page.locator("#page-findings .card .top .link").first.click()
    expect(page.locator("#inspector .name")).to_have_text("subnet_out")
    expect(page.locator("#inspector .source code")).to_have_text("x = F.leaky_relu(x)")
    expect(page.locator("#step")).to_have_value("0")
    expect(page.locator("#findings .finding.here .remedy")).to_be_visible()
    expect(page.locator("#findings .finding.here .remedy")).to_contain_text("Leave the activation out")
    expect(page.locator("#findings .finding.here .line")).to_contain_text("x = F.leaky_relu(x)")
    box = page.locator('#graph .box[data-node="subnet_out"]')
    expect(box.locator(".badge")).to_have_count(1)
    expect(box).to_have_class("box type-calculated main troubled selected near")
    box.hover()
    expect(page.locator("#graph .tip .found")).to_contain_text("can never reach its targets")
    screen.select("loss")
    expect(page.locator("#findings .finding.here")).to_have_count(0)
    expect(page.locator("#findings .remedy").first).to_be_hidden()


def test_another_trials_findings_leave_no_mark(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).inspect("?trial=bugged")
    expect(screen.page.locator("#graph .badge").first).to_be_visible()
    screen.choose("trial", "fixed")
    expect(screen.page.locator("#graph .badge")).to_have_count(0)


SEE = """button => {
  window.said = "";
  new MutationObserver(() => (window.said += button.textContent)).observe(button, { childList: true, subtree: true });
}"""
"""Remembers whatever a button says from now on."""


def test_the_line_is_copied_as_editors_take_it(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo)
    screen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    screen.open("?trial=bugged").settle()
    screen.page.bring_to_front()  # a page without the focus has no clipboard
    place = screen.page.locator("#page-findings .card .place").first
    place.evaluate(SEE)  # it says so for a second, which a busy machine may not look at
    place.click()
    screen.until("window.said.includes('copied ')")
    copied = screen.page.evaluate("navigator.clipboard.readText()")
    file, _, line = copied.rpartition(":")
    assert Path(file).read_text().splitlines()[int(line) - 1].strip() == "x = F.leaky_relu(x)"
    expect(place).to_contain_text(" in forward")


def test_what_ended_the_training_comes_first(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).open("?trial=sick")
    first = screen.page.locator("#page-findings section").first
    expect(first).to_contain_text("this ended the training")
    first.get_by_text("the whole traceback").click()
    expect(screen.page.locator("#page-notes .traceback")).to_contain_text("Traceback")


def test_a_heat_map_of_many_nodes_is_scrolled_and_not_squeezed(tmp_path: Path, screen_of: Open) -> None:
    write_trial(tmp_path / "group", trial="deep", steps=4, blocks=6)
    screen = screen_of(tmp_path / "group").open("?view=steps&mode=heat").settle()
    page = screen.page
    page.locator("#steps-chart .ytick text").first.wait_for()
    tops = page.eval_on_selector_all("#steps-chart .ytick text", "all => all.map(t => t.getBoundingClientRect().top)")
    assert len(tops) > 100 and min(b - a for a, b in zip(sorted(tops), sorted(tops)[1:], strict=False)) > 11
    screen.page.locator("#mode").get_by_text("lines").click()
    frame = "document.querySelector('#page-steps .chart-page')"
    screen.until(f"{frame}.scrollHeight - {frame}.clientHeight < 20")


def test_a_spike_does_not_flatten_the_other_curves(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).open("?trial=bugged&view=steps").settle()
    kind = "document.querySelector('#steps-chart .js-plotly-plot').layout.yaxis.type"
    for choice, shown in (("log", "log"), ("linear", None)):
        screen.page.locator("#log").get_by_text(choice, exact=True).click()
        screen.settle()
        assert (screen.page.evaluate(kind) or "linear") == (shown or "linear")
    assert "log=0" in screen.page.url
    screen.page.locator("#log").get_by_text("auto", exact=True).click()
    screen.settle()
    assert "log=" not in screen.page.url


def test_a_key_walks_from_finding_to_finding(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=sick")
    entries = screen.page.locator("#findings .finding")
    entries.first.wait_for()
    assert entries.count() > 1
    for place in (0, 1):
        screen.page.keyboard.press("f")
        node = entries.nth(place).get_attribute("data-act") or ""
        expect(screen.page.locator("#inspector .name, #inspector .hint h3")).to_have_text(node or "Nothing selected")


def test_where_two_trials_part_stands_beside_the_network(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).inspect("?trial=bugged&compare=fixed&step=100")
    link = screen.page.locator("#findings .parted .link")
    name = link.inner_text()
    link.click()
    expect(screen.page.locator("#inspector .name")).to_have_text(name)
    expect(screen.page.locator("#step")).to_have_value("0")


def test_a_curve_of_the_evidence_leads_to_its_place(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).open("?trial=bugged")
    screen.page.locator("#page-findings .chart-small .link", has_text="target, min").click()
    expect(screen.page.locator("#inspector .name")).to_have_text("target")
    expect(screen.page.locator("#inspector .stat.chosen")).to_have_text("min")
