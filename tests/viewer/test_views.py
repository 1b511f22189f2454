"""What the parts of the page show, against the recording itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dash import no_update

from stepscope.recorder import Recorder
from stepscope.store import Group, Trial, open_trial
from stepscope.store.records import STATISTICS
from stepscope.viewer.answers import Answers
from stepscope.viewer.app import make_app
from stepscope.viewer.graph import tensor_key
from stepscope.viewer.resolve import resolve
from stepscope.viewer.selection import Selection
from stepscope.viewer.source import Source
from stepscope.viewer.views import curves, network, status, texts
from stepscope.viewer.views.about import different_layers
from stepscope.viewer.views.column import column, shown_statistic
from stepscope.viewer.views.graph_overlay import overlay
from stepscope.viewer.views.inspector import inspector
from stepscope.viewer.views.moment import Moment, moment
from stepscope.viewer.views.neurons import neuron_table
from stepscope.viewer.views.over_steps import heat_values, over_steps, shown_nodes
from stepscope.viewer.views.scalars import scalars
from stepscope.viewer.views.tensors_table import columns_of, table_rows


def at(group: Group, **wish: Any) -> Moment:
    found = moment(resolve(Selection(**wish), group).selection, group)
    assert found is not None
    return found


def words(markup: Any) -> str:
    """All text of a piece of markup."""
    if isinstance(markup, str):
        return markup
    return " ".join(words(child) for child in markup[2:])


class TestColumns:
    def test_over_all_elements(self, group: Group) -> None:
        step = group["healthy"].step(10)
        index = STATISTICS.index("abs_max")
        assert np.array_equal(column(step, "abs_max"), step.statistics()[:, index], equal_nan=True)

    def test_over_the_batch_and_of_a_sample(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, node="model.head", iteration=0)
        tensor = now.tensor()
        assert tensor is not None
        row = tensor.row.index
        assert column(now.step, "std", "batch_mean")[row] == pytest.approx(tensor.aggregates["std"]["batch_mean"])
        assert column(now.step, "std", "sample:1")[row] == pytest.approx(float(tensor.per_sample[1][1]))
        assert np.isnan(column(now.step, "std", "sample:99")).all()
        assert np.isnan(column(now.step, "norm", "batch_mean")).all()

    def test_a_statistic_that_samples_do_not_have_is_replaced(self) -> None:
        assert shown_statistic("norm", "all") == "norm"
        assert shown_statistic("norm", "sample:0") == "std"


class TestOverlay:
    def test_marks_what_is_not_finite(self, group: Group) -> None:
        now = at(group, trial="sick", step=220, iteration=0)
        bad = overlay(now.step, now.selection, None)["bad"]
        assert tensor_key("model.blocks.1.attn", "output", 0) in bad
        assert tensor_key("model.blocks.0.attn", "output", 0) not in bad

    def test_marks_among_gradients_are_of_gradients_only(self, group: Group) -> None:
        now = at(group, trial="sick", step=220, iteration=0, quantity="value")
        values, gradients, updates = (
            set(overlay(now.step, now.selection.with_changes(quantity=quantity), None)["bad"])
            for quantity in ("value", "gradient", "update")
        )
        assert values and gradients and values != gradients
        other = overlay(now.step, now.selection.with_changes(quantity="attention_entropy"), None)["bad"]
        assert set(other) == values and updates.isdisjoint(values)

    def test_colours_by_a_statistic_on_a_scale_that_it_states(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, iteration=0, color="abs_max")
        painted = overlay(now.step, now.selection, None)
        assert painted["legend"]["title"] == "|abs_max|"
        key = tensor_key("model.head", "output", 0)
        value = now.step.tensor("model.head", iteration=0).statistics["abs_max"]
        assert painted["texts"][key].startswith("abs_max ") and painted["colours"][key].startswith("#")
        assert float(painted["texts"][key].split()[1]) == pytest.approx(value, rel=1e-3)

    def test_colours_by_change_are_white_where_nothing_changed(self, group: Group) -> None:
        now = at(group, trial="healthy", compare="sick", step=10, iteration=0, color="change")
        painted = overlay(now.step, now.selection, now.there)
        assert set(painted["colours"].values()) == {"#f7f7f7"}  # the same seed: the same numbers before the trouble
        assert painted["legend"]["title"].endswith("as a multiple of sick's")


class TestTable:
    def test_has_every_tensor_with_its_numbers(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, iteration=1)
        rows = table_rows(now.step, now.selection, None)
        assert {row["node"] for row in rows} == {row.info.node for row in now.step.rows(iteration=1, quantity="value")}
        head = next(row for row in rows if row["node"] == "model.head")
        statistics = now.step.tensor("model.head", iteration=1).statistics
        for name in ("mean", "std", "abs_max", "min", "max", "norm"):
            assert head[name] == pytest.approx(statistics[name], rel=1e-5)
        gradient = now.step.tensor("model.head", iteration=1, quantity="gradient").statistics["norm"]
        assert head["gradient_norm"] == pytest.approx(gradient, rel=1e-5)
        assert len({row["key"] for row in rows}) == len(rows)
        json.dumps(rows, allow_nan=False)

    def test_puts_the_compared_trial_beside(self, group: Group) -> None:
        now = at(group, trial="sick", compare="healthy", step=220, iteration=0, statistic="norm")
        rows = table_rows(now.step, now.selection, now.there)
        names = columns_of(now.selection, compared=True)
        assert names[:3] == ["norm", "other", "ratio"]
        embed = next(row for row in rows if row["node"] == "model.embed")
        theirs = group["healthy"].step(220).tensor("model.embed", iteration=0).statistics["norm"]
        assert embed["other"] == pytest.approx(theirs, rel=1e-5)
        assert embed["ratio"] == pytest.approx(embed["norm"] / theirs, rel=1e-4)

    def test_numbers_that_are_not_finite_are_null(self, group: Group) -> None:
        now = at(group, trial="sick", step=220, iteration=0)
        rows = table_rows(now.step, now.selection, None)
        loss = next(row for row in rows if row["node"] == "loss")
        assert loss["mean"] is None and loss["nan_count"] == 1


class TestInspector:
    def test_says_who_and_where(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, node="model.blocks.0.attn.q_proj", iteration=0)
        tensor = now.tensor()
        assert tensor is not None
        text = words(inspector(now, tensor))
        assert "model.blocks.0.attn.q_proj" in text and "batch dimension 0" in text and "float32" in text
        assert "computed from" in text and "used by" in text

    def test_shows_the_difference(self, group: Group) -> None:
        now = at(group, trial="sick", compare="healthy", step=220, node="model.blocks.1.attn", iteration=0)
        tensor = now.tensor()
        assert tensor is not None
        markup = inspector(now, tensor)
        assert "NaN" in words(markup) and "healthy" in words(markup) and "ratio" in words(markup)

    def test_marks_a_dead_layer(self, group: Group) -> None:
        now = at(group, trial="sick", step=150, node="model.blocks.1.mlp.act", iteration=0)
        tensor = now.tensor()
        assert tensor is not None
        assert "all zero" in words(inspector(now, tensor))


class TestNeurons:
    def test_all_of_them_with_their_samples(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, node="model.head", iteration=0)
        tensor = now.tensor()
        assert tensor is not None and tensor.neurons is not None and tensor.neurons.statistics is not None
        shown = neuron_table(tensor, None)
        assert [name for name, _ in shown.columns][:4] == ["neuron", "mean", "std", "abs_max"]
        assert shown.caption.startswith("all ")
        assert len(shown.rows) == tensor.neurons.total
        assert shown.rows[2]["mean"] == pytest.approx(float(tensor.neurons.statistics[0, 2]), rel=1e-5)
        assert shown.rows[2]["s0"] == pytest.approx(float(tensor.neurons.samples[0, 2]), rel=1e-5)

    def test_the_compared_trial_stands_beside(self, group: Group) -> None:
        now = at(group, trial="healthy", compare="sick", step=10, node="model.head.weight")
        tensor = now.tensor()
        assert tensor is not None
        shown = neuron_table(tensor, now.counterpart_of(tensor))
        assert [name for name, _ in shown.columns][1:3] == ["other", "difference"]
        assert all(row["difference"] == 0 for row in shown.rows)

    def test_a_limit_is_stated(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        trial = open_trial(write_trial(tmp_path, trial="few", steps=1, neuron_limit=10))
        tensor = trial.step(0).tensor("model.embed.weight")
        assert neuron_table(tensor, None).caption == "10 of 144 neurons, evenly spaced"
        assert neuron_table(tensor, None).rows[1]["neuron"] == "1, 2"  # element 14 of [12, 12]


class TestCurves:
    def test_history_is_the_series(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, node="model.head", iteration=0, statistic="norm")
        tensor = now.tensor()
        assert tensor is not None
        figure = curves.tensor_history(now, tensor)
        series = group["healthy"].series("model.head", statistic="norm", iteration=0, kind="train")
        assert figure["data"][0]["x"] == series.steps.tolist()
        assert figure["data"][0]["y"] == pytest.approx(series.values.tolist())

    def test_a_single_number_has_no_spread_to_draw(self, group: Group) -> None:
        now = at(group, trial="healthy", step=10, node="loss", iteration=0)
        tensor = now.tensor()
        assert tensor is not None
        figure = curves.tensor_history(now, tensor)
        assert figure["layout"]["title"]["text"] == "mean, over steps" and min(figure["data"][0]["y"]) > 0
        selection = Selection(trial="healthy", step=10, pinned=("model.head", "loss"))
        lines = over_steps(group["healthy"], None, selection)[0]["data"]
        assert [line["name"] for line in lines if line["showlegend"]] == ["model.head", "loss, mean"]
        assert over_steps(group["healthy"], None, replace(selection, pinned=("loss",)))[1].startswith("mean of loss.")

    def test_the_histogram_counts_every_element(self, group: Group) -> None:
        now = at(group, trial="sick", step=220, node="model.blocks.1.attn", iteration=0)
        tensor = now.tensor()
        assert tensor is not None
        bars = curves.tensor_histogram(now, tensor)["data"][0]
        assert sum(bars["y"]) == int(np.prod(tensor.shape))
        assert bars["text"][-1] == "NaN" and bars["y"][-1] == tensor.statistics["nan_count"]

    def test_the_timeline_shows_both_losses(self, group: Group) -> None:
        figure = curves.run_timeline(group["sick"], group["healthy"], Selection(trial="sick", step=10))
        names = [trace["name"] for trace in figure["data"]]
        assert {"loss (sick)", "loss (sick), validation", "loss (healthy)"} <= set(names) and names[-1] == "recorded"
        assert figure["layout"]["shapes"][0]["x0"] == 10

    def test_over_steps_draws_the_pinned_nodes(self, group: Group) -> None:
        selection = Selection(trial="healthy", step=10, pinned=("model.head", "loss"), statistic="mean", log=True)
        figure, caption = over_steps(group["healthy"], None, selection)
        assert [trace["meta"] for trace in figure["data"] if trace["showlegend"]] == ["model.head", "loss"]
        assert figure["layout"]["yaxis"]["type"] == "log" and "2 nodes" in caption
        assert "Dashed: long and validation." in caption
        alone = over_steps(group["healthy"], None, replace(selection, kind="train"))[1]
        assert "2 nodes" in alone and "Dashed" not in alone
        assert shown_nodes(group["healthy"], Selection(pinned=("nobody",)))  # something rather than nothing

    def test_the_heat_map_is_the_series_of_all_nodes(self, group: Group) -> None:
        trial = group["healthy"]
        nodes = [trial.node("model.head"), trial.node("loss")]
        values = heat_values(trial, nodes, trial.steps, Selection(statistic="mean"))
        series = trial.series("loss", statistic="mean")
        assert values.shape == (2, len(trial.steps))
        assert np.array_equal(values[1], series.values)

    def test_the_heat_map_of_two_trials_is_their_ratio(self, group: Group) -> None:
        selection = Selection(trial="healthy", compare="sick", mode="heat", statistic="norm", step=10)
        figure, caption = over_steps(group["healthy"], group["sick"], selection)
        assert "as a multiple of sick's" in caption and "Gaps: not recorded, or not finite" in caption
        first = [row[0] for row in figure["data"][0]["customdata"] if row[0] is not None]
        assert first == pytest.approx([1.0] * len(first))

    def test_scalars_have_a_chart_a_group(self, group: Group) -> None:
        figure, caption = scalars(group["healthy"], group["sick"], Selection(step=10))
        titles = [item["text"] for item in figure["layout"]["annotations"]]
        assert any("accuracy" in title for title in titles) and "curves" in caption

    def test_nothing_logged_says_how(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        trial = open_trial(write_trial(tmp_path, trial="empty", steps=0))
        figure, _ = scalars(trial, None, Selection())
        assert "recorder.scalar" in figure["layout"]["annotations"][0]["text"]


class TestPages:
    def test_the_network_is_a_tree_with_its_parameters(self, group: Group) -> None:
        now = at(group, trial="healthy", compare="sick", step=10)
        rows = network.network_rows(now)
        weight = next(row for row in rows if row["path"] == "model.head.weight")
        module = next(row for row in rows if row["path"] == "model.head")
        assert weight["depth"] == module["depth"] + 1
        assert module["elements"] == sum(r["elements"] for r in rows if r["path"].startswith("model.head."))
        norm = now.step.tensor("model.head.weight").statistics["norm"]
        assert weight["norm"] == pytest.approx(norm, rel=1e-5)
        assert weight["other_norm"] == pytest.approx(norm, rel=1e-5)
        assert "modules" in words(network.network_caption(now))

    def test_the_network_says_who_trains_what(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        from stepscope.recorder import Every, Recorder

        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        model[2].requires_grad_(False)
        with Recorder(tmp_path / "group", trial="one", schedule=Every(1)) as recorder:
            recorder.watch(model, torch.optim.SGD(model[0].parameters(), 0.1), exclude="model.2*")
            with recorder.step():
                model(torch.ones(3, 2)).sum().backward()
        now = at(Source(tmp_path / "group").group, trial="one")  # type: ignore[arg-type]
        states = {row["path"]: row["trainable"] for row in network.network_rows(now)}
        assert states["model.0.weight"] == "trainable"
        assert states["model.1.weight"] == "trainable, in no optimizer"
        assert states["model.2.weight"] == "frozen, left out"

    def test_the_network_tells_settings_and_where_they_differ(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        from stepscope.recorder import Every, Recorder
        from stepscope.viewer.views.inspector import inspector

        for name, kernel in (("narrow", 1), ("wide", 3)):
            model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, kernel, padding="same"), torch.nn.ReLU())
            with Recorder(tmp_path / "group", trial=name, schedule=Every(1)) as recorder:
                recorder.watch(model)
                with recorder.step():
                    model(torch.ones(3, 1, 8)).sum().backward()
        group = Source(tmp_path / "group").group
        rows = {row["path"]: row for row in network.network_rows(at(group, trial="narrow", compare="wide"))}  # type: ignore[arg-type]
        shown = "kernel_size=(1,), there kernel_size=(3,): 1, 4, kernel_size=(1,)"
        assert rows["model.0"]["shape"].startswith(shown)
        assert rows["model.0"]["other_settings"]
        assert rows["model.1"]["shape"] == "" and "other_settings" not in rows["model.1"]
        now = at(group, trial="narrow", compare="wide", node="model.0")  # type: ignore[arg-type]
        assert now.other is not None
        told = words(different_layers(now.trial, now.other))
        assert "model.0" in told and "kernel_size=(1,), padding" not in told and "there kernel_size=(3,)" in told
        assert different_layers(now.trial, now.trial) is None
        assert "kernel_size=(1,)" in words(inspector(now, now.step.tensor("model.0")))

    def test_config_puts_differences_first(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        one = open_trial(write_trial(tmp_path, trial="one", steps=1, config={"lr": 0.1, "depth": 3, "seed": 1}))
        two = open_trial(write_trial(tmp_path, trial="two", steps=1, config={"lr": 0.1, "depth": 4, "seed": 1}))
        text = words(texts.config_page(one, two))
        assert text.index("depth") < text.index("lr")
        assert "3" in text and "4" in text

    def test_the_cost_of_recording_is_told(self, demo: Path) -> None:
        text = words(texts.config_page(open_trial(demo / "bugged"), open_trial(demo / "fixed")))
        assert "Cost of recording" in text and "recording took" in text and "ms" in text

    def test_notes_and_the_traceback(self, group: Group) -> None:
        text = words(texts.notes_page(group["sick"], None))
        assert "Traceback" in text or "ValueError" in text

    def test_badges(self, group: Group) -> None:
        assert words(status.badge(group["healthy"])).startswith("finished")
        assert words(status.badge(group["sick"])).startswith("failed")
        assert "NaN" in words(status.notices(group["sick"], "", {}))

    def test_damage_in_another_trial_is_told(self, group: Group) -> None:
        text = words(status.notices(group["healthy"], "", {"third": "its journal is damaged"}))
        assert "Another trial cannot be opened: third: its journal is damaged" in text
        assert "Damaged, the rest is shown" not in text  # this one is whole


class TestDamage:
    def test_what_is_damaged_and_how_to_repair_it(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        path = write_trial(tmp_path / "group", trial="hurt", steps=6)
        file = path / "journal.stepscope"
        data = bytearray(file.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        file.write_bytes(data)
        trial = open_trial(path)
        assert trial.problems
        assert "what, and how to repair it" in words(status.notices(trial, "", {}))
        text = words(texts.notes_page(trial, None))
        assert trial.problems[0] in text and f"stepscope repair '{path}'" in text

    def test_a_damaged_step_says_so_in_its_place(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        path = write_trial(tmp_path / "group", trial="hurt", steps=6)
        file = path / "steps.stepscope"
        whole = file.read_bytes()
        hurt = 0
        for place in range(len(whole) // 4, 3 * len(whole) // 4, len(whole) // 12):
            data = bytearray(whole)
            data[place] ^= 0xFF
            file.write_bytes(data)
            answers = Answers(Source(tmp_path / "group"), None)
            said = [self._shown(answers, number) for number in open_trial(path).steps.tolist()]
            assert sum("cannot be read" in text for text in said) <= 1
            assert sum("model.head" in text for text in said) >= len(said) - 1 >= 4
            hurt += sum("cannot be read" in text for text in said)
        assert hurt > 0

    def _shown(self, answers: Answers, number: int) -> str:
        state, _ = answers.state({"trial": "hurt", "step": number, "node": "model.head"}, {})
        return words(answers.node(state)[0]) + words(answers.table(state)[3])


class TestSource:
    def test_a_folder_that_comes_into_being_is_found(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        source = Source(tmp_path / "later")
        before = source.refresh()
        assert source.group is None
        write_trial(tmp_path / "later", trial="one", steps=1)
        assert source.refresh() > before
        assert source.group is not None and source.group.names == ("one",)
        assert source.refresh() == source.refresh()

    def test_damage_that_is_met_while_reading_is_told(self, tmp_path: Path) -> None:
        from support.synthetic import write_trial

        file = write_trial(tmp_path / "group", trial="hurt", steps=3) / "catalog.stepscope"
        data = bytearray(file.read_bytes())
        data[2 * len(data) // 3 : 2 * len(data) // 3 + 20] = bytes(20)
        file.write_bytes(data)
        source = Source(tmp_path / "group")
        trial, before = source.trial("hurt"), source.refresh()
        assert not trial.problems
        assert trial.nodes and trial.problems
        assert source.refresh() > before and source.refresh() == source.refresh()
        first, _ = Answers(Source(tmp_path / "group"), None).state({"trial": "hurt"}, {})
        assert "Damaged, the rest is shown" in words(first["notices"])

    def test_what_comes_late_says_whose_it_is(self, folder: Path) -> None:
        """An answer on its way may be overtaken: the browser asks it what it is of."""
        answers = Answers(Source(folder), None)
        sick, healthy = (answers.state({"trial": name, "view": "findings"}, {})[0] for name in ("sick", "healthy"))
        shown = answers.page(sick)["page-markup"]
        assert "Comparing" in words(shown["markup"])
        assert answers.late_page(shown, healthy) is no_update
        late = answers.late_page(shown, sick)
        assert late["of"] == shown["of"] and "Comparing" not in words(late["markup"])
        assert answers.late_page(answers.page(sick)["page-markup"], sick) is no_update  # nothing is missing by now
        notes, _ = answers.state({"trial": "sick", "view": "notes"}, {})
        assert answers.late_page(answers.page(notes)["page-markup"], notes) is no_update

    def test_no_place_is_filled_by_two(self, folder: Path) -> None:
        """Dash keeps only one of two answers to one place that come at the same time, and it may be the stale one."""
        places = [place for output in make_app(Source(folder)).callback_map for place in output.strip(".").split("...")]
        assert "page-markup.data" in places and "late-markup.data" in places
        assert len(places) == len({place.partition("@")[0] for place in places})


@pytest.fixture
def two_kinds(tmp_path: Path) -> Trial:
    """Every fourth step is one of another kind, with a loss ten times as large."""
    with Recorder(tmp_path, trial="two kinds", schedule=1) as recorder:
        for number in range(40):
            kind, loss = ("test", 10.0) if number % 4 == 3 else ("train", 1.0)
            with recorder.step(kind) as step:
                step.record("loss", torch.tensor(loss), type="loss")
    return open_trial(tmp_path / "two kinds")


class TestKinds:
    def test_each_kind_has_its_own_line(self, two_kinds: Trial) -> None:
        lines = {curve.label: curve for curve in curves.loss_curves(two_kinds, None, "")}
        assert list(lines) == ["loss", "loss, test"]  # what trains comes first
        assert lines["loss"].values.tolist() == pytest.approx([1.0] * 30)
        assert lines["loss, test"].steps.tolist() == list(range(3, 40, 4))
        assert lines["loss, test"].values.tolist() == pytest.approx([10.0] * 10)

    def test_of_one_kind_there_is_one_line(self, two_kinds: Trial) -> None:
        assert [curve.label for curve in curves.loss_curves(two_kinds, None, "test")] == ["loss"]

    def test_the_timeline_names_the_other_kind(self, two_kinds: Trial) -> None:
        figure = curves.run_timeline(two_kinds, None, Selection(trial="two kinds"))
        assert [trace["name"] for trace in figure["data"]] == ["loss, test", "loss", "recorded"]
        assert "test" in figure["layout"]["annotations"][0]["text"]

    def test_many_kinds_are_one_line(self, tmp_path: Path) -> None:
        with Recorder(tmp_path, trial="lengths", schedule=1) as recorder:
            for number in range(12):
                with recorder.step(f"length {number % 4}") as step:
                    step.record("loss", torch.tensor(1.0), type="loss")
        assert len(curves.loss_curves(open_trial(tmp_path / "lengths"), None, "")) == 1

    @pytest.mark.parametrize(
        ("cost", "text"),
        [
            ({"share": 0.0123}, "1.2% of the time"),
            ({"share": 0.5, "is_lower_bound": True}, "at least 50.0% of the time"),
            ({"share": 1.0, "is_lower_bound": True}, "as long as the training itself"),
        ],
    )
    def test_what_recording_took(self, cost: dict[str, Any], text: str) -> None:
        assert texts.share_of_the_time(cost) == text
