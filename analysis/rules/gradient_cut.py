"""The rule ``gradient-cut``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import line_of_cut, line_of_loss_of_numbers, sites_of
from stepscope.analysis.lost_losses import computed, lost_losses
from stepscope.analysis.own_state import cut_state
from stepscope.analysis.parameters import Parameter, gather, has_gradient, in_sentence, listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.twins import is_copy
from stepscope.analysis.view import View, evidence

_AS_TENSORS = "Add the losses as tensors: sum(losses), or torch.stack(losses).mean(); no item(), no torch.tensor()."


@dataclass(frozen=True)
class _Cut:
    """An edge towards the loss along which no gradient comes back."""

    source: Place
    sink: Place


@dataclass(frozen=True)
class GradientCut(Rule):
    """The way back from the loss is cut, so that parameters in front of the cut get no gradient.

    Symptom: a part of the net stays as it was initialised while the rest learns around it.

    How it is measured: a trainable parameter got no gradient in any recorded step, although the loss was computed
    from it. The finding names the last tensor on the way that still carries a gradient, and what was made of it.
    A copy that follows another module (a target network, a momentum encoder) is cut on purpose: it starts with the
    same weights as a module that does learn. Where no input reaches a loss at all, but something that learns ends in
    nothing and something else begins with nothing, the values went from the one to the other behind torch's back. So
    they did, maybe, if what such parameters give ends at a ``detach()``, and what a loss is held against has its shape.
    Besides: losses that are computed, but are no part of what ``backward`` is called on; a recurrent cell, or another
    module that is called on its own state, whose state is cut off between all calls of a step (worth knowing only,
    where each call has a loss: truncated on purpose, maybe); random numbers drawn with computed parameters
    (``sample()`` instead of ``rsample()``) that go into a layer, unless their log-probability is in the loss: so a
    policy learns.

    Causes: ``detach()``, ``.data``, ``.item()``, ``torch.no_grad()``, ``argmax`` or rounding, numpy, a tensor made anew
    with ``torch.tensor(...)``.

    Remedy: take the cut out, or freeze the part that is not meant to learn (``requires_grad_(False)``).

    Source: no threshold.
    """

    name = "gradient-cut"
    causes = "detach(), .data, .item(), no_grad(), argmax or rounding, numpy, or torch.tensor(...) of a computed value."
    remedy = "Take the cut out; or freeze what is in front of it, if it is not meant to learn."

    def check(self, view: View) -> Iterable[Finding]:
        cuts = list(self._cuts(view))
        yield from cuts
        said = {finding.source for finding in cuts}
        yield from (finding for finding in self._drawn(view) if finding.source not in said)
        yield from self._between_calls(view)

    def _between_calls(self, view: View) -> Iterable[Finding]:
        """A module that is called again and again on its own state, which is cut off each time: it learns no memory."""
        for path in view.modules:
            state = cut_state(view, path)
            if state is not None:
                summary = (
                    f"No gradient flows from one call of {path} to the one before: its state is cut off at each of the "
                    f"{state.calls} calls of a step (detach, or made anew), so that it cannot learn what to remember."
                )
                yield self.finding(
                    view, path, "warning" if state.is_sure else "info", summary, step=view.began,
                    source=state.source, confidence=0.85,
                    nodes=[name for name in [path.rpartition(".")[0]] if name in view.nodes],
                )  # fmt: skip

    def _cuts(self, view: View) -> Iterable[Finding]:
        without = [parameter for parameter in trainable(view) if not has_gradient(view, parameter.node)]
        if not view.training or not without:
            return
        towards_loss = view.flow.upstream(view.losses)
        cuts: dict[_Cut, list[Parameter]] = {}
        for parameter in without:
            cut = max(_cuts_after(view, parameter, towards_loss), key=lambda cut: _depth(view, cut), default=None)
            if cut is not None:
                cuts.setdefault(cut, []).append(parameter)
        for cut, parameters in _joined(view, cuts):
            yield self._finding(view, cut, parameters)
        yield from self._torn(view, without, towards_loss) or self._left(view, without, towards_loss)
        told = {parameter for group in cuts.values() for parameter in group}
        yield from self._lost(view, [parameter for parameter in without if parameter not in told])

    def _lost(self, view: View, without: list[Parameter]) -> Iterable[Finding]:
        """Losses that are computed but are no part of what ``backward`` is called on."""
        lost = lost_losses(view, without)
        if lost is None:
            return
        nodes, driven = [parameter.node for parameter in lost.parameters], lost.driven.node
        if lost.is_new_tensor:
            made = view.flow.vertices[lost.driven].operation
            summary = (
                f"{driven}, which backward() is called on, is a new tensor{f' (made by {made})' if made else ''}: "
                f"it requires a gradient (requires_grad) but passes none on to {listed(lost.terms)}, so that "
                f"none arrives at {in_sentence(nodes, 'trainable parameter')} in {len(view.training)} training steps."
            )
        else:
            summary = (
                f"{listed(lost.terms)} is no part of the loss that backward() is called on ({driven}), or only as a "
                f"number (item()): no gradient from it arrives at {in_sentence(nodes, 'trainable parameter')}."
            )
        first = lost.driven if lost.is_new_tensor else lost.first
        yield self.finding(
            view, first.node, "error" if lost.is_new_tensor else "warning", summary,
            [evidence(view.history(nodes[0]), "norm", f"{nodes[0]} has no gradient")], step=view.began,
            nodes=[*(term for term in lost.terms if term != first.node), *nodes],
            source=view.flow.vertices[first].source, remedy=_AS_TENSORS,
        )  # fmt: skip

    def _drawn(self, view: View) -> Iterable[Finding]:
        """Random numbers whose parameters learn, and that a part of the net goes on with: their gradient is lost."""
        towards_loss = view.flow.upstream(view.losses, differentiable=True)
        for site in sites_of(view, "draw") if view.training else ():
            learned = [place for place in site.before if view.flow.vertices[place].type == "calculated"]
            used = [place for place in site.after if _is_layer(view, place) and place in towards_loss]
            if learned and used and not _is_weighed(view, site, towards_loss):
                node = min(learned, key=lambda place: view.position.get(place.node, 0)).node
                summary = (
                    f"What {used[0].node} gets is drawn by {site.operation}, with what {node} gives as its parameters: "
                    f"no gradient flows back through a draw, so that {node} does not learn from {used[0].node}."
                )
                yield self.finding(
                    view, node, "warning", summary, step=view.began, source=site.source,
                    nodes=list(dict.fromkeys(place.node for place in (*used, *learned) if place.node != node)),
                    remedy="Draw with rsample(), or as mean + std * torch.randn_like(std).",
                )  # fmt: skip

    def _torn(self, view: View, without: list[Parameter], towards_loss: set[Place]) -> list[Finding]:
        """Where no input reaches a loss: what ends in nothing, and what begins with nothing."""
        inputs = view.flow.of_type("input")
        if not inputs or any(place in towards_loss for place in inputs):
            return []
        reached = view.flow.downstream(inputs)
        ends = [place for place in computed(view, reached) if not view.flow.sinks.get(place)]
        starts = [place for place in computed(view, towards_loss) if _is_start(view, place)]
        mine = [
            parameter.node for parameter in without if set(view.flow.of_node(parameter.node)) & view.flow.upstream(ends)
        ]
        if ends and starts and mine:
            end, start = ends[-1].node, starts[0].node
            summary = (
                f"The way from the input ends at {end}, and {start} is made of nothing that was recorded: the values "
                f"left torch in between (numpy, plain numbers), and {listed(mine)} get no gradient."
            )
            shown = [evidence(view.history(mine[0]), "norm", f"{mine[0]} has no gradient")]
            step = view.began
            return [self.finding(
                view, end, "warning", summary, shown, step=step, nodes=[start, *mine], confidence=0.85,
                source=line_of_loss_of_numbers(view, ends[-1]),
            )]  # fmt: skip
        return []

    def _left(self, view: View, without: list[Parameter], towards_loss: set[Place]) -> Iterable[Finding]:
        """What ends at a ``detach()``, while something of its shape that nothing recorded has made is in a loss."""
        starts = [place for place in view.flow.of_type("target") if not view.flow.sources.get(place)]
        shapes = {view.shape(place, view.training[-1]): place.node for place in starts if place in towards_loss}
        for site in sites_of(view, "cut"):
            ends = [place for place in site.before if place not in towards_loss]
            start = next((shapes[shape] for end in ends if (shape := view.shape(end, view.training[-1])) in shapes), "")
            if site.after or site.operation != "detach" or not start:
                continue
            behind = view.flow.upstream(ends, differentiable=True)
            mine = [p.node for p in without if not behind.isdisjoint(view.flow.of_node(p.node))]
            if mine:
                summary = (
                    f"What {ends[0].node} gives is cut off (detach) and goes into nothing that was recorded, so that "
                    f"{listed(mine)} get no gradient; {start}, which a loss is computed from, has its shape, and "
                    f"begins there: were the values handed on outside of torch (numpy, plain numbers)?"
                )
                shown = [evidence(view.history(mine[0]), "norm", f"{mine[0]} has no gradient")]
                yield self.finding(
                    view, ends[0].node, "warning", summary, shown, step=view.began, nodes=[start, *mine],
                    confidence=0.7, source=site.source,
                )  # fmt: skip
                return

    def _finding(self, view: View, cut: _Cut, parameters: list[Parameter]) -> Finding:
        nodes = [parameter.node for parameter in parameters]
        sink = view.flow.vertices[cut.sink]
        if view.flow.vertices[cut.source].type == "parameter":
            start, where = cut.sink.node, f"through {listed(gather(view, parameters))}"
        else:
            made = f" (made by {sink.operation})" if sink.operation else ""
            start, where = cut.source.node, f"between {cut.source.node} and {cut.sink.node}{made}"
        summary = (
            f"No gradient flows back {where}: none arrives at {in_sentence(nodes, 'trainable parameter')} in front of "
            f"it in {len(view.training)} training steps."
        )
        level: Level = "info" if is_copy(view, nodes) else "warning"
        others = [name for name in (cut.sink.node, *nodes) if name != start]
        shown = [evidence(view.history(nodes[0]), "norm", f"{nodes[0]} has no gradient")]
        line = line_of_cut(view, cut.source, cut.sink)
        step = view.began
        return self.finding(view, start, level, summary, shown, step=step, nodes=others, source=line)


def _is_layer(view: View, place: Place) -> bool:
    """Whether parameters take part in it: what a log-probability of the draw is, is no such thing."""
    sources = (view.flow.vertices[link.place].type for link in view.flow.sources.get(place, ()))
    return view.flow.vertices[place].type == "calculated" and "parameter" in sources


def _is_weighed(view: View, site: Site, towards_loss: set[Place]) -> bool:
    """Whether a number without parameters of its own comes of a draw and, with gradient, of what it was drawn with."""
    return any(
        link.differentiable and link.place in site.before
        for place in site.after
        if place in towards_loss and not _is_layer(view, place)
        for link in view.flow.sources.get(place, ())
    )


def _is_start(view: View, place: Place) -> bool:
    """Whether a module's output was made of parameters alone, as far as the recording knows."""
    sources = [view.flow.vertices[link.place].type for link in view.flow.sources.get(place, ())]
    return bool(sources) and all(kind in ("parameter", "buffer") for kind in sources)


