"""What the page of findings says: alike ones told once, what ended a trial, short names that can be told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.analysis import Finding
from stepscope.store import Group, open_trial
from stepscope.store.files import file_path
from stepscope.viewer.axes import wants_log
from stepscope.viewer.chart_parts import Curve
from stepscope.viewer.figures import empty, history
from stepscope.viewer.heat_map import heat_map
from stepscope.viewer.names import apart, cut
from stepscope.viewer.selection import Selection
from stepscope.viewer.theme import TROUBLE, WARNING
from stepscope.viewer.views.about import comparable
from stepscope.viewer.views.curves import run_timeline
from stepscope.viewer.views.failure import failure, users_line
from stepscope.viewer.views.findings import marks, page, panel, told
from support.synthetic import write_trial

DEAD = Finding("dead-units", "warning", "model.1", "model.1", None, 30, 0, 0.9, "Dead.", (), "A spike.", "Lower it.")
TRACEBACK = """Traceback (most recent call last):
  File "/home/me/train.py", line 74, in main
    loss = criterion(model(x), y)
                     ^^^^^^^^
  File "/home/me/.venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1778, in _wrapped_call_impl
    return self._call_impl(*args, **kwargs)
  File "/home/me/net.py", line 13, in forward
    h = self.encoder(x)
        ^^^^^^^^^^^^^^^
  File "/home/me/stepscope/recorder/tracer.py", line 105, in __torch_function__
    result = func(*args, **kwargs)
