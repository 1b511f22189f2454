"""The panel in a browser: a static page with the asset files, a drawing, and what a person does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page

from stepscope.store.records import Graph
from stepscope.viewer.graph import draw, tensor_key
from support.graph_text import graph_of

pytestmark = pytest.mark.browser

ASSETS = Path(__file__).parents[3] / "viewer" / "assets"
EVIL = "<img src=x onerror='window.hacked=1'>&lt"
TEXT = f"""
input -> net.first -> net.last -> loss
net.first.weight -> net.first
net.first ..> net.side -> net.last
net.deep.a -> net.deep.b -> net.last
net.first -> net.deep.a
{EVIL} -> loss
lonely
"""
MOUNT = """([drawing, overlay, selection]) => {
  window.calls = window.calls || [];
  stepscope.graph.mount("graph", drawing, overlay, selection, {
    select: (...what) => calls.push(["select", ...what]),
    toggle: (module) => calls.push(["toggle", module]),
  });
}"""


class Panel:
    """A page with one panel in it."""

    def __init__(self, page: Page, graph: Graph) -> None:
        self.page = page
        self.graph = graph

    def mount(self, opened: list[str], overlay: Any = None, selection: Any = None) -> dict[str, Any]:
        drawing = draw(self.graph, opened)
        self.page.evaluate(MOUNT, [drawing, overlay, selection])
        return drawing

    def box(self, node: str) -> Locator:
        return self.page.locator(f'#graph .boxes [data-node="{node}"]').first

    def place(self, identity: str) -> dict[str, float]:
        found = self.page.locator(f'#graph .world [data-id="{identity}"]').bounding_box()
        assert found is not None
        return dict(found)

    def calls(self) -> list[list[Any]]:
        calls: list[list[Any]] = self.page.evaluate("window.calls.splice(0)")
        return calls

    def selected(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all(
            "#graph .world .selected", "all => all.map(one => one.dataset.node || one.dataset.module)"
        )
        return found

    def view(self) -> str:
        return self.page.locator("#graph .world").get_attribute("transform") or ""


@pytest.fixture(scope="module")
def page(browser: BrowserContext) -> Iterator[Page]:
    page = browser.new_page()
    page.set_viewport_size({"width": 1000, "height": 420})
    yield page
    page.close()


@pytest.fixture
def panel(page: Page) -> Iterator[Panel]:
    """An empty panel; the test fails if anything was wrong in the browser."""
    troubles: list[str] = []
    page.goto("about:blank")
    page.on("console", remember := lambda message: troubles.append(message.text))
    page.on("pageerror", fail := lambda error: troubles.append(str(error)))
    style = (ASSETS / "graph.css").read_text()
    scripts = "".join(f"<script>{script.read_text()}</script>" for script in sorted(ASSETS.glob("graph*.js")))
    page.set_content(
        f'<!doctype html><html data-theme="light"><style>{style} #graph {{ height: 380px }}</style>'
        f'<body style="margin: 0"><div id="graph"></div><input id="field">{scripts}</body></html>'
    )
    yield Panel(page, graph_of(TEXT))
    page.remove_listener("console", remember)
    page.remove_listener("pageerror", fail)
    assert page.evaluate("window.hacked") is None
    assert troubles == []


def near(one: dict[str, float], other: dict[str, float]) -> bool:
    return abs(one["x"] - other["x"]) < 1 and abs(one["y"] - other["y"]) < 1


def test_everything_in_the_drawing_is_on_the_screen(panel: Panel) -> None:
    drawing = panel.mount(["net"])
    shown = panel.page.eval_on_selector_all("#graph .boxes > .box", "all => all.map(one => one.dataset.id)")
    assert shown == [box["id"] for box in drawing["boxes"]]
    assert panel.page.locator("#graph .segments path").count() == len(drawing["segments"])
    assert panel.page.locator("#graph .frames .frame").get_attribute("data-module") == "net"
    assert panel.page.locator("#graph .segment.blocked").count() >= 1
    assert panel.box("lonely").locator(".loose").count() == 2


def test_names_are_text_and_never_markup(panel: Panel) -> None:
    drawing = panel.mount(["net"])
    (label,) = [box["label"] for box in drawing["boxes"] if box["node"] == EVIL]
    texts = panel.page.locator("#graph .boxes .label").all_text_contents()
    assert label in texts
    index = texts.index(label)
    panel.page.locator("#graph .boxes .label").nth(index).click()
    assert panel.calls() == [["select", EVIL, "output", 0]]
    assert panel.page.locator("#graph .tip strong").text_content() == EVIL
    assert panel.page.locator("#graph img").count() == 0


def test_a_click_selects_a_box_or_a_row(panel: Panel) -> None:
    panel.mount(["net"])
    panel.box("net.last").click()
    assert panel.calls() == [["select", "net.last", "output", 0]]
    assert panel.selected() == ["net.last"]
    panel.box("net.first.weight").click()
    assert panel.calls() == [["select", "net.first.weight", "output", 0]]
    assert set(panel.selected()) == {"net.first", "net.first.weight"}


def test_sources_and_sinks_stand_out(panel: Panel) -> None:
    panel.mount(["net"], selection={"node": "net.side"})
    near = panel.page.eval_on_selector_all("#graph .boxes .near", "all => all.map(one => one.dataset.node)")
    assert set(near) == {"net.side", "net.first", "net.last"}
    opacity = "one => Number(getComputedStyle(one).opacity)"
    assert panel.box("lonely").evaluate(opacity) < panel.box("loss").evaluate(opacity)
    assert panel.box("loss").evaluate(opacity) < panel.box("net.first").evaluate(opacity) == 1
    assert panel.page.locator("#graph .segment.hot").count() >= 2


def test_the_selection_comes_from_outside_too(panel: Panel) -> None:
    panel.mount(["net"])
    panel.page.evaluate('stepscope.graph.select("graph", {node: "net.first", role: "output"})')
    assert panel.selected() == ["net.first"]
    panel.page.evaluate('stepscope.graph.select("graph", {module: "net.deep"})')
    assert panel.selected() == ["net.deep"]
    panel.page.evaluate('stepscope.graph.select("graph", null)')
    assert panel.selected() == []
    assert panel.calls() == []


def test_a_selection_in_a_closed_module_marks_the_module(panel: Panel) -> None:
    panel.mount(["net"], selection={"node": "net.deep.a"})
    assert panel.page.locator("#graph .holds-selected").get_attribute("data-module") == "net.deep"


def test_modules_are_toggled_by_their_sign_and_by_double_click(panel: Panel) -> None:
    panel.mount(["net"])
    panel.page.locator('#graph .box[data-module="net.deep"] .toggle').click()
    panel.page.locator("#graph .frame .toggle").click()
    assert panel.calls() == [["toggle", "net.deep"], ["toggle", "net"]]
    panel.page.locator('#graph .box[data-module="net.deep"] .label').dblclick()
    assert panel.calls() == [["toggle", "net.deep"]]


def test_a_toggled_module_stays_where_it_is(panel: Panel) -> None:
    panel.mount([])
    before = panel.place("m:net")
    panel.mount(["net"])
    assert near(panel.place("f:net"), before)
    panel.page.mouse.move(300, 200)
    panel.page.mouse.wheel(0, -200)
    inner = panel.place("m:net.deep")
    panel.mount(["net", "net.deep"])
    assert near(panel.place("f:net.deep"), inner)


def test_the_same_picture_keeps_its_view(panel: Panel) -> None:
    panel.mount(["net"], selection={"node": "loss"})
    panel.page.mouse.move(400, 200)
    panel.page.mouse.wheel(0, -300)
    zoomed = panel.view()
    panel.mount(["net"], overlay={"bad": [tensor_key("loss", "output")]}, selection={"node": "loss"})
    assert panel.view() == zoomed


def test_zooming_keeps_what_is_under_the_pointer(panel: Panel) -> None:
    panel.mount(["net"])
    at = panel.place("n:net.last")
    panel.page.mouse.move(at["x"], at["y"])
    panel.page.mouse.wheel(0, -250)
    after = panel.place("n:net.last")
    assert near(after, at)
    assert after["width"] > at["width"] * 1.2


def test_dragging_moves_the_picture_and_selects_nothing(panel: Panel) -> None:
    panel.mount(["net"])
    at = panel.place("n:net.last")
    panel.page.mouse.move(at["x"] + 20, at["y"] + 8)
    panel.page.mouse.down()
    panel.page.mouse.move(at["x"] + 80, at["y"] + 48, steps=5)
    panel.page.mouse.up()
    assert near(panel.place("n:net.last"), {"x": at["x"] + 60, "y": at["y"] + 40})
    assert panel.calls() == []


def test_fit_shows_everything(panel: Panel) -> None:
    panel.mount(["net", "net.deep"])
    whole = panel.view()
    panel.page.mouse.move(400, 200)
    panel.page.mouse.wheel(0, -900)
    assert panel.page.locator("#graph .map").is_visible()
    panel.page.evaluate('stepscope.graph.fit("graph")')
    assert panel.view() == whole
    assert not panel.page.locator("#graph .map").is_visible()


@pytest.fixture
def press(panel: Panel) -> Callable[[str], list[str]]:
    def press(key: str) -> list[str]:
        panel.page.keyboard.press(key)
        return panel.selected()

    return press


def test_arrow_keys_walk_along_the_edges(panel: Panel, press: Callable[[str], list[str]]) -> None:
    panel.mount(["net"], selection={"node": "input"})
    assert press("ArrowRight") == ["net.first"]
    assert press("ArrowRight") == ["net.side"]
    assert press("ArrowRight") == ["net.last"]
    assert press("ArrowRight") == ["loss"]
    assert press("ArrowRight") == ["loss"]
    assert press("ArrowLeft") == ["net.last"]
    assert [call[1] for call in panel.calls()] == ["net.first", "net.side", "net.last", "loss", "net.last"]


def test_up_and_down_go_to_the_neighbours_in_the_layer(panel: Panel, press: Callable[[str], list[str]]) -> None:
    panel.mount(["net"], selection={"node": "net.side"})
    above = panel.place("n:net.side")["y"] > panel.place("m:net.deep")["y"]
    there, back = ("ArrowUp", "ArrowDown") if above else ("ArrowDown", "ArrowUp")
    assert press(there) == ["net.deep"]
    assert press(back) == ["net.side"]


def test_keys_are_left_alone_while_something_else_wants_them(panel: Panel, press: Callable[[str], list[str]]) -> None:
    panel.mount(["net"], selection={"node": "input"})
    panel.page.locator("#field").focus()
    assert press("ArrowRight") == ["input"]
    panel.page.locator("#field").evaluate("field => field.blur()")
    assert press("Shift+ArrowRight") == ["input"]
    assert press("Alt+ArrowRight") == ["input"]
    assert press("ArrowRight") == ["net.first"]


def test_enter_opens_the_selected_module(panel: Panel, press: Callable[[str], list[str]]) -> None:
    panel.mount(["net"], selection={"module": "net.deep"})
    press("Enter")
    assert panel.calls() == [["toggle", "net.deep"]]


def test_the_selected_box_is_brought_into_view(panel: Panel) -> None:
    panel.mount(["net", "net.deep"], selection={"node": "input"})
    panel.page.mouse.move(20, 200)
    panel.page.mouse.wheel(0, -700)
    panel.page.evaluate('stepscope.graph.select("graph", {node: "loss"})')
    at = panel.place("n:loss")
    assert at["x"] >= 0 and at["x"] + at["width"] <= 1000
    assert at["y"] >= 0 and at["y"] + at["height"] <= 380


def test_who_looks_elsewhere_is_left_there(panel: Panel) -> None:
    panel.mount(["net"], selection={"node": "input"})
    panel.page.mouse.move(900, 200)
    panel.page.mouse.wheel(0, -700)
    away = panel.view()
    panel.page.evaluate('stepscope.graph.select("graph", {node: "input"})')
    panel.mount(["net"], selection={"node": "input", "role": "output"})
    assert panel.view() == away
    panel.mount(["net"], selection={"node": "net.first"})
    assert panel.view() != away


def test_overlays_colour_mark_and_explain(panel: Panel) -> None:
    key = tensor_key("net.first", "output")
    overlay = {
        "colours": {key: "#112233", tensor_key("net.deep.a", "output"): "#fde0c5"},
        "texts": {key: "std 0.031"},
        "bad": [key, tensor_key("net.deep.b", "output")],
        "legend": {"title": "std", "colours": ["#fde0c5", "#112233"], "low": "1e-4", "high": "0.3"},
    }
    panel.mount(["net"], overlay=overlay)
    first = panel.box("net.first")
    assert first.locator("rect").first.evaluate("one => getComputedStyle(one).fill") == "rgb(17, 34, 51)"
    assert first.locator(".label").first.evaluate("one => getComputedStyle(one).fill") == "rgb(255, 255, 255)"
    assert first.locator(".note").text_content() == "std 0.031"
    assert first.locator(".badge").count() == 1
    module = panel.page.locator('#graph .box[data-module="net.deep"]')
    assert (module.locator(".badge").count(), module.locator(".stripes rect").count()) == (1, 1)
    assert panel.page.locator("#graph .legend").inner_text().split() == ["std", "1e-4", "0.3"]
    panel.page.evaluate('stepscope.graph.setOverlay("graph", null)')
    assert panel.page.locator("#graph .badge, #graph .note, #graph .stripes, #graph .painted").count() == 0
    assert panel.page.locator("#graph .legend .kind").all_inner_texts() == [
        "input", "parameter", "calculated", "loss", "no gradient", "unconnected",
    ]  # fmt: skip


def test_the_key_of_a_tensor_is_the_same_here_and_there(panel: Panel) -> None:
    assert panel.page.evaluate('stepscope.graph.key("memory", "new", 1)') == tensor_key("memory", "new", 1)


def test_the_panel_can_be_reached_and_read(panel: Panel) -> None:
    panel.mount(["net"])
    picture = panel.page.locator("#graph svg.picture")
    assert "graph" in (picture.get_attribute("aria-label") or "").lower()
    picture.focus()
    panel.page.keyboard.press("ArrowRight")
    assert picture.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    buttons = panel.page.locator("#graph .buttons button")
    assert all(buttons.nth(number).get_attribute("aria-label") for number in range(buttons.count()))


def test_large_pictures_are_mounted_and_walked_quickly(panel: Panel) -> None:
    lines = [f"net.{row}.t0 -> " + " -> ".join(f"net.{row}.t{column}" for column in range(1, 40)) for row in range(12)]
    panel.graph = graph_of("input -> net.0.t0\n" + "\n".join(lines))
    panel.mount(["net", *(f"net.{row}" for row in range(12))])
    assert panel.page.locator("#graph .boxes > .box").count() == 481
    took = panel.page.evaluate(
        """() => { const start = performance.now();
        stepscope.graph.select("graph", {node: "net.5.t20"});
        document.querySelector("#graph .picture").getBoundingClientRect();
        return performance.now() - start; }"""
    )
    assert took < 500
