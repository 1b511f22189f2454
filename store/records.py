"""What recorder and store exchange: plain frozen records, numpy only.

A *step record* is one recorded training step. It is columnar: ``tensors`` lists what was measured (one entry a
*row*: a node's role, at an iteration, as a quantity), and every array of the record has one entry a row, in the
same order. The record says nothing about files; ``FORMAT.md`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float32", "bf16"]
"""Of raw values of neurons in a recording. ``"float32"``: exactly as they were, also if they are float64."""

TensorType = Literal["input", "parameter", "buffer", "calculated", "target", "loss"]

WHOLE_STEP = -1
"""The iteration of what belongs to a step as a whole: parameters, and tensors made outside its iterations."""

STATISTICS = (
    "mean",
    "std",
    "abs_mean",
    "abs_max",
    "min",
    "max",
    "norm",
    "zero_fraction",
    "nan_count",
    "inf_count",
    "spectral_norm",
)
"""Statistics over all finite elements of a tensor; the columns of ``StepRecord.statistics``.

``std`` is the population standard deviation (divides by n). ``norm`` is the Euclidean norm. ``zero_fraction`` is of
all elements, ``nan_count`` and ``inf_count`` count elements. A statistic that was not measured, or has no finite
element to be measured on, is NaN. ``spectral_norm`` is measured for the values of parameters with two or more
dimensions, flattened to ``(first, rest)``.
"""

SAMPLE_STATISTICS = ("mean", "std", "abs_mean", "abs_max")
"""What is measured of each sample over its neurons, and of each neuron (without ``abs_mean``) over the batch."""

BATCH_AGGREGATES = ("batch_mean", "batch_std", "batch_abs_max")
"""What is measured over the batch, of each of the ``SAMPLE_STATISTICS``."""

NEURON_STATISTICS = ("mean", "std", "abs_max")
"""What is measured of each kept neuron, over the batch."""

HISTOGRAM_MIN_EXPONENT = -40
HISTOGRAM_MAX_EXPONENT = 24
HISTOGRAM_HALF_BINS = 2 * (HISTOGRAM_MAX_EXPONENT - HISTOGRAM_MIN_EXPONENT)
"""Bins a sign: two an octave, split at 1.5 times the power of two."""
HISTOGRAM_BINS = 2 * HISTOGRAM_HALF_BINS + 4
"""Order: -inf, negative bins (largest magnitude first), zero, positive bins (smallest first), +inf, NaN.

The outermost finite bins also count what is larger in magnitude than they are, the innermost what is smaller
(subnormals too), so that no element is lost.
"""


@dataclass(frozen=True)
class TensorInfo:
    """What a row of a step record is: the facts about a tensor that seldom change between steps.

    ``quantity`` is ``"value"``, ``"gradient"``, ``"gradient:<loss group>"``, ``"gradient:backward <n>"``,
    ``"gradient before clipping"``, ``"update"`` or the name of an optimizer state such as ``"exp_avg"``. ``batch_dim``
    is None for tensors without a batch (parameters, losses).
    """

    node: str
    role: str
    iteration: int
    quantity: str
    type: TensorType
    dtype: str
    device: str
    batch_dim: int | None


@dataclass(frozen=True)
class Neurons:
    """The kept neurons of one row.

    A neuron is one element of the tensor without its batch dimension, counted in C order. All ``total`` of them are
    kept, or as many as the limit: then number ``i`` of ``n`` is neuron ``i * total // n``.

    ``statistics`` is ``(3, n)``, rows as in ``NEURON_STATISTICS``, or None where there is no batch dimension.
    ``samples`` is ``(kept samples, n)``: the raw values; without a batch dimension it is ``(1, n)``. ``precision`` is
    ``"bf16"`` if these were rounded to bfloat16 when they were written.
    """

    total: int
    statistics: NDArray[np.float32] | None
    samples: NDArray[np.float32] | NDArray[np.float64]
    precision: Precision = "float32"


@dataclass(frozen=True)
class SourceLine:
    """A place in the user's code: file as given to Python, line number from 1, the stripped text of that line."""

    file: str
    line: int
    text: str
    function: str = ""


@dataclass(frozen=True)
class Vertex:
    """One role of a node, as it stands in the graph of an iteration.

    ``lag`` is 0 for what this iteration made (or the step as a whole), and k for a tensor that was made k iterations
    ago and is used in this one: a hidden state that is carried over. ``module`` is the path of the module whose
    output it is, or inside whose ``forward`` it was made; ``operation`` the torch function that made it.
    """

    node: str
    role: str
    lag: int
    type: TensorType
    module: str
    module_class: str
    operation: str
    source: SourceLine | None
    whole_step: bool = False


@dataclass(frozen=True)
class Edge:
    """``sink`` was computed from ``source`` (indices of vertices) with no further named tensor between them.

    ``differentiable`` says whether a gradient can flow back along the edge.
    """

    source: int
    sink: int
    differentiable: bool


