"""What people do in the dashboard, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from stepscope.store import open_trial
from stepscope.viewer.numbers import short
from support.browsing import Screen
from support.synthetic import Synthetic, SyntheticTrial, write_trial

pytestmark = pytest.mark.browser
Open = Callable[..., Screen]


def test_the_tutorial_leads_to_the_bug(demo: Path, screen_of: Open) -> None:
    """The README's walk: the loss stands still, its sources are looked at, the line of code is read."""
    screen = screen_of(demo).inspect("?trial=bugged")
    page = screen.page
    page.locator("#graph [data-node=loss]").first.click()
    expect(page.locator("#inspector .name")).to_have_text("loss")
    page.locator("#inspector .neighbours .link", has_text="target").click()
    expect(page.locator("#inspector .name")).to_have_text("target")
    assert screen.settle().number("min").startswith("−")
    lowest_target = float(screen.number("min").replace("−", "-"))
    page.keyboard.press("Escape")
    screen.select("answer")
    lowest_answer = float(screen.number("min").replace("−", "-"))
    assert lowest_target < -1 < lowest_answer  # the answers cannot be negative
    expect(page.locator("#inspector .source code")).to_have_text("x = F.leaky_relu(x)")
    expect(page.locator("#inspector .source .place")).to_contain_text("find_the_bug.py:")
    screen.choose("compare", "fixed")
    cells = page.locator("#inspector table.stats tr", has=page.get_by_text("min", exact=True)).locator("td")
    assert float(cells.nth(2).inner_text().replace("−", "-")) < 3 * lowest_answer


def test_the_row_of_the_papers_example_has_its_counterpart(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).inspect("?trial=bugged").find("subnet_out.hidden_state")
    assert screen.fact("shape") == "[128, 200], batch dimension 0"
    assert screen.fact("module") == "subnet_out.hidden_state (LeakyReLU)"
    trial = open_trial(demo / "bugged")
    step, iteration = map(int, re.findall(r"(?:step|iteration)=(\d+)", screen.page.url))
    tensor = trial.step(step).tensor("subnet_out.hidden_state", iteration=iteration)
    for statistic in ("mean", "abs_mean", "std", "abs_max"):
        assert screen.number(statistic) == short(tensor.statistics[statistic])
    expect(screen.page.locator("#neurons-caption")).to_have_text("all 200 neurons")
    first = screen.page.locator("#neurons .ag-center-cols-container [row-index='0'] .ag-cell").first
    assert tensor.neurons is not None and tensor.neurons.statistics is not None
    assert first.inner_text() == short(float(f"{tensor.neurons.statistics[0, 0]:.6g}"))
    screen.choose("sample", "mean over the batch")
    assert screen.number("std") == short(tensor.aggregates["std"]["batch_mean"])


