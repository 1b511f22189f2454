"""The rule ``batch-norm-mode``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.history import History, Values
from stepscope.analysis.layers import rms
from stepscope.analysis.parameters import has_gradient
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class BatchNormMode(Rule):
    """Batch normalisation that works in the wrong mode, or whose running statistics do not fit.

    Symptom: results in evaluation depend on what else is in the batch, or are far worse than in training.

    How it is measured: in training mode the output of a BatchNorm has the mean of its bias, up to rounding, whatever
    goes in; in evaluation mode it has not. So the mode of each recorded step shows in the numbers (of float32 outputs).
    Evaluation mode in training counts if the layer learns; it is worth knowing only if no step is in the other mode:
    a normalisation is often frozen so on purpose. Of evaluating steps in evaluation mode, the size of the
    output is compared with that in training: they differ if the running statistics are not those of the data. And the
    momentum that a call was given tells of how many batches they are.

    Causes: ``model.eval()`` or ``model.train()`` is forgotten or called at the wrong time; a momentum that is too small
    for the number of steps; evaluation data that are prepared in another way.

    Remedy: call ``model.train()`` before training and ``model.eval()`` before evaluating, every time.

    Attributes:
        rounding: how far the mean may be from that of the bias, as a part of the values' size. Source: sums of float32
            are exact to 1e-6 or so; running statistics miss a batch's by 1e-3 and more.
        factor: between the sizes of the output in evaluation and training. Source: our healthy runs stay below 1.5.
        kept: the part of the running statistics that is still that of the start after all steps, ``(1 - momentum)`` to
            the power of the steps. Source: a cumulative average keeps 1/e; the default of 0.1 keeps 1e-5 of 100 steps.
        least: a shorter training says nothing of it.
    """

    name = "batch-norm-mode"
    causes = "model.eval() or model.train() is forgotten or misplaced, or the running statistics had no time to settle."
    remedy = "Call model.train() before training and model.eval() before evaluating; use the default momentum."
    rounding: float = 1e-5
    factor: float = 3.0
    kept: float = 0.6
    least: int = 50

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._momenta(view)
        kinds = {step.number: step.kind for step in view.steps}
        for path in _norms(view) if view.training else ():
            history = view.history(path, training=False)
            in_training = self._in_training_mode(view, path, history)
            trains = np.array([kinds.get(number) in view.training_kinds for number in history.steps.tolist()], bool)
            yield from self._in_training(view, path, history.steps, in_training, trains)
            yield from self._in_evaluation(view, path, history, in_training, trains)

    def _momenta(self, view: View) -> Iterator[Finding]:
        """Running statistics that are still those of the start, or those of the last batch alone."""
        if not view.training:
            return
        last = view.training[-1]
        count = last.number + 1
        calls = {call for number in last.iterations for call in last.graph(number).calls if call.kind == "momentum"}
        graph = last.graph(last.iterations[0])
        for call in sorted(calls, key=lambda call: call.after):
            momentum = float(call.operation.partition("momentum=")[2].rstrip(")"))
            kept = (1 - momentum) ** count
            node = graph.vertices[(*call.after, *call.before)[0]].node
            if momentum >= 0.5:
                text = f"keep {momentum:.0%} of the last batch and forget the others: momentum is {momentum:g}"
            elif kept > self.kept and count >= self.least:
                text = f"are still {kept:.0%} those of the start after {count} steps: momentum is {momentum:g}"
            else:
                continue
            yield self.finding(
                view, node, "warning", f"The running statistics of {node} {text}, where 0.1 is usual.",
                step=view.training[0].number, confidence=0.8, source=call.source,
                remedy="Use momentum=0.1: torch's is the share of the new batch, other frameworks' that of the old.",
            )  # fmt: skip

    def _in_training_mode(self, view: View, path: str, history: History) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        bias = view.history(f"{path}.bias", training=False)
        known = dict(zip(bias.steps.tolist(), bias.of("mean").tolist(), strict=True))
        expected = np.array([known.get(number, 0.0) for number in history.steps.tolist()])
        distance: Values = np.abs(history.of("mean") - expected)
        return np.asarray(distance <= self.rounding * (rms(history) + np.abs(expected)))

    def _in_training(
        self, view: View, path: str, steps: np.ndarray, mode: np.ndarray, trains: np.ndarray
    ) -> Iterator[Finding]:
        wrong = steps[trains & ~mode]
        learns = has_gradient(view, f"{path}.weight")
        if len(wrong) < 3 or len(wrong) * 2 < trains.sum() or not learns:
            return
        level: Level = "warning" if np.any(mode) else "info"
        text = (
            f"{path} is in evaluation mode in {len(wrong)} of {trains.sum()} training steps, from step {wrong[0]} on."
        )
        yield self._finding(view, path, level, text, int(wrong[0]))

    def _in_evaluation(
        self, view: View, path: str, history: History, mode: np.ndarray, trains: np.ndarray
    ) -> Iterator[Finding]:
        wrong = history.steps[~trains & mode]
        if len(wrong) >= 2 and len(wrong) * 2 > (~trains).sum():
            text = f"{path} normalises by the batch while the net is evaluated: model.eval() was not called."
            yield self._finding(view, path, "warning", text, int(wrong[0]))
            return
        sizes = rms(history)
        evaluated, trained = sizes[~trains & ~mode], sizes[trains & mode]
        if len(evaluated) < 2 or len(trained) < 3:
            return
        one, two = median(evaluated[-3:]), median(trained[-5:])
        if not (two / self.factor <= one <= two * self.factor):
            text = (
                f"The running statistics of {path} do not fit: its output has a size of {one:.3g} in evaluation and of "
                f"{two:.3g} in training."
            )
            yield self._finding(view, path, "warning", text, int(history.steps[~trains & ~mode][0]))

    def _finding(self, view: View, path: str, level: Level, text: str, step: int) -> Finding:
        shown = [evidence(view.history(path, training=False), "mean", "its mean, that of the bias in training mode")]
        return self.finding(view, path, level, text, shown, step=step, confidence=0.85)


def _norms(view: View) -> Iterator[str]:
    """The batch normalisations whose outputs are recorded in float32, once a step."""
    dtypes = {t.node: t.dtype for part in view.readings for t in part.layout.tensors if t.quantity == "value"}
    for path, module in view.modules.items():
        is_norm = module.module_class.startswith(("BatchNorm", "SyncBatchNorm"))
        if is_norm and dtypes.get(path) == "float32" and len(view.nodes[path].roles) == 1:
            yield path
