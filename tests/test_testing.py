"""check_tensor: right classes pass, and each fault that is planted is found and named."""

import functools
import math

import pytest

import fastscalar as fs
from fastscalar.testing import check_tensor


class Right:
    """A student's class without a fault.  What a subclass changes is one fault."""

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.grad = float(data), 0.0
        self.parents, self.slopes = tuple(parents), tuple(slopes)

    def __add__(self, other):
        return type(self)(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return type(self)(self.data * other.data, (self, other), (other.data, self.data))

    def relu(self):
        return type(self)(max(self.data, 0.0), (self,), (float(self.data > 0),))

    def exp(self):
        return type(self)(math.exp(self.data), (self,), (math.exp(self.data),))

    def order(self):
        """From the result to the leaves, each after all that use it."""
        done, seen, todo = [], set(), [(self, False)]
        while todo:
            node, left = todo.pop()
            if left:
                done.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                todo.append((node, True))
                todo.extend((parent, False) for parent in node.parents)
        return done[::-1]

    def step(self):
        for parent, slope in zip(self.parents, self.slopes, strict=True):
            parent.grad += slope * self.grad

    def backward(self):
        order = self.order()
        for node in order:
            node.grad = 0.0
        self.grad = 1.0
        for node in order:
            node.step()


class Assigns(Right):
    def step(self):
        for parent, slope in zip(self.parents, self.slopes, strict=True):
            parent.grad = slope * self.grad


class PreOrder(Right):
    def order(self):
        done, seen, todo = [], set(), [self]
        while todo:
            node = todo.pop()
            if id(node) not in seen:
                seen.add(id(node))
                done.append(node)
                todo.extend(node.parents[::-1])
        return done


class Recursive(Right):
    def order(self):
        done, seen = [], set()

        def visit(node):
            if id(node) not in seen:
                seen.add(id(node))
                for parent in node.parents:
                    visit(parent)
                done.append(node)

        visit(self)
        visit = None
        return done[::-1]


class SlopeAtZero(Right):
    def relu(self):
        return type(self)(max(self.data, 0.0), (self,), (float(self.data >= 0),))


class DropsRelu(Right):
    def relu(self):
        return type(self)(max(self.data, 0.0))


class Refers(Right):
    def __init__(self, data, parents=(), slopes=()):
        super().__init__(data, parents, slopes)
        self.me = self


class NeverResets(Right):
    def backward(self):
        self.grad = 1.0
        for node in self.order():
            node.step()


class ByValue(Right):
    def __eq__(self, other):
        return self.data == other.data

    def __hash__(self):
        return hash(self.data)

    def order(self):
        done, seen, todo = [], set(), [(self, False)]
        while todo:
            node, left = todo.pop()
            if left:
                done.append(node)
            elif node not in seen:
                seen.add(node)
                todo.append((node, True))
                todo.extend((parent, False) for parent in node.parents)
        return done[::-1]


class WrongSlope(Right):
    def exp(self):
        return type(self)(math.exp(self.data), (self,), (self.data,))


class WrongProduct(Right):
    def __mul__(self, other):
        return type(self)(self.data * other.data, (self, other), (self.data, other.data))


class ChangesValues(Right):
    def step(self):
        super().step()
        self.data = 0.0


class WrongConstant(Right):
    def __add__(self, other):
        other = other if isinstance(other, Right) else type(self)(other * 2)
        return super().__add__(other)


class NoSeed(Right):
    def backward(self):
        super().backward()
        self.grad = 0.0


class Raises(Right):
    def relu(self):
        raise KeyError("relu")


FAULTS = [
    (Assigns, "sums"), (PreOrder, "diamonds"), (Recursive, "depth"), (SlopeAtZero, "relu"), (DropsRelu, "relu"),
    (Refers, "cycles"), (NeverResets, "accumulation"), (ByValue, "equal_values"), (WrongSlope, "operations"),
    (WrongProduct, "products"), (ChangesValues, "values"), (WrongConstant, "numbers"), (NoSeed, "values"),
    (Raises, "relu"),
]


@functools.cache
def found_in(cls):
    return {check.name: check for check in check_tensor(cls, on_fail=None)}


@pytest.mark.parametrize("cls", [fs.Tensor, fs.reference.Tensor])
def test_ours_pass_everything(cls):
    assert {check.status for check in check_tensor(cls)} == {"passed"}


def test_a_right_class_passes_what_it_has():
    assert {check.name: check.status for check in check_tensor(Right)} == {
        **dict.fromkeys(("values", "sums", "products", "relu", "diamonds", "depth", "width", "cycles", "accumulation",
                         "equal_values"), "passed"),
        "numbers": "skipped", "operations": "skipped",
    }  # fmt: skip


@pytest.mark.parametrize(("cls", "name"), FAULTS)
def test_each_fault_is_found_and_named(cls, name):
    assert found_in(cls)[name].status == "failed"
    assert found_in(cls)[name].message


def test_all_faults_are_said():
    with pytest.raises(AssertionError) as error:
        check_tensor(NoSeed)
    faults = [check for check in found_in(NoSeed).values() if check.status == "failed"]
    assert len(faults) > 1
    assert str(error.value) == f"NoSeed: {len(faults)} faults\n" + "\n".join(f"  {f.name}: {f.message}" for f in faults)
    with pytest.raises(AssertionError, match=r"^DropsRelu: 1 fault\n  relu: "):
        check_tensor(DropsRelu)


@pytest.mark.parametrize(("cls", "only"), [
    (PreOrder, {"diamonds"}), (Recursive, {"depth"}), (Refers, {"cycles"}), (SlopeAtZero, {"relu"}),
    (WrongSlope, {"operations"}), (WrongConstant, {"numbers"}),
])
def test_a_fault_is_not_called_by_other_names(cls, only):
    assert {name for name, check in found_in(cls).items() if check.status == "failed"} <= only


def test_a_class_may_add_to_its_leaves():
    class Adds(Right):
        def backward(self):
            order = self.order()
            for node in order:
                if node.parents:
                    node.grad = 0.0
            self.grad = 1.0
            for node in order:
                node.step()

    assert not [check for check in check_tensor(Adds, on_fail=None) if check.status == "failed"]


@pytest.mark.parametrize(("arguments", "options", "error"), [
    ((3,), {}, TypeError), ((Right,), {"on_fail": "warn"}, ValueError),
])
def test_bad_arguments(arguments, options, error):
    with pytest.raises(error, match="check_tensor"):
        check_tensor(*arguments, **options)


def test_the_collector_is_left_as_it_was():
    import gc

    check_tensor(Refers, on_fail=None)
    assert gc.isenabled()


class OfTheArticle:
    """After the article's Tensor: a set of parents, closures that use `out`, parents noted as they are come to."""

    def __init__(self, data, _parents=()):
        self.data, self.grad = data, 0
        self._backward, self._parents = lambda: None, set(_parents)

    def __add__(self, other):
        out = OfTheArticle(self.data + other.data, (self, other))

        def _backward():
            self.grad += out.grad
            other.grad += out.grad

        out._backward = _backward
        return out

    def __mul__(self, other):
        out = OfTheArticle(self.data * other.data, (self, other))

        def _backward():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out._backward = _backward
        return out

    def relu(self):
        out = OfTheArticle(0 if self.data < 0 else self.data, (self,))

        def _backward():
            self.grad += (self.data > 0) * out.grad

        out._backward = _backward
        return out

    def backward(self):
        topo, vis = [], set()

        def build_topo(v):
            if v not in vis:
                v.grad = 0.0
                vis.add(v)
                topo.append(v)
                for parent in v._parents:
                    build_topo(parent)

        build_topo(self)
        self.grad = 1.0
        for v in topo:
            v._backward()


def test_the_articles_mistakes_are_found():
    found = {check.name: check for check in check_tensor(OfTheArticle, on_fail=None)}
    assert {name for name, check in found.items() if check.status == "failed"} == {"diamonds", "depth", "cycles"}
    assert "pre-order" in found["diamonds"].message
    assert "calls itself" in found["depth"].message
    assert "closure" in found["cycles"].message