def test_a_copied_address_opens_the_same_view(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=sick&compare=healthy&step=100&quantity=gradient&color=norm")
    screen.select("model.head")
    address = screen.page.url
    again = screen_of(folder)
    again.page.goto(again.url + "?" + address.partition("?")[2])
    again.page.wait_for_selector("#inspector .name")
    again.settle()
    assert again.page.url.partition("?")[2] == address.partition("?")[2]
    assert again.page.locator("#inspector .name").inner_text() == "model.head"
    assert again.number("norm") == screen.number("norm")


def test_the_selection_survives_steps_and_trials(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=healthy").select("model.head")
    before = screen.fact("step")
    screen.page.keyboard.press("Shift+ArrowLeft")
    screen.settle()
    assert screen.fact("step") != before
    expect(screen.page.locator("#inspector .name")).to_have_text("model.head")
    screen.choose("trial", "sick")
    assert screen.fact("trial") == "sick"
    expect(screen.page.locator("#inspector .name")).to_have_text("model.head")


def test_keys_are_not_stolen_from_inputs(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=healthy").select("model.head")
    page = screen.page
    page.keyboard.press("/")
    page.keyboard.type("mlp.up")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#inspector .name")).to_have_text("model.head")
    page.get_by_role("option").first.click()
    screen.settle()
    assert "mlp.up" in page.locator("#inspector .name").inner_text()


def test_arrow_keys_walk_along_edges(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=healthy").select("model.head")
    names = [node.name for node in open_trial(folder / "healthy").nodes]
    screen.page.locator("#graph").focus()
    screen.page.keyboard.press("ArrowRight")
    screen.settle()
    after = screen.page.locator("#inspector .name").inner_text()
    assert after in names and after != "model.head"


def test_a_non_finite_tensor_leads_the_eye(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=sick&step=250")
    first = screen.page.locator("#overview section.bad .entry").first
    expect(screen.page.locator("#overview section.bad h4").first).to_contain_text("Not finite")
    first.click()
    screen.settle()
    expect(screen.page.locator("#inspector .mark.trouble").first).to_contain_text("NaN")
    assert screen.page.locator("#table .ag-cell.trouble").count() > 0


@pytest.mark.parametrize("view", ["steps", "scalars", "network", "notes", "config"])
def test_every_page_shows_both_trials(folder: Path, screen_of: Open, view: str) -> None:
    screen = screen_of(folder).open(f"?trial=sick&compare=healthy&view={view}").settle()
    page = screen.page.locator(f"#page-{view}")
    expect(page).to_be_visible()
    if view in ("steps", "scalars"):
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
        names = screen.page.evaluate(f"document.querySelector('#{view}-chart .js-plotly-plot').data.map(t => t.name)")
        assert any("(sick)" in name for name in names) and any("(healthy)" in name for name in names)
    elif view == "network":
        expect(page.get_by_text("norm, healthy").first).to_be_attached()
    else:
        expect(page).to_contain_text("healthy")
        expect(page).to_contain_text("sick")


def test_a_click_on_a_curve_goes_to_its_step(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).open("?trial=healthy&view=steps&pinned=model.head").settle()
    points = screen.page.locator("#steps-chart .points path")
    points.first.wait_for()
    points.nth(3).click(force=True)
    screen.page.wait_for_selector("#page-inspect:not([hidden])")
    screen.settle()
    assert "node=model.head" in screen.page.url


def test_the_heat_map_shows_all_nodes(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).open("?trial=sick&view=steps&mode=heat&log=1").settle()
    names = screen.page.evaluate("document.querySelector('#steps-chart .js-plotly-plot').data[0].y")
    assert names == [node.name for node in open_trial(folder / "sick").nodes if "value" in node.quantities]


def test_what_is_wrong_is_what_opens_first(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).open("?trial=bugged&compare=fixed")
    page = screen.page.locator("#page-findings")
    expect(page.locator(".card.error .name").first).to_have_text("subnet_out")
    expect(page.locator(".card.error .source code").first).to_have_text("x = F.leaky_relu(x)")
    expect(page.locator(".card.error .spark").first).to_be_visible()
    expect(page.locator(".beside")).to_contain_text("activate_lasttrue, there false")
    expect(page.locator(".beside")).to_contain_text("goes with the loss of a sample")  # comes later than the rest
    part = page.locator(".beside p", has_text="They part at step 0")
    name = part.locator(".link").inner_text()
    part.locator(".link").click()
    expect(screen.page.locator("#inspector .name")).to_have_text(name)
    screen.page.keyboard.press("Escape")
    expect(screen.page.locator("#page-inspect")).to_be_visible()


def test_a_click_into_the_time_shows_the_network_of_that_step(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).open("?trial=bugged").settle()
    screen.page.wait_for_selector("#page-findings .card")
    screen.page.locator("#timeline .points path").first.click(force=True)
    expect(screen.page.locator("#page-inspect")).to_be_visible()
    screen.settle()
    assert "step=0" in screen.page.url


def test_a_finding_leads_to_its_place(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).inspect("?trial=bugged")
    finding = screen.page.locator("#findings .finding.error").first
    expect(finding).to_contain_text("can never reach its targets")
    traces = "document.querySelector('#timeline .js-plotly-plot').data.map(trace => trace.name)"
    screen.until(f"{traces}.includes('findings')")
    finding.click()
    expect(screen.page.locator("#inspector .name")).to_have_text("subnet_out")
    expect(screen.page.locator("#inspector .source code")).to_have_text("x = F.leaky_relu(x)")
    screen.page.locator("[data-page=findings]").click()
    expect(screen.page.locator("#page-findings .card .spark").first).to_be_visible()
    expect(screen.page.locator("#page-findings")).to_contain_text("What to try.")
    screen.page.locator("#page-findings").get_by_text("look there").first.click()
    expect(screen.page.locator("#page-inspect")).to_be_visible()


PUT = """markups => {
  const place = document.createElement("div");
  place.id = "scratch";
  document.body.append(place);
  const { fill } = window.stepscope, wrong = [];
  for (const before of markups) for (const after of markups) {
    fill("scratch", null);
    fill("scratch", after);
    const wanted = place.innerHTML;
    fill("scratch", null);
    fill("scratch", before);
    const first = place.querySelector("p.first");
    fill("scratch", after);
    const stays = place.querySelector("p.first");
    if (place.innerHTML !== wanted) wrong.push([before, after, place.innerHTML]);
    if (first && stays && first !== stays) wrong.push([before, after, "made anew"]);
  }
  place.remove();
  return wrong;
}"""
"""Goes from each of some pieces of markup to each other one, and says what is not as if it was made at once."""


def test_news_leave_alone_what_stays(demo: Path, screen_of: Open) -> None:
    """What somebody is about to click, or has unfolded, is not made anew because hints come in below."""
    first = ["p.first", {}, "one"]
    markups: list[object] = [
        ["div", {}, first],
        ["div", {}, first, "a text"],
        ["div", {}, first, ["p", {}, "two"], ["button.link", {"act": {"node": "x"}}, "more"]],
        ["div", {}, first, ["p", {}, ["b", {}, "two"], " and three"], ["button.link", {"act": {"node": "y"}}, "more"]],
        ["div", {}, first, ["spark", {"steps": [0, 1], "values": [1, 2], "mark": None, "axis": None}], ["p", {}]],
        ["div.other", {}, ["p", {}, "one"]],
        None,
    ]
    assert screen_of(demo).open("?trial=fixed").page.evaluate(PUT, markups) == []


def test_what_comes_late_takes_no_other_page(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).open("?trial=sick").settle()
    late = {"into": "page-findings", "of": {"sick": 1}, "markup": ["p", {}, "of long ago"]}
    place = screen.page.locator("#page-findings")
    for of, comes in ({"healthy": 1}, False), ({"sick": 1}, True):
        arguments = [late, {"into": "page-findings", "of": of}]
        screen.page.evaluate("given => window.dash_clientside.stepscope.lateMarkup(...given)", arguments)
        assert place.inner_text().startswith("of long ago") == comes


def test_a_healthy_trial_has_no_findings(demo: Path, screen_of: Open) -> None:
    screen = screen_of(demo).open("?trial=fixed")
    expect(screen.page.locator("#page-findings .card.calm")).to_contain_text("Nothing suspicious in")
    screen.page.get_by_text("Look at the network all the same").click()
    expect(screen.page.locator("#findings")).to_contain_text("Nothing suspicious in")


def test_a_live_trial_is_followed(tmp_path: Path, screen_of: Open) -> None:
    writer = SyntheticTrial(tmp_path / "live", Synthetic(trial="live"))
    writer.write(3)
    screen = screen_of(tmp_path / "live").inspect()
    expect(screen.page.locator(".badge.live")).to_contain_text("step 20")
    screen.page.locator("#follow").click()
    writer.write(2)
    expect(screen.page.locator(".badge.live")).to_contain_text("step 40")
    expect(screen.page.locator("#step")).to_have_value("40")
    writer.close("finished")
    expect(screen.page.locator(".badge.finished")).to_be_visible()


def test_an_empty_folder_says_what_to_do(tmp_path: Path, screen_of: Open) -> None:
    screen = screen_of(tmp_path).open()
    expect(screen.page.locator("#welcome")).to_contain_text("There is no recording yet")
    expect(screen.page.locator("#welcome")).to_contain_text("recorder.watch(model, optimizer)")
    write_trial(tmp_path, trial="first", steps=3)
    expect(screen.page.locator(".badge.finished")).to_be_visible()


def test_a_failed_trial_says_why(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=sick")
    expect(screen.page.locator(".badge.failed")).to_be_visible()
    expect(screen.page.locator("#notices")).to_contain_text("This trial failed")


def test_a_damaged_trial_shows_the_rest(tmp_path: Path, screen_of: Open) -> None:
    path = write_trial(tmp_path / "group", trial="hurt", steps=10)
    file = path / "steps.stepscope"
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    file.write_bytes(data)
    screen = screen_of(tmp_path / "group").open()
    expect(screen.page.locator("#notices")).to_contain_text("Damaged, the rest is shown")


def test_light_and_dark(folder: Path, screen_of: Open) -> None:
    screen = screen_of(folder).inspect("?trial=healthy")
    light = screen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    screen.page.locator("#theme-switch").click()
    screen.settle()
    assert screen.page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    screen.page.reload()
    screen.page.wait_for_selector("#graph [data-node]")
    assert screen.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_two_tabs_do_not_disturb_each_other(folder: Path, screen_of: Open) -> None:
    first = screen_of(folder).inspect("?trial=healthy").select("model.head")
    tab = Screen(first.page.context.new_page(), first.url).inspect("?trial=sick&step=100")
    tab.select("loss")
    assert first.fact("trial") == "healthy"
    first.page.keyboard.press("Shift+ArrowLeft")
    first.settle()
    assert first.page.locator("#inspector .name").inner_text() == "model.head"
    assert tab.fact("trial") == "sick"


def test_a_page_of_ones_own_is_reloaded(folder: Path, tmp_path: Path, screen_of: Open) -> None:
    file = tmp_path / "my_page.py"
    file.write_text("def visualize(trial, selection):\n    return f'{trial.name} has {len(trial.steps)} steps'\n")
    screen = screen_of(folder, custom=file).open("?trial=healthy&view=custom")
    expect(screen.page.locator("#custom")).to_contain_text("healthy has 30 steps")
    file.write_text("def visualize(trial, selection):\n    raise ValueError('on purpose')\n")
    expect(screen.page.locator("#custom")).to_contain_text("ValueError: on purpose")


def test_names_are_only_ever_text(tmp_path: Path, screen_of: Open) -> None:
    name = "<img src=x onerror=alert(1)>"
    write_trial(tmp_path / "group", trial="<b>bold", steps=3)
    screen = screen_of(tmp_path / "group").open()
    assert screen.page.locator("#badge b, #inspector b, #notices b").count() == 0
    screen.page.goto(screen.url + "?node=" + name)
    screen.page.wait_for_selector("#inspector .name")
    assert screen.page.locator("#inspector .name").inner_text() == name
    assert screen.page.locator("#inspector img").count() == 0


def test_a_thousand_nodes(tmp_path: Path, screen_of: Open) -> None:
    write_trial(tmp_path / "group", trial="big", steps=5, blocks=36)
    assert len(open_trial(tmp_path / "group" / "big").nodes) > 900
    screen = screen_of(tmp_path / "group").inspect()
    assert screen.page.locator("#graph [data-node]").count() < 400  # modules are collapsed
    screen.find("model.blocks.20.mlp.down.weight")
    assert screen.page.locator('#graph [data-node="model.blocks.20.mlp.down.weight"]').count() == 1
