"""What the callbacks answer, in plain methods, so that it can be tested without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import no_update

from stepscope.store import Tensor, Trial
from stepscope.store.errors import StoreError
from stepscope.viewer.at import PARTS, diagnosed_at, keys_of, keys_of_findings
from stepscope.viewer.custom import CustomPage
from stepscope.viewer.diagnoses import Diagnoses
from stepscope.viewer.figures import empty
from stepscope.viewer.grids import network_columns, neuron_columns, tensor_columns
from stepscope.viewer.markup import Markup, el
from stepscope.viewer.page_state import page_state
from stepscope.viewer.resolve import Resolved, resolve
from stepscope.viewer.selection import Selection, from_json
from stepscope.viewer.source import Source
from stepscope.viewer.views import curves, findings, network, texts
from stepscope.viewer.views.about import about, against, comparable, different_layers, parting
from stepscope.viewer.views.column import shown_statistic
from stepscope.viewer.views.drawing import drawing
from stepscope.viewer.views.graph_overlay import overlay
from stepscope.viewer.views.hints import hints_section, pending
from stepscope.viewer.views.inspector import inspector, not_recorded, nothing_selected, unreadable
from stepscope.viewer.views.moment import Moment, moment
from stepscope.viewer.views.neurons import NeuronTable, neuron_table
from stepscope.viewer.views.over_steps import over_steps
from stepscope.viewer.views.overview import overview
from stepscope.viewer.views.scalars import scalars
from stepscope.viewer.views.tensors_table import columns_of, table_rows

Json = Mapping[str, Any]
_DEFAULT_SIZE = (900, 380)


def size_of(data: Json | None) -> tuple[int, int]:
    """The size of the graph's panel, as the browser told it."""
    given = (data or {}).get("size")
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(n, (int, float)) for n in given):
        return _DEFAULT_SIZE
    width, height = (min(max(int(n), 300), 6000) for n in given)
    return width, height