BACKWARD, ZERO_GRAD, OPTIMIZER_STEP = "backward", "zero_grad", "optimizer step"
EARLY_CLIPPING = "clipping before backward"
HELD_GRADIENTS = "held gradients"
"""What a call of the kind ``step`` may be, besides what wrote to gradients. The last: a ``backward`` that adds to what
an earlier step has left, as no ``zero_grad`` came in between.
"""


@dataclass(frozen=True)
class Call:
    """A call in the user's code that is worth knowing, although what it made has no name.

    ``before`` and ``after`` are the nearest named tensors (indices of vertices) on both of its sides.

    Kinds:

    * ``cut``: something that requires a gradient gave something that does not (``detach``, ``data``, ``argmax``, a
      comparison, anything under ``no_grad``), or left torch (``numpy``, ``item``, ``tolist``). ``before`` is what a
      gradient would have reached; nothing is ``after`` a call whose result no named tensor was computed from.
    * ``edge``: an operation that is infinite, or has an infinite slope, at the edge of its domain (``sqrt``, ``log``).
    * ``not finite``: an operation that can make infinite numbers, or NaN, out of finite ones, and gave some.
    * ``mix``: a ``view`` or ``reshape`` that puts the samples of a batch elsewhere without moving their numbers.
    * ``scramble``: the same of another dimension, such as time.
    * ``time first``: a recurrent layer that reads the first dimension as time; ``carried state``: one that starts from
      a state which the step did not make.
    * ``along first``: the first rows of a longer table, added along the first dimension: ``add(32)``, its length.
    * ``whole batch``: a reduction of a table to one number that is then added to what each sample has of its own.
    * ``plus log``, ``minus log``: a single number that is made of one logarithm of probabilities, with this sign:
      ``mean(alone)``, or ``mean(weighted)`` with data; ``mean(pair)``: of the sigmoid of a difference of two scores.
    * ``own backward``: a function of the user's own, ``class F(torch.autograd.Function)``, where its result is used.
    * ``starts``: a slice, on the way to a loss, that begins later than what it was cut from: ``getitem(1)``.
    * ``no gradient``: a number that a loss adds, and that passes no gradient on although weights made it that learn;
      ``no graph``: the same of a derivative that ``autograd.grad`` took; ``entropy``: the product of probabilities with
      their logarithms, with a minus, beside a policy gradient; ``greatest``: a prediction that is the greatest of
      several numbers, compared with one; ``swapped shares``: losses that are mixed the other way round than samples.
    * ``attached``: the product of a chance's logarithm and of an error of a critic that carries a gradient on to it;
      ``unasked``: of one and the returns that a critic learns to foresee. ``before`` is what its error was made of.
    * ``clip``: a clamp of something that has a name and learns, with its limits: ``clamp(1e-07, 1)``; ``cap``: the
      upper limit of a clamp of something without a name, a term of a loss say: ``clamp(40)``.
    * ``bootstrapped``: what was computed, without a gradient, from what a net said, and is compared with something that
      learns: the target of a value, made of what a target network expects.
    * ``noised``: an input that was made in the step, of data and random numbers.
    * ``no order``: an attention that words reach without anything being done to them that depends on their places.
    * ``times mask``: a softmax of what was multiplied with zeros and ones; ``summed``: a loss that is a sum.
    * ``overwritten``: a loss that nothing was made of, beside a later one of the same line that ``backward`` gets; how
      many, and whether they were looked at: ``cross_entropy(15 unseen)``.
    * ``all ignored``, ``one class left``, ``hardly any``: what ``ignore_index`` leaves of a loss's targets;
      ``holds blank``: targets of a CTC loss with its blank among them; ``against zeros``: a loss that compares several
      numbers of each sample with zeros that the step has made.
    * ``anew``: a recurrent layer, or cell, that is given one moment and a state of zeros; ``gru(slice)`` if the moment
      was cut out of something longer, else ``gru(whole)``.
      ``held``: the same of one that began from the very same state in every call of the step before.
    * ``exponential``: of a whole loss; ``heated``: a divergence of softmaxes of scores that both were divided by one
      number: ``kl_div(T=4)``.
    * ``log of sum``: the logarithm of a sigmoid of one number that is the sum over a table.
    * ``wraps``: a difference of bytes; ``real part``, ``imaginary part``: of complex numbers.
    * ``over samples``: a softmax, or a unit norm, over the first dimension; ``over queries``, ``over heads``: a
      softmax over another dimension than the product behind it sums over; ``over another``: a loss of one over another
      than the classes.
    * ``no activation``: a linear layer that gets what another one gave, with nothing between that is not linear;
    * ``linear residual``: a convolution that gets the sum of what another one was given and gave.
    * ``broadcast``, ``other order``: a loss function whose sides have shapes of different lengths that grow, or were
      flattened along reversed dimensions; ``ignores``: one that leaves a class out, ``cross_entropy(ignore_index=0)``.
    * ``no exponential``: a loss of counts that takes the prediction as it is, ``poisson_nll_loss(log_input=False)``.
    * ``first statistics``: a batch normalisation that learns, and divides by the running statistics of the start.
    * ``dropout``, ``by the batch``: a call of dropout, or of a batch normalisation that is told to train, which is no
      module and runs while nothing is trained; ``high dropout``,
      ``momentum``: one that drops most, or a batch normalisation of an unusual momentum: ``dropout(p=0.9)``.
    * ``square``: an arithmetic operation that makes a square of a row and a column of the same length.
    * ``pad``: what is padded before it goes on.
    * ``made by``: the activation whose numbers a tensor holds that was only reshaped, or cut out, since: ``sigmoid``.
    * ``draw``: random numbers that are drawn with something computed as their parameters, and cut its gradient.
    * ``attention``: nothing is ``before`` it, and the output of its module ``after`` it.
    * ``step``: ``backward``, ``held gradients`` (which it found), ``zero_grad``, ``optimizer step``, or what wrote to
      gradients (``clip_grad_norm_``); the first of each, with nothing on either side.
    """

    kind: str
    operation: str
    source: SourceLine
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """How the named tensors of one iteration depend on each other. Equal graphs of any two runs are equal records."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class StepRecord:
    """One recorded step; R rows, S kept samples.

    Attributes:
        number: the number of the training step, from 0; recorded steps have growing numbers.
        kind: the kind of step.
        time: when the step ended, seconds since the epoch.
        seconds: how long the step took, the recording included.
        tensors: what was measured, R entries.
        shapes: the shape of each row's tensor, R entries.
        strides: the strides of each row's tensor in elements, R entries.
        statistics: ``(R, len(STATISTICS))``.
        aggregates: ``(R, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))``; NaN for rows without a batch.
        per_sample: ``(R, S, len(SAMPLE_STATISTICS))``; NaN for rows without a batch and for missing samples.
        histograms: ``(R, HISTOGRAM_BINS)`` counts of elements.
        neurons: R entries; None where neurons were not kept.
        graphs: one graph an iteration, in order; a step without iterations has one.
        samples: for each of the S kept samples, its index in the batch.
        categories: for each of the S kept samples, its category; empty if the user gave none.
        facts: anything else that is true of the step (``{"micro_batches": 4}``); plain msgpack values.
        dropped: the rows whose neurons and samples were measured by nobody, because the writer was behind.
    """

    number: int
    kind: str
    time: float
    seconds: float
    tensors: tuple[TensorInfo, ...]
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    statistics: NDArray[np.float64]
    aggregates: NDArray[np.float32]
    per_sample: NDArray[np.float32]
    histograms: NDArray[np.uint32]
    neurons: tuple[Neurons | None, ...]
    graphs: tuple[Graph, ...]
    samples: tuple[int, ...] = ()
    categories: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter (or buffer) of a module. ``names`` lists every name it is known by; tied weights have several.

    ``recorded`` is False for what the user chose to leave out of the steps. ``optimizers`` are the names of the watched
    optimizers that hold it: none of them trains a parameter without any, and two of them train one twice a step.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    names: tuple[str, ...]
    is_buffer: bool = False
    recorded: bool = True
    optimizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleInfo:
    """A module of a watched model: its path (``model.encoder.0``), its class, and the parameters it owns itself.

    ``recorded`` is False for one whose output the user chose to leave out of the steps. ``ignored`` are attributes by
    which something was to be frozen, and which torch does not know: ``requires_grad`` of a module (which has a method
    ``requires_grad_``), ``weight.require_grad`` of its parameter; ``weight.train()``, if a ``train()`` of the model's
    own would freeze it, and was not called. ``drawn`` are its attributes that are plain tensors of random numbers, as
    weights are at first: ``keys (12, 16)``, or were made of a parameter that is registered nowhere: ``a (32,) by
    squeeze``. ``settings`` are those of one of torch's own layers, as torch prints them: ``1, 24, kernel_size=(2,),
    stride=(8,)``.
    """

    path: str
    module_class: str
    parameters: tuple[ParameterInfo, ...]
    training: bool = True
    recorded: bool = True
    ignored: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    settings: str = ""


@dataclass(frozen=True)
class Scalar:
    """One point of a curve that the user (or the recorder: learning rate, loss scale) logged."""

    name: str
    group: str
    step: int
    value: float
    kind: str
    time: float


@dataclass(frozen=True)
class Note:
    """A text that the user left, at a step."""

    text: str
    step: int
    time: float


@dataclass(frozen=True)
class TrialInfo:
    """What is known of a trial when it starts. ``environment`` and ``config`` hold plain msgpack values."""

    trial: str
    started: float
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    samples: int
    neuron_limit: int


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended: ``"finished"``, or ``"failed"`` with the exception that ended it."""

    state: Literal["finished", "failed"]
    time: float
    exception: str = ""
    traceback: str = ""