def _joined(view: View, cuts: dict[_Cut, list[Parameter]]) -> Iterable[tuple[_Cut, list[Parameter]]]:
    """The cuts; those at the parameters themselves (all of a module runs without gradients) as one for each module."""
    whole: dict[str, _Cut] = {}
    direct = {cut: group for cut, group in cuts.items() if view.flow.vertices[cut.source].type == "parameter"}
    of_parameter = {parameter.node: cut for cut, group in direct.items() for parameter in group}
    modules = gather(view, (parameter for group in direct.values() for parameter in group))
    for module, parameters in modules.items():
        own = [of_parameter[parameter.node] for parameter in parameters]
        whole[module] = max(own, key=lambda cut: _depth(view, cut))
    yield from ((whole[module], parameters) for module, parameters in modules.items())
    yield from ((cut, group) for cut, group in cuts.items() if cut not in direct)


def _cuts_after(view: View, parameter: Parameter, towards_loss: set[Place]) -> Iterable[_Cut]:
    """Where the gradient's way from the losses to a parameter ends; nothing if the parameter is not used."""
    start = [place for place in view.flow.of_node(parameter.node) if place in towards_loss]
    carrying = view.flow.downstream(start, differentiable=True)
    for place in sorted(carrying, key=lambda place: view.position.get(place.node, 0)):
        for link in view.flow.sinks.get(place, ()):
            if not link.differentiable and link.place in towards_loss:
                yield _Cut(place, link.place)


def _depth(view: View, cut: _Cut) -> tuple[int, int, str]:
    return view.position.get(cut.source.node, 0), view.position.get(cut.sink.node, 0), cut.sink.role