class Answers:
    """The answers about one folder of recordings, one method for each part of the page."""

    def __init__(self, source: Source, custom: CustomPage | None) -> None:
        self.source = source
        self.custom = custom
        self.diagnoses = Diagnoses()

    def poll(self, known: int | None) -> Any:
        version = self.source.refresh()
        if self.custom is not None:
            version += int(self.custom.changed * 1000)
        return no_update if version == known else version

    def state(self, wish: Json | None, keys: Mapping[str, Any]) -> tuple[Json, dict[str, Any]]:
        """The answer to a wish, and the keys of the parts that have to be computed again."""
        size = size_of(wish)
        answer = page_state(self.source, from_json(wish), str((wish or {}).get("changed") or ""), size)
        fresh = keys_of(answer, self.source.group, size)
        return answer.to_json(), {part: fresh[part] for part in PARTS if fresh[part] and fresh[part] != keys.get(part)}

    def now(self, state: Json | None) -> Moment | None:
        """The moment that the page shows; None if there is none."""
        group = self.source.group
        if not state or group is None:
            return None
        return moment(from_json(state["selection"]), group)

    def graph(self, state: Json, key: Json) -> Any:
        now = self.now(state)
        if now is None:
            return no_update
        return drawing(now, size_of(key))

    def table(self, state: Json) -> tuple[Any, ...]:
        """Overlay, columns and rows of the table, overview."""
        try:
            now = self.now(state)
            if now is None:
                return no_update, no_update, no_update, no_update
            selection = now.selection
            statistic = shown_statistic(selection.statistic, selection.sample)
            columns = tensor_columns(
                columns_of(selection, compared=now.there is not None), statistic, selection.compare
            )
            rows = table_rows(now.step, selection, now.there)
            return overlay(now.step, selection, now.there), columns, rows, overview(now)
        except StoreError as error:
            return {}, [], [], unreadable(error)

    def node(self, state: Json) -> tuple[Any, ...]:
        """Inspector, history, histogram; the neurons' caption, columns and rows."""
        try:
            now = self.now(state)
            tensor = now.tensor() if now is not None else None
            if now is None or tensor is None:
                return self._no_tensor(now), empty(), empty(), "", [], []
            return self._tensor(now, tensor)
        except StoreError as error:
            return unreadable(error), empty(), empty(), "", [], []

    def _tensor(self, now: Moment, tensor: Tensor) -> tuple[Any, ...]:
        neurons = self._neurons(now, tensor)
        return (
            inspector(now, tensor),
            curves.tensor_history(now, tensor),
            curves.tensor_histogram(now, tensor),
            neurons.caption,
            neuron_columns(neurons.columns),
            list(neurons.rows),
        )

    def _no_tensor(self, now: Moment | None) -> Any:
        if now is None or not now.selection.node or self.source.group is None:
            return nothing_selected(now)
        resolved: Resolved = resolve(now.selection, self.source.group)
        return not_recorded(now, resolved.nearby)

    def _neurons(self, now: Moment, tensor: Tensor) -> NeuronTable:
        try:
            return neuron_table(tensor, now.counterpart_of(tensor))
        except StoreError as error:
            return NeuronTable(caption=f"The neurons cannot be read: {error}")

    def trials(self, state: Json) -> tuple[Selection, Any, Any]:
        """The selection, its trial, and the compared one."""
        selection = from_json(state["selection"])
        other = self.source.trial(selection.compare) if selection.compare else None
        return selection, self.source.trial(selection.trial), other

    def timeline(self, state: Json) -> Any:
        selection, trial, other = self.trials(state)
        return curves.run_timeline(trial, other, selection, self.diagnoses.known(trial))

    def findings(self, state: Json) -> tuple[Any, Json]:
        """The left panel's findings; and what marks them elsewhere, upon which the timeline is redrawn."""
        _, trial, other = self.trials(state)
        found = self.diagnoses.of(trial)
        marked = {"trial": trial.name, "when": diagnosed_at(trial), "marks": findings.marks(found)}
        if other is None:
            return findings.panel(trial, found), marked
        parted, looked_at = self.diagnoses.parted(trial, other)
        where = [different_layers(trial, other), parting(parted, looked_at=looked_at)]
        beside = el("div.parted", el("h3", f"Against {other.name}"), *where)
        return el("div", findings.panel(trial, found), beside), marked

    def nodes(self, state: Json) -> list[dict[str, str]]:
        _, trial, _ = self.trials(state)
        return [{"value": node.name, "label": node.name} for node in trial.nodes]

    def page(self, state: Json) -> dict[str, Any]:
        """What the page that is on the screen shows, by the name of the output."""
        selection, trial, other = self.trials(state)
        if selection.view == "steps":
            figure, caption = over_steps(trial, other, selection)
            return {"steps-chart": figure, "steps-caption": caption}
        if selection.view == "scalars":
            figure, caption = scalars(trial, other, selection)
            return {"scalars-chart": figure, "scalars-caption": caption}
        if selection.view == "findings":
            shown = {"into": "page-findings", "of": keys_of_findings(trial, other)}
            return {"page-markup": {**shown, "markup": self._findings_page(trial, other)}}
        if selection.view in ("notes", "config"):
            make = texts.notes_page if selection.view == "notes" else texts.config_page
            return {"page-markup": {"into": f"page-{selection.view}", "markup": make(trial, other)}}
        if selection.view == "custom" and self.custom is not None:
            return {"custom": self.custom.render(trial, selection)}
        now = self.now(state)
        if selection.view != "network":
            return {}
        if now is None:
            nothing = el("p.note", "The network appears with the first recorded step.")
            return {"page-markup": {"into": "network-caption", "markup": nothing}}
        return {
            "network-columns": network_columns(compared=selection.compare if now.there is not None else ""),
            "network-rows": network.network_rows(now),
            "page-markup": {"into": "network-caption", "markup": network.network_caption(now)},
        }

    def late_page(self, shown: Json | None, state: Json) -> Any:
        """The page of the findings again, with the hints, which take longer than the rest; no other page has such.

        It says ``of`` what it is, as the page did: whoever has gone on by the time that it comes needs it no more.
        """
        _, trial, other = self.trials(state)
        if not shown or shown.get("of") != keys_of_findings(trial, other):
            return no_update
        if self.diagnoses.known_hints(trial) is not None:
            return no_update
        self.diagnoses.hints_of(trial)
        return {**shown, "markup": self._findings_page(trial, other)}

    def _findings_page(self, trial: Trial, other: Trial | None) -> Markup:
        known = self.diagnoses
        beside: list[Markup | None] = [about(trial)]
        if other is not None:
            parted, looked_at = known.parted(trial, other)
            beside.append(against(trial, other, parted, looked_at=looked_at))
        elif self.source.group is not None:
            beside.append(comparable(self.source.group.names, trial))
        hints = known.known_hints(trial)
        beside.append(pending() if hints is None else hints_section(hints))
        return findings.page(trial, known.of(trial), beside)
