"""Small programs on tensors the user names, with their exact edges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stepscope.recorder import Step
from support.drawing import draw, drawing


def leaf(step: Step, name: str, *shape: int) -> torch.Tensor:
    """A named tensor that needs a gradient."""
    tensor = torch.randn(*shape or (4, 3)).requires_grad_()
    step.record(name, tensor)
    return tensor


def data(step: Step, name: str, *shape: int) -> torch.Tensor:
    """A named tensor without a gradient."""
    tensor = torch.randn(*shape or (4, 3))
    step.record(name, tensor, type="input")
    return tensor


def test_chain(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        y = x * 2 + 1
        step.record("y", y)
        step.record("z", y.exp().sum())

    assert draw(program, tmp_path) == drawing("x -> y; y -> z")


@pytest.mark.supports("Graph", "residual and parallel paths")
def test_residual(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        h = x.tanh()
        step.record("h", h)
        step.record("y", x + h)

    assert draw(program, tmp_path) == drawing("x -> h; x -> y; h -> y")


def test_diamond_of_unnamed_tensors(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        left, right = x.sin(), x.cos()
        step.record("y", left * right)

    assert draw(program, tmp_path) == drawing("x -> y")


@pytest.mark.supports("Graph", "concatenation, splitting, stacking, sums over containers")
def test_concat_and_split(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        a, b = leaf(step, "a"), leaf(step, "b")
        both = torch.cat([a, b], dim=1)
        step.record("both", both)
        first, second = both.split(3, dim=1)
        step.record("first", first)
        step.record("second", second)

    assert draw(program, tmp_path) == drawing("a -> both; b -> both; both -> first; both -> second")


@pytest.mark.supports("Graph", "concatenation, splitting, stacking, sums over containers")
def test_chunk_and_unbind(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x", 4, 6)
        for name, part in zip("ab", x.chunk(2, dim=1), strict=True):
            step.record(name, part)
        for name, part in zip("cdef", x.unbind(), strict=True):
            step.record(name, part, batch_dim=False)

    assert draw(program, tmp_path) == drawing("x -> a; x -> b; x -> c; x -> d; x -> e; x -> f")


@pytest.mark.supports("Graph", "concatenation, splitting, stacking, sums over containers")
def test_stack_of_a_list(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        parts = [leaf(step, name) for name in "abc"]
        step.record("stacked", torch.stack(parts, dim=1))

    assert draw(program, tmp_path) == drawing("a -> stacked; b -> stacked; c -> stacked")


@pytest.mark.supports("Graph", "concatenation, splitting, stacking, sums over containers")
def test_sum_of_a_dict_in_a_loop(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        losses = {name: (leaf(step, name) ** 2).mean() for name in "ab"}
        total = torch.zeros(())
        for loss in losses.values():
            total = total + loss
        step.record("total", total, type="loss")

    assert draw(program, tmp_path) == drawing("a -> total; b -> total")


def test_python_sum(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        step.record("total", sum(leaf(step, name).mean() for name in "abc"), type="loss")

    assert draw(program, tmp_path) == drawing("a -> total; b -> total; c -> total")


@pytest.mark.supports("Graph", "`detach`, `.data`, `no_grad`: edges without gradient")
def test_detach_lets_no_gradient_through(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w = leaf(step, "x"), leaf(step, "w")
        step.record("y", x.detach() * w)

    assert draw(program, tmp_path) == drawing("x ..> y; w -> y")


def test_detach_beside_a_differentiable_path(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        step.record("y", x - x.detach() + 1)

    assert draw(program, tmp_path) == drawing("x -> y")


@pytest.mark.supports("Graph", "straight-through estimators")
def test_straight_through_estimator(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        hard = x.round()
        step.record("hard", hard)
        step.record("y", x + (hard - x).detach())

    assert draw(program, tmp_path) == drawing("x -> hard; x -> y; hard ..> y")


@pytest.mark.supports("Graph", "`detach`, `.data`, `no_grad`: edges without gradient")
def test_data_attribute(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        step.record("y", x.data * 3)

    assert draw(program, tmp_path) == drawing("x ..> y")


@pytest.mark.supports("Graph", "`detach`, `.data`, `no_grad`: edges without gradient")
def test_no_grad(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        with torch.no_grad():
            step.record("y", x * 2)

    assert draw(program, tmp_path) == drawing("x ..> y")


@pytest.mark.supports("Graph", "`inference_mode`")
def test_inference_mode(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        with torch.inference_mode():
            x = data(step, "x")
            y = x.exp()
            step.record("y", y)
            step.record("z", y.sum())

    assert draw(program, tmp_path) == drawing("x ..> y; y ..> z")


def test_a_leaf_that_wants_gradients_later(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = data(step, "x")
        x.requires_grad_()
        h = (x * 2).detach()
        h.requires_grad_()
        step.record("y", h + x)
        step.record("z", h * 2)

    assert draw(program, tmp_path) == drawing("x -> y; x ..> z")


@pytest.mark.supports("Graph", "what leaves torch (`item()`, numpy)", limit="no edge, unless `step.connect` draws it")
def test_item_and_numpy_leave_the_graph(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w = leaf(step, "x"), leaf(step, "w")
        step.record("y", w * x.sum().item())
        step.record("z", torch.from_numpy(x.detach().numpy().copy()))

    assert draw(program, tmp_path) == drawing("w -> y; x; z")


def test_connect_joins_what_torch_did_not_see(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        z = torch.from_numpy(x.detach().numpy().copy())
        step.connect(x, z)
        step.record("z", z)

    assert draw(program, tmp_path) == drawing("x ..> z")


@pytest.mark.supports("Graph", "integer and boolean indices, `where`, masks, gather and scatter")
def test_integer_indices(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        scores, table = leaf(step, "scores", 4, 5), leaf(step, "table", 5, 2)
        best = scores.argmax(1)
        step.record("best", best)
        step.record("rows", table[best])

    assert draw(program, tmp_path) == drawing("scores ..> best; best ..> rows; table -> rows")


@pytest.mark.supports("Graph", "integer and boolean indices, `where`, masks, gather and scatter")
def test_boolean_mask(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        mask = x > 0
        step.record("mask", mask)
        step.record("y", x[mask], batch_dim=False)

    assert draw(program, tmp_path) == drawing("x ..> mask; mask ..> y; x -> y")


@pytest.mark.supports("Graph", "integer and boolean indices, `where`, masks, gather and scatter")
def test_where(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        a, b, c = leaf(step, "a"), data(step, "b"), leaf(step, "c")
        step.record("y", torch.where(c > 0, a, b))

    assert draw(program, tmp_path) == drawing("a -> y; b ..> y; c ..> y")


@pytest.mark.supports("Graph", "integer and boolean indices, `where`, masks, gather and scatter")
def test_masked_fill(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        scores, mask = leaf(step, "scores", 4, 4), torch.ones(4, 4).tril() == 0
        step.record("mask", mask)
        step.record("weights", scores.masked_fill(mask, -torch.inf).softmax(-1))

    assert draw(program, tmp_path) == drawing("scores -> weights; mask ..> weights")


@pytest.mark.supports("Graph", "integer and boolean indices, `where`, masks, gather and scatter")
def test_gather_and_scatter(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, index = leaf(step, "x"), torch.randint(3, (4, 3))
        step.record("index", index)
        picked = x.gather(1, index)
        step.record("picked", picked)
        step.record("spread", torch.zeros(4, 3).scatter_add(1, index, picked))

    assert draw(program, tmp_path) == drawing("x -> picked; index ..> picked; picked -> spread; index ..> spread")


@pytest.mark.supports("Graph", "in-place operations, `out=`, indexed assignment")
def test_index_add_in_place(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        messages, target = leaf(step, "messages"), torch.tensor([0, 0, 1, 1])
        nodes = torch.zeros(2, 3)
        nodes.index_add_(0, target, messages)
        step.record("nodes", nodes)

    assert draw(program, tmp_path) == drawing("messages -> nodes")


@pytest.mark.supports("Graph", "in-place operations, `out=`, indexed assignment")
def test_in_place_arithmetic(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w = leaf(step, "x"), leaf(step, "w")
        y = x * 2
        y += w
        y.mul_(3)
        step.record("y", y)

    assert draw(program, tmp_path) == drawing("x -> y; w -> y")


def test_a_name_stands_for_the_tensor_as_it_was(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w = leaf(step, "x"), leaf(step, "w")
        y = x + 0
        step.record("before", y)
        y.add_(w)
        step.record("after", y)

    assert draw(program, tmp_path) == drawing("x -> before; before -> after; w -> after")


def test_in_place_activation(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        h = x * 1
        step.record("h", h)
        F.relu(h, inplace=True)
        step.record("y", h)

    assert draw(program, tmp_path) == drawing("x -> h; h -> y")


@pytest.mark.supports("Graph", "views, and changes through them")
def test_views(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x", 4, 6)
        y = x.view(4, 2, 3).transpose(1, 2)
        step.record("y", y)
        step.record("z", y.reshape(4, 6)[:, 0])

    assert draw(program, tmp_path) == drawing("x -> y; y -> z")


@pytest.mark.supports("Graph", "views, and changes through them")
def test_a_change_through_a_view_reaches_its_base(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w = leaf(step, "x"), leaf(step, "w", 4)
        base = x * 1
        base[:, 0] += w
        step.record("y", base)

    assert draw(program, tmp_path) == drawing("x -> y; w -> y")


@pytest.mark.supports("Graph", "views, and changes through them")
def test_a_change_of_the_base_reaches_its_views(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w = leaf(step, "x"), leaf(step, "w")
        base = x * 1
        column = base[:, 0]
        base.add_(w)
        step.record("column", column * 2)

    assert draw(program, tmp_path) == drawing("x -> column; w -> column")


@pytest.mark.supports("Graph", "views, and changes through them")
def test_a_change_without_gradient_does_not_hide_one_with_it(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w, noise = leaf(step, "x"), leaf(step, "w"), data(step, "noise")
        base = x * 1
        column = base[:, 0]
        base.add_(w)
        base.data.add_(noise)
        step.record("column", column * 2)

    assert draw(program, tmp_path) == drawing("x -> column; w -> column; noise ..> column")


@pytest.mark.supports("Graph", "views, and changes through them")
def test_each_view_is_changed_alone(tmp_path: Path) -> None:
    """Views share their memory: what changes one may have changed the other, and is drawn so."""

    def program(step: Step) -> None:
        x, w, v = leaf(step, "x"), leaf(step, "w", 4), leaf(step, "v", 4)
        base = x * 1
        first, second = base[:, 0], base[:, 1]
        first.add_(w)
        second.add_(v)
        step.record("y", base)

    assert draw(program, tmp_path) == drawing("x -> y; w -> y; v -> y")


@pytest.mark.supports("Graph", "in-place operations on lists of tensors (`torch._foreach_...`)")
def test_changes_of_many_tensors_at_once(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, w, v = leaf(step, "x"), data(step, "w"), data(step, "v")
        averages = [w * 1, v * 1]
        step.record("before", averages[0])
        with torch.no_grad():
            torch._foreach_lerp_(averages, [x, x + w], 0.5)
        step.record("first", averages[0])
        step.record("second", averages[1])

    lines = "w ..> before; before ..> first; x ..> first; v ..> second; x ..> second; w ..> second"
    assert draw(program, tmp_path) == drawing(lines)


@pytest.mark.supports("Graph", "in-place operations, `out=`, indexed assignment")
def test_two_out_arguments(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = data(step, "x")
        values, indices = torch.zeros(4), torch.zeros(4, dtype=torch.long)
        step.record("before", values)
        torch.max(x, 1, out=(values, indices))
        step.record("values", values)
        step.record("indices", indices)

    assert draw(program, tmp_path) == drawing("before ..> values; x ..> values; x ..> indices")


@pytest.mark.supports("Graph", "in-place operations, `out=`, indexed assignment")
def test_indexed_assignment(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x, row = leaf(step, "x"), leaf(step, "row", 3)
        canvas = torch.zeros(4, 3)
        canvas[0] = row
        canvas[1:] = x[1:]
        step.record("canvas", canvas)

    assert draw(program, tmp_path) == drawing("x -> canvas; row -> canvas")


def test_copy_from_a_detached_tensor(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        buffer = torch.empty(4, 3)
        buffer.copy_(x.detach())
        step.record("buffer", buffer)

    assert draw(program, tmp_path) == drawing("x ..> buffer")


@pytest.mark.supports("Graph", "in-place operations, `out=`, indexed assignment")
def test_out_argument(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        a, b = data(step, "a"), data(step, "b")
        result = torch.empty(4, 3)
        torch.add(a, b, out=result)
        step.record("result", result)

    assert draw(program, tmp_path) == drawing("a ..> result; b ..> result")


def test_matrix_products(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        a, b, c = leaf(step, "a", 4, 3), leaf(step, "b", 3, 5), leaf(step, "c", 5, 2)
        ab = a @ b
        step.record("ab", ab)
        step.record("abc", torch.matmul(ab, c))
        step.record("outer", torch.einsum("ij,kl->il", a, c))

    assert draw(program, tmp_path) == drawing("a -> ab; b -> ab; ab -> abc; c -> abc; a -> outer; c -> outer")


def test_several_results_of_one_call(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        values, indices = x.topk(2)
        step.record("values", values)
        step.record("indices", indices)
        largest = x.max(dim=1)
        step.record("largest", largest.values)

    assert draw(program, tmp_path) == drawing("x -> values; x ..> indices; x -> largest")


def test_keyword_arguments(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        a, b = leaf(step, "a"), leaf(step, "b")
        step.record("y", torch.lerp(input=a, end=b, weight=0.5))

    assert draw(program, tmp_path) == drawing("a -> y; b -> y")


def test_unused_tensors_stand_alone(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        leaf(step, "unused")
        step.record("y", leaf(step, "x") * 2)

    assert draw(program, tmp_path) == drawing("unused; x -> y")


def test_new_tensors_from_the_shape_of_another_are_constants(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        step.record("noise", torch.randn(x.shape))

    assert draw(program, tmp_path) == drawing("x; noise")


@pytest.mark.supports("Graph", "`torch.autograd.grad`, gradient penalties")
def test_gradient_reaches_the_graph_by_autograd_grad(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        y = (x**3).sum()
        step.record("y", y)
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        step.record("penalty", slope.square().mean(), type="loss")

    assert draw(program, tmp_path) == drawing("x -> y; y -> penalty; x -> penalty")


def test_names_that_are_given_at_the_end(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = torch.randn(4, 3).requires_grad_()
        h = x.tanh()
        y = h * 2 + x
        step.record("y", y)
        step.record("h", h)
        step.record("x", x)

    assert draw(program, tmp_path) == drawing("x -> h; h -> y; x -> y")


def test_two_names_for_one_tensor(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        y = x * 2
        step.record("y", y)
        step.record("also y", y)
        step.record("z", y + 1)

    assert draw(program, tmp_path) == drawing("x -> y; y -> also y; also y -> z")


def test_roles_of_a_node(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        start = torch.zeros(4, 3)
        step.record("memory", start, role="initial")
        step.record("memory", start + leaf(step, "x"), role="new")

    assert draw(program, tmp_path) == drawing("memory:initial ..> memory:new; x -> memory:new")


def test_a_long_chain_between_two_names(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x", 2)
        y = x
        for _ in range(10_000):
            y = y + 1
        step.record("y", y)

    assert draw(program, tmp_path) == drawing("x -> y")


def test_many_names(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "0", 2)
        for number in range(1, 3000):
            x = x + 1
            step.record(str(number), x)

    assert draw(program, tmp_path) == {f"{number} -> {number + 1}" for number in range(2999)}
