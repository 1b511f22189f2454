"""The columns of the page's grids, as AG Grid takes them; the functions they name are in ``assets``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dash_ag_grid as dag

Column = dict[str, Any]

_TITLES = {
    "abs_mean": "abs mean",
    "abs_max": "abs max",
    "zero_fraction": "zeros",
    "nan_count": "NaN",
    "inf_count": "inf",
    "gradient_norm": "gradient norm",
}
_THEME = (
    "themeQuartz.withPart(colorSchemeVariable)"
    ".withParams({fontSize: 12, headerFontSize: 11, spacing: 4, cellHorizontalPadding: 7})"
)
_COUNTS = ("nan_count", "inf_count")
"""Whole numbers; any but zero is trouble."""


def number(field: str, title: str, *, width: int = 92, tooltip: str = "", whole: bool = False) -> Column:
    """A column of numbers: right-aligned, short, in full on hover; None is not finite, and red.

    Args:
        whole: whether its numbers count something, and are written with separators.
    """
    return {
        "field": field,
        "headerName": title,
        "width": width,
        "type": "rightAligned",
        "filter": "agNumberColumnFilter",
        "valueFormatter": {"function": f"stepscopeNumber(params, {'true' if whole or field in _COUNTS else 'false'})"},
        "tooltipValueGetter": {"function": "stepscopeFull(params)"},
        "cellClassRules": {
            "not-finite": "params.value === null",
            "trouble": "params.value > 0" if field in _COUNTS else "false",
        },
        **({"headerTooltip": tooltip} if tooltip else {}),
    }


def text(field: str, title: str, width: int, **more: Any) -> Column:
    """A column of words."""
    return {"field": field, "headerName": title, "width": width, "filter": True, "tooltipField": field, **more}


def tensor_columns(names: Sequence[str], statistic: str, compare: str) -> list[Column]:
    """Of the table below the graph."""
    titles = dict(_TITLES) | {"other": f"{statistic}, {compare}", "ratio": "ratio"}
    tooltips = {"ratio": f"{statistic} of this trial over that of {compare}"}
    not_finite = "params.data.nan_count > 0 || params.data.inf_count > 0"
    name = text(
        "node",
        "tensor",
        196,
        pinned="left",
        cellClass="tensor",
        cellClassRules={"trouble": not_finite},
        # Marked as left-to-right, as the cell is set right-to-left so that names are cut at their front.
        valueFormatter={"function": "'\\u200e' + params.value + '\\u200e'"},
    )
    kind = text("type", "type", 86, cellClass={"function": "'type type-' + params.value"})
    numbers = [number(n, titles.get(n, n), width=_width(n), tooltip=tooltips.get(n, "")) for n in names]
    return [name, text("role", "role", 78), kind, text("shape", "shape", 92), *numbers]


def _width(name: str) -> int:
    return {"gradient_norm": 112, "other": 104, "ratio": 76, "nan_count": 62, "inf_count": 62}.get(name, 84)


def neuron_columns(columns: Iterable[tuple[str, str]]) -> list[Column]:
    """Of the inspector's neurons."""
    return [_neuron_column(field, title) for field, title in columns]


def _neuron_column(field: str, title: str) -> Column:
    if field == "neuron":
        order = {"function": "stepscopeByPosition"}
        return {"field": field, "headerName": title, "width": 78, "pinned": "left", "comparator": order}
    return number(field, title, width=max(84, 16 + 7 * min(len(title), 16)))


def network_columns(*, compared: str) -> list[Column]:
    """Of the page of modules."""
    name = text("name", "module or parameter", 260, pinned="left", sortable=False, tooltipField="path",
                cellStyle={"function": "({paddingLeft: 12 + 18 * params.data.depth + 'px', "
                                       "fontWeight: params.data.is_module ? 600 : 400})"})  # fmt: skip
    columns = [
        name,
        text("kind", "class", 112),
        text("shape", "shape, or settings", 168, cellClassRules={"different": "params.data.other_settings"}),
        number("elements", "parameters", width=100, whole=True),
        text("trainable", "state", 88),
        text("dtype", "dtype", 72),
        number("norm", "norm"),
        number("gradient_norm", "gradient norm", width=112),
        number("update_ratio", "update ratio", width=104, tooltip="norm of the update over the norm of the value"),
    ]
    if compared:
        columns.insert(7, number("other_norm", f"norm, {compared}", width=124))
    return [*columns, text("shared", "also known as", 130)]


def grid(id: str, *, row_height: int = 25) -> dag.AgGrid:
    """A virtualised, sortable table that keeps its selection when its rows change."""
    return dag.AgGrid(
        id=id,
        columnDefs=[],
        rowData=[],
        getRowId="params.data.key",
        defaultColDef={"sortable": True, "resizable": True, "suppressHeaderMenuButton": True},
        dashGridOptions={
            "rowHeight": row_height,
            "headerHeight": 28,
            "animateRows": False,
            "tooltipShowDelay": 300,
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": False},
            "theme": {"function": _THEME},
            "suppressNoRowsOverlay": True,
            "suppressMovableColumns": True,
        },
        style={"height": "100%", "width": "100%"},
    )