RuntimeError: mat1 and mat2 shapes cannot be multiplied
"""


def words(markup: Any) -> str:
    return markup if isinstance(markup, str) else " ".join(words(child) for child in (markup or [])[2:])


def at(node: str, level: Any = "warning", rule: str = "dead-units") -> Finding:
    return replace(DEAD, node=node, level=level, rule=rule)


class TestTold:
    def test_three_of_one_rule_are_told_as_one(self) -> None:
        other = at("loss", "error", "loss-plateau")
        first, *rest = several = [at(f"model.{i}") for i in range(4)]
        assert told([other, *several]) == [(other, ()), (first, tuple(rest))]

    def test_two_are_told_apart(self) -> None:
        one, two = at("model.1"), at("model.3")
        assert told([one, two]) == [(one, ()), (two, ())]

    def test_the_panel_names_where_else(self, group: Group) -> None:
        found = [at(f"model.blocks.{i}.mlp.act") for i in range(9)]
        text = words(panel(group["healthy"], found))
        assert "Findings (9)" in text and "model.blocks.6" in text and "and 2 more" in text
        assert text.count("What to try.") == 1

    def test_marks_are_the_worst_of_each_node(self) -> None:
        found = marks([at("a", "error"), at("a"), at("b"), at("c", "info"), at("")])
        assert found == {"a": ("error", "Dead."), "b": ("warning", "Dead.")}

    def test_the_page_counts_levels_and_steps(self, group: Group) -> None:
        text = words(page(group["healthy"], [at("a", "error"), at("b"), at("c", rule="loss-spike")]))
        assert "1 error, 2 warnings in 30 recorded steps, the gravest first." in text


class TestTimeline:
    def test_one_mark_a_step_says_how_many_begin_there(self, group: Group) -> None:
        found = [at("a", "error"), at("b"), replace(at("c"), step=50), at("d", "info")]
        figure = run_timeline(group["healthy"], None, Selection(trial="healthy", step=10), found)
        mark = next(trace for trace in figure["data"] if trace["name"] == "findings")
        assert mark["x"] == [30, 50] and mark["text"] == ["Dead. (and 1 more)", "Dead."]
        assert mark["marker"]["color"] == [TROUBLE, WARNING]
        assert figure["layout"]["yaxis"]["title"]["text"] == "loss"


class TestComparing:
    def test_the_newest_others_are_a_click_away(self, group: Group) -> None:
        section = comparable([*"abcdefg", "healthy"], group["healthy"])
        assert section is not None
        assert [entry[2][1]["act"]["compare"] for entry in section[4:]] == list("gfedc")
        assert comparable(["healthy"], group["healthy"]) is None


class TestFailure:
    def test_the_users_innermost_line(self) -> None:
        line = users_line(TRACEBACK)
        assert line is not None
        assert (line.file, line.line, line.text, line.function) == (
            "/home/me/net.py", 13, "h = self.encoder(x)", "forward",
        )  # fmt: skip
        assert users_line("nothing to see") is None

    def test_an_exception_stands_above_the_findings(self, group: Group) -> None:
        trial = group["sick"]
        assert trial.end is not None and trial.end.traceback
        text = words(page(trial, []))
        assert text.index("this ended the training") < text.index("Nothing suspicious in the numbers before it ended")

    def test_a_trial_that_was_killed_is_not_called_healthy(self, tmp_path: Path) -> None:
        trial = open_trial(write_trial(tmp_path, trial="killed", steps=3, state="died"))
        text = words(page(trial, []))
        assert "it was killed, ran out of memory" in text and "after step 20" in text
        assert "Nothing suspicious in the numbers before it ended" in text

    def test_a_damaged_trial_is_not_called_healthy(self, tmp_path: Path) -> None:
        path = write_trial(tmp_path, trial="damaged", steps=3)
        file_path(path, "catalog").write_bytes(b"garbage")
        text = words(page(open_trial(path), []))
        assert "Nothing suspicious in what can be read" in text and "of its 3 recorded steps" in text

    def test_a_trial_that_goes_well_has_no_such_card(self, group: Group) -> None:
        assert failure(group["healthy"]) is None


class TestNames:
    def test_the_end_of_a_name_is_kept(self) -> None:
        assert cut("model.head", 10) == "model.head"
        assert cut("model.blocks.3.query", 7) == "….query"

    def test_what_all_names_share_at_their_ends_does_not_tell_them_apart(self) -> None:
        assert apart(["model.0.query.weight", "model.1.query.weight"]) == ["model.0", "model.1"]
        assert apart(["one", "one.two"]) == ["one", "one.two"]
        assert apart(["alone.weight"]) == ["alone.weight"]
        assert apart([]) == []


class TestAxes:
    def test_a_spike_asks_for_a_logarithmic_axis(self) -> None:
        spiky = np.array([0.5, 0.4, 1500.0, 0.6])
        assert wants_log([spiky, np.zeros(4)])
        assert not wants_log([spiky - 1])
        assert not wants_log([np.array([0.0, 1e-9, 0.5, 1.0, 0.9])])  # zeros would be lost, and most is seen
        assert not wants_log([])

    def test_labels_are_whole_powers_of_ten(self) -> None:
        steps = np.arange(4)
        axis = history([Curve("a", steps, np.array([1e-3, 1.0, 10.0, 1e9]))], None, log=True)["layout"]["yaxis"]
        assert axis["type"] == "log" and axis["dtick"] == 2

    def test_long_names_are_cut_and_told_in_full(self) -> None:
        name = "model." + "block." * 20 + "weight"
        figure = heat_map([name, "loss"], [0, 1], np.ones((2, 2)), None, log=False)
        axis = figure["layout"]["yaxis"]
        assert figure["data"][0]["y"] == axis["tickvals"] == [name, "loss"]
        assert axis["ticktext"][0].endswith("block.weight") and len(axis["ticktext"][0]) < 50
        trace = history([Curve(name, np.arange(2), np.ones(2))], None, log=False)["data"][0]
        assert len(trace["name"]) < 50 and name in trace["hovertemplate"]

    def test_a_sentence_in_place_of_a_chart_is_wrapped(self) -> None:
        text = empty("the detail of step 1471 makes no sense <here>: " + "word " * 30)["layout"]["annotations"][0][
            "text"
        ]
        assert "&lt;here&gt;" in text and max(map(len, text.split("<br>"))) < 60
