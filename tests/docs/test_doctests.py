"""Every public name has an example, and it runs: pytest itself finds those of Python modules only, not Cython's."""

import doctest
import inspect

import pytest

import fastscalar

PUBLIC = {f"fastscalar.{name}": getattr(fastscalar, name) for name in [*fastscalar.__all__, "sum", "max", "min"]}
# what only other things give back
NO_EXAMPLE = (fastscalar.History, fastscalar.GradCheck)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_the_example_of_every_public_name_runs(name):
    thing = PUBLIC[name]
    if not callable(thing):
        return
    documentation = inspect.getdoc(thing)
    assert documentation, name
    if thing in NO_EXAMPLE or (isinstance(thing, type) and issubclass(thing, (Exception, Warning))):
        return
    examples = doctest.DocTestParser().get_doctest(documentation, {}, name, None, 0)
    assert examples.examples, f"{name} has no example"
    output = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(examples, out=output.append)
    assert not output, "".join(output)
