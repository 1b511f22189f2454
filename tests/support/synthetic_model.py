"""The structure of the synthetic recordings: a small transformer with a memory, as places, graphs and modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from stepscope.store.records import (
    WHOLE_STEP,
    Edge,
    Graph,
    ModuleInfo,
    ParameterInfo,
    SourceLine,
    TensorInfo,
    TensorType,
    Vertex,
)

Key = tuple[str, str]
MEMORY: Key = ("memory", "new")
INITIAL: Key = ("memory", "initial")
PARAMETER_QUANTITIES = ("update", "exp_avg", "exp_avg_sq")
_FILE = "train.py"


@dataclass(frozen=True)
class Place:
    """One tensor of the model's computation; ``shape`` is without the batch."""

    node: str
    role: str
    type: TensorType
    shape: tuple[int, ...]
    batched: bool = True
    module: str = ""
    module_class: str = ""
    operation: str = ""
    whole_step: bool = False
    has_gradient: bool = True
    sources: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        return self.node, self.role


@dataclass
class SyntheticModel:
    """``blocks`` transformer blocks of the given width; 28 nodes each, and about a dozen around them."""

    blocks: int = 2
    width: int = 12
    places: list[Place] = field(default_factory=list)
    modules: list[ModuleInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._add("input", "tensor", "input", (self.width,), has_gradient=False)
        self._module("model", "Transformer")
        embedded = self._linear("model.embed", (("input", "tensor"),), self.width, buffers=("position",))
        self._add(*INITIAL, "calculated", (self.width,), operation="zeros", whole_step=True)
        self._add(*MEMORY, "calculated", (self.width,), operation="add", sources=(embedded, MEMORY))
        last = MEMORY
        for index in range(self.blocks):
            last = self._block(f"model.blocks.{index}", last)
        head = self._linear("model.head", (self._norm("model.norm", (last,)),), self.width // 2)
        output = self._container("model", "Transformer", "linear", (head,), self.width // 2)
        self._add("confidence", "tensor", "calculated", (), operation="amax", has_gradient=False, sources=(output,))
        self._add("unused mask", "tensor", "calculated", (self.width,), operation="bernoulli", has_gradient=False)
        self._add("target", "tensor", "target", (self.width // 2,), whole_step=True, has_gradient=False)
        sources = (output, ("target", "tensor"))
        self._add("loss", "tensor", "loss", (), batched=False, operation="mse_loss", whole_step=True, sources=sources)

    # ------------------------------------------------------------------ what a recording holds

    def tensors(self, iterations: int, *, gradients: Sequence[str] = ("gradient",)) -> tuple[TensorInfo, ...]:
        """The rows of a step, in the order in which the recorder would list them; no gradients, no updates."""
        whole = [place for place in self.places if place.whole_step]
        inner = [place for place in self.places if not place.whole_step]
        timed = [(place, WHOLE_STEP) for place in whole]
        timed += [(place, iteration) for iteration in range(iterations) for place in inner]
        rows = [_row(place, iteration, "value") for place, iteration in timed]
        for quantity in gradients:
            rows += [_row(place, iteration, quantity) for place, iteration in timed if place.has_gradient]
        if gradients:
            parameters = [place for place in whole if place.type == "parameter"]
            rows += [_row(place, WHOLE_STEP, name) for name in PARAMETER_QUANTITIES for place in parameters]
        return tuple(rows)

    def graph(self, iteration: int) -> Graph:
        """The graph of an iteration: the first uses the memory's initial value, later ones the last one's."""
        places = [place for place in self.places if place.key != INITIAL or iteration == 0]
        vertices = [_vertex(place, line) for line, place in enumerate(places, start=10)]
        index = {place.key: number for number, place in enumerate(places)}
        carried = index[INITIAL] if iteration == 0 else len(vertices)
        if iteration:
            vertices.append(_vertex(self.place(MEMORY), 10 + index[MEMORY], lag=1))
        edges = []
        for place in places:
            for source in place.sources:
                start = carried if source == place.key else index[source]
                edges.append(Edge(start, index[place.key], self.place(source).has_gradient and place.has_gradient))
        return Graph(tuple(vertices), tuple(edges))

    def place(self, key: Key) -> Place:
        return next(place for place in self.places if place.key == key)

    def downstream(self, node: str) -> set[str]:
        """The node, and every node that is computed from it."""
        found = {node}
        for _ in range(2):  # twice: the memory carries it to the next iteration
            for place in self.places:
                if any(source[0] in found for source in place.sources):
                    found.add(place.node)
        return found

    # ------------------------------------------------------------------ how it is built

    def _block(self, path: str, previous: Key) -> Key:
        self._module(path, "Block")
        self._module(f"{path}.attn", "Attention")
        self._module(f"{path}.mlp", "MLP")
        width = self.width
        norm = self._norm(f"{path}.norm1", (previous,))
        heads = [self._linear(f"{path}.attn.{name}", (norm,), width) for name in ("q_proj", "k_proj", "v_proj")]
        out = self._linear(f"{path}.attn.out_proj", tuple(heads), width)
        attention = self._container(f"{path}.attn", "Attention", "linear", (out,), width)
        norm = self._norm(f"{path}.norm2", (attention, previous))
        up = self._linear(f"{path}.mlp.up", (norm,), 2 * width)
        act = self._layer(f"{path}.mlp.act", "ReLU", "relu", (up,), 2 * width)
        down = self._linear(f"{path}.mlp.down", (act,), width)
        mlp = self._container(f"{path}.mlp", "MLP", "linear", (down,), width)
        return self._container(path, "Block", "add", (mlp, attention), width)

    def _linear(self, path: str, sources: tuple[Key, ...], features: int, buffers: Sequence[str] = ()) -> Key:
        parameters = {"weight": (features, self.place(sources[0]).shape[-1]), "bias": (features,)}
        return self._layer(path, "Linear", "linear", sources, features, parameters, buffers)

    def _norm(self, path: str, sources: tuple[Key, ...]) -> Key:
        parameters = {"weight": (self.width,), "bias": (self.width,)}
        return self._layer(path, "LayerNorm", "layer_norm", sources, self.width, parameters)

    def _layer(
        self,
        path: str,
        module_class: str,
        operation: str,
        sources: tuple[Key, ...],
        features: int,
        parameters: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
        buffers: Sequence[str] = (),
    ) -> Key:
        self._module(path, module_class)
        weights = [self._parameter(path, module_class, name, shape, "parameter") for name, shape in parameters.items()]
        weights += [self._parameter(path, module_class, name, (features,), "buffer") for name in buffers]
        return self._container(path, module_class, operation, (*weights, *sources), features)

    def _container(self, path: str, module_class: str, operation: str, sources: tuple[Key, ...], features: int) -> Key:
        self._add(
            path, "output", "calculated", (features,), module=path, module_class=module_class, operation=operation,
            sources=sources,
        )  # fmt: skip
        return path, "output"

    def _parameter(self, path: str, module_class: str, name: str, shape: tuple[int, ...], type: TensorType) -> Key:
        full = f"{path}.{name}"
        trainable = type == "parameter"
        self._add(
            full, type, type, shape, batched=False, module=path, module_class=module_class, whole_step=True,
            has_gradient=trainable,
        )  # fmt: skip
        info = ParameterInfo(name, shape, "float32", trainable, (full,), not trainable)
        at = next(i for i, module in enumerate(self.modules) if module.path == path)
        owner = self.modules[at]
        self.modules[at] = ModuleInfo(path, owner.module_class, (*owner.parameters, info), owner.training)
        return full, type

    def _module(self, path: str, module_class: str) -> None:
        self.modules.append(ModuleInfo(path, module_class, ()))

    def _add(self, node: str, role: str, type: TensorType, shape: tuple[int, ...], **facts: object) -> None:
        self.places.append(Place(node, role, type, shape, **facts))  # type: ignore[arg-type]


def _row(place: Place, iteration: int, quantity: str) -> TensorInfo:
    batch_dim = 0 if place.batched else None
    return TensorInfo(place.node, place.role, iteration, quantity, place.type, "float32", "cpu", batch_dim)


def _vertex(place: Place, line: int, lag: int = 0) -> Vertex:
    source = None
    if place.operation:
        source = SourceLine(_FILE, line, f"{place.node.rpartition('.')[2]} = {place.operation}(...)", "forward")
    whole_step = place.whole_step and not lag
    return Vertex(
        place.node, place.role, lag, place.type, place.module, place.module_class, place.operation, source, whole_step
    )
