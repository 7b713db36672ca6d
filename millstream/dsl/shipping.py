"""A user's function as the source of a module that has all it needs, for Numba and for workers."""

from __future__ import annotations

import ast
import inspect
import io
import math
import pickle  # only to ask whether a value can be shipped; nothing is loaded
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

_MODULES = ("math", "numpy")
_NAME = "user_function"
_CHANGEABLE = frozenset({"random", "secrets", "uuid", "time", "numpy.random"})
_READS_CLOCK = frozenset({"now", "utcnow", "today"})


class NotCompilableError(Exception):
    """Raised with the reason for which a function cannot be given to Numba as source."""


def source_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the source of a module for Numba, and the function's name in it.

    What the function reads from outside becomes a part of it: numbers, text, the modules math and
    NumPy, and other functions, likewise.

    Raises
    ------
    NotCompilableError
        When the source is not at hand, or it reads something else.
    """
    module = _Module()
    name = module.add(function)
    return "\n".join([*module.head, *module.parts]) + "\n", name


def unshippable(function: Callable[..., Any]) -> str | None:
    """Return what a function reads from outside that no worker can be sent, or `None`."""
    for each in _all_functions(function):
        for name, value in outer_values(each).items():
            if plain_function(value) is not None or isinstance(value, ModuleType | type):
                continue
            if not _can_be_pickled(value):
                return f"{name!r} ({type(value).__name__})"
    return None


def unshippable_object(thing: object, base: type) -> str | None:
    """Return what an object of a class derived from `base` has or reads that cannot be sent."""
    for name, value in vars(thing).items():
        if plain_function(value) is None and not _can_be_pickled(value):
            return f"self.{name} ({type(value).__name__})"
    for each in type(thing).__mro__:
        if each is base:
            break
        for method in filter(None, map(plain_function, vars(each).values())):
            outside = unshippable(method)
            if outside is not None:
                return outside
    return None


def _all_functions(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Give a function and those that it reads from outside, each once."""
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += filter(None, map(plain_function, outer_values(each).values()))


def changeable(function: Callable[..., Any]) -> str | None:
    """Return what a function reads that may make it give another result, or `None`.

    Random numbers and clocks are known; what else it does is the user's to know.
    """
    for each in _all_functions(function):
        names = set(getattr(getattr(each, "__code__", None), "co_names", ()))
        for name, value in outer_values(each).items():
            owner = getattr(value, "__self__", None)
            home = type(owner) if owner is not None else value
            module = getattr(
                home, "__name__" if isinstance(value, ModuleType) else "__module__", ""
            )
            if module in _CHANGEABLE or (module == "numpy" and "random" in names):
                return f"{name!r}, which is of the module {module}"
            if module == "datetime" and names & _READS_CLOCK:
                return "the clock"
    return None


def outer_values(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what a function reads from outside, by name; not Python's own names."""
    try:
        found = inspect.getclosurevars(function)
    except TypeError:  # a built-in, or an object that can be called
        return {}
    except ValueError:  # a variable that has no value yet, such as the function's own name
        return {}
    return {**found.globals, **found.nonlocals}


def plain_function(value: object) -> FunctionType | None:
    """Return the Python function behind a value: itself, a `udf`, or one that Numba compiled."""
    for name in ("py_func", "function"):
        behind = getattr(value, name, None)
        if isinstance(behind, FunctionType):
            return behind
    return value if isinstance(value, FunctionType) else None


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.Pickler(io.BytesIO()).dump(value)
    except Exception:
        return False
    return True


@dataclass
class _Module:
    head: list[str] = field(default_factory=lambda: ["from millstream.jit import user_function"])
    parts: list[str] = field(default_factory=list)
    named: dict[str, object] = field(default_factory=dict)

    def add(self, function: Callable[..., Any], name: str | None = None) -> str:
        """Add a function and all that it reads, under a name; return the name."""
        definition = _definition(function)
        name = name or definition.name
        if name == _NAME:
            name = f"{name}_"
        definition.name = name
        self.named[name] = function
        for outer, value in outer_values(function).items():
            self._add_value(outer, value)
        self.parts += ["", "", "@user_function", ast.unparse(definition)]
        return name

    def _add_value(self, name: str, value: object) -> None:
        if name in self.named:
            known = self.named[name]
            if known is value or plain_function(value) is known:
                return
            message = f"it and a function that it calls read different values called {name!r}"
            raise NotCompilableError(message)
        inner = plain_function(value)
        if inner is not None:
            self.add(inner, name)
            return
        self.named[name] = value
        if isinstance(value, ModuleType) and value.__name__ in _MODULES:
            self.head.append(f"import {value.__name__} as {name}")
        elif (constant := _constant(value)) is not None:
            self.head.append(f"{name} = {constant}")
        else:
            message = f"it reads {name!r} ({type(value).__name__}), which Numba takes no copy of"
            raise NotCompilableError(message)


def _constant(value: object) -> str | None:
    """Return how a number, text or tuple of such is written in source."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if type(value) in {bool, int, float, str}:
        return repr(value)
    if isinstance(value, tuple):
        parts = [_constant(each) for each in value]
        return None if None in parts else f"({''.join(f'{each}, ' for each in parts)})"
    return None


def _definition(function: Callable[..., Any]) -> ast.FunctionDef:
    """Return a function's definition, without decorators and annotations; a lambda's as one."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError) as error:
        message = "its source is not at hand"
        raise NotCompilableError(message) from error
    except SyntaxError as error:
        message = "its source does not stand alone; write it as a def"
        raise NotCompilableError(message) from error
    wanted = getattr(function, "__name__", "")
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == wanted]
    if found:
        definition = found[0]
        definition.decorator_list, definition.returns = [], None
        every = definition.args
        for each in (*every.posonlyargs, *every.args, *every.kwonlyargs):
            each.annotation = None
        return definition
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    if len(lambdas) != 1:
        message = "its source does not stand alone; write it as a def"
        raise NotCompilableError(message)
    body = ast.Return(lambdas[0].body)
    made = ast.FunctionDef("anonymous", lambdas[0].args, [body], [])
    return ast.fix_missing_locations(made)
