"""The environment in which chat templates run: that of transformers, with a bound on time and memory.

Templates come with checkpoints of strangers. Jinja's sandbox keeps them from reaching anything; it does not
keep them from running for ever. Here every loop round, call, operator, filter, test and piece of output
passes a ``Meter``, and what it will cost is worked out before it runs. That way nothing has to be
interrupted, no process has to be started, and an ordinary template costs some microseconds more.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from edgemoe.text.bounds import FILTERS, METHODS, binary_bound, check_numbers, format_bound
from edgemoe.text.meter import CostError, Meter

_TESTS_THAT_LOOK = ("in", "eq", "ne", "lt", "gt", "le", "ge", "==", "!=", "<", ">", "<=", ">=", "equalto",
                    "greaterthan", "lessthan")  # fmt: skip
_MAX_FORMAT_CHARACTERS = 1000


def compile_template(source: str) -> Callable[[Mapping[str, Any]], str]:
    """A function from a template's variables to its text; not for two threads at a time."""
    environment = _Environment()
    template = environment.from_string(source)

    def render(variables: Mapping[str, Any]) -> str:
        environment.meter = Meter(variables)
        try:
            return template.render(variables)
        finally:
            environment.meter = Meter({})

    return render


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        # Constants are left to the meter too, which the optimizer would work out while compiling.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[loopcontrols, _Generation],
            finalize=pass_context(lambda context, value: self._output(value)),
        )
        self.meter = Meter({})
        self.filters["tojson"] = _tojson
        self.filters = {name: self._metered(self.filters[name], name) for name in FILTERS}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._metered_test(test, name) for name, test in tests.items()}
        self.globals = {
            "range": self.globals["range"],
            "cycler": Cycler,
            "joiner": Joiner,
            "namespace": _Namespace,
            "dict": _Dict(),
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self._functions = {id(f) for f in self.globals.values()}
        self._functions |= {id(f) for f in (_Dict.fromkeys,)}

    def tick(self, num_characters: int) -> None:
        """A round of a loop, or a macro's body, with so many characters of text in it."""
        self.meter.make(num_characters)

    def iterate(self, values: Iterable[Any]) -> Iterable[Any]:
        """What a loop goes over; what has no length is counted as it comes."""
        if isinstance(values, Sized):
            self.meter.step(len(values) // 8)
            return values
        return self._counted(iter(values))

    def passes(self, value: Any) -> Any:
        """The condition of a loop, asked of every entry."""
        self.meter.step()
        return value

    def created(self, value: Any) -> Any:
        """A list, tuple or object that the template writes down."""
        return self.meter.made(value)

    def looked_at(self, value: Any) -> Any:
        """A side of a comparison."""
        if isinstance(value, (list, tuple, dict)):
            self.meter.look(self.meter.weigh(value))
        elif isinstance(value, str):
            self.meter.look(len(value) // 16)
        return value

    def concatenate(self, *parts: Any) -> str:
        """The operator ``~``."""
        self.meter.expect(sum(map(self.meter.weigh, parts)))
        return str(self.meter.made("".join(map(str, parts))))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template."""
        self = __self
        if getattr(__obj, "__self__", None) is self:  # one of those that ``_instrument`` has put there
            return __obj(*args)
        given = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars", "caller")}
        self.meter.step()
        if not isinstance(__obj, Macro):
            self._check_call(__obj, args, given)
        result = super().call(__context, __obj, *args, **kwargs)
        return self._result(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Every operator but comparisons."""
        self.meter.step()
        self.meter.expect(binary_bound(self.meter, operator, left, right))
        return self.meter.made(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Entries and slices; a slice is a copy."""
        if isinstance(argument, slice):
            return self.meter.made(super().getitem(obj, argument))
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``format`` of texts, which the sandbox does itself."""
        inner = super().wrap_str_format(value)
        if inner is None:
            return None

        def limited(*args: Any, **kwargs: Any) -> str:
            self.meter.expect(format_bound(self.meter, value.__self__, (*args, *kwargs.values())))
            return str(self.meter.made(inner(*args, **kwargs)))

        limited.is_limited = True  # type: ignore[attr-defined]
        return limited

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        _instrument(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)

    def _output(self, value: Any) -> Any:
        if isinstance(value, str):
            self.meter.make(len(value))
        else:
            weight = self.meter.weigh(value)
            self.meter.expect(weight)
            self.meter.make(weight)
        return value

    def _check_call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        owner = getattr(function, "__self__", None)
        if isinstance(function, types.BuiltinMethodType) or (
            isinstance(owner, str) and isinstance(function, types.MethodType)
        ):
            kind = next((kind for kind in METHODS if isinstance(owner, kind)), None)
            bound = METHODS[kind].get(function.__name__) if kind is not None else None
            if bound is None:
                raise SecurityError(f"a template may not call {getattr(function, '__name__', 'that')!r}")
            check_numbers(args, kwargs)
            num_bytes = bound(self.meter, owner, args, kwargs)
            self.meter.expect(num_bytes)
            self.meter.look(num_bytes if kind is str else 0)
        elif not self._is_ours(function, owner):
            raise SecurityError(f"a template may not call {type(function).__name__!r}")

    def _is_ours(self, function: Any, owner: Any) -> bool:
        if isinstance(function, (LoopContext, Joiner)) or id(function) in self._functions:
            return True
        if getattr(function, "is_limited", False) or isinstance(function, jinja2.Undefined):
            return True
        return isinstance(owner, (LoopContext, Cycler, Extension, _Dict))

    def _metered(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        bound = FILTERS[name]
        # Filters that want them get the environment or the context first.
        num_before = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            before, value, rest = args[:num_before], args[num_before], args[num_before + 1 :]
            if hasattr(value, "__next__") and name in _WHOLE:
                value = list(self._counted(value))
            check_numbers(rest, kwargs)
            num_bytes = bound(self.meter, value, rest, kwargs)
            self.meter.expect(num_bytes)
            self.meter.look(num_bytes)
            return self._result(function(*before, value, *rest, **kwargs))

        return filtered

    def _metered_test(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def tested(*args: Any, **kwargs: Any) -> Any:
            self.meter.step()
            if name in _TESTS_THAT_LOOK:
                for value in args:
                    self.looked_at(value)
            return function(*args, **kwargs)

        return tested

    def _result(self, value: Any) -> Any:
        """What a call or a filter gives; what comes entry by entry is counted as it comes."""
        if isinstance(value, (types.GeneratorType, Iterator)):
            return self._counted(value)
        return self.meter.made(value)

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.meter.step()
            yield self.meter.made(value) if isinstance(value, (list, tuple)) else value


# Filters that look at all there is before they give anything.
_WHOLE = ("list", "join", "sort", "unique", "groupby", "sum", "min", "max")


class _Generation(Extension):
    """``{% generation %}`` marks what a model said, for training; it changes no text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_show"), [], [], body).set_lineno(line)

    def _show(self, caller: Macro) -> str:
        return str(caller())


class _Namespace(Namespace):
    """Jinja's, without names that begin with an underscore and without namespaces in it."""

    def __init__(*args: Any, **attributes: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **attributes)
        for name, value in values.items():
            _check_attribute(name, value)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name, value)
        Namespace.__setitem__(self, name, value)


def _check_attribute(name: Any, value: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace keeps no name such as {name!r}")
    if isinstance(value, Namespace):
        raise CostError("it keeps a namespace inside something else")


class _Dict:
    """The function ``dict``, without the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As that of dict."""
        return dict.fromkeys(*args)


def _instrument(template: nodes.Template) -> None:
    """Put calls of the meter where Jinja would not ask: loops, literals, comparisons, ``~``."""
    for loop in list(template.find_all(nodes.For)):
        loop.iter = _call("iterate", [loop.iter])
        loop.test = None if loop.test is None else _call("passes", [loop.test])
    bodies: tuple[Any, ...] = (nodes.For, nodes.Macro, nodes.CallBlock)
    for block in list(template.find_all(bodies)):
        texts = sum(len(data.data) for data in block.find_all(nodes.TemplateData))
        block.body.insert(0, nodes.ExprStmt(_call("tick", [nodes.Const(texts)])).set_lineno(block.lineno))
    for compare in list(template.find_all(nodes.Compare)):
        compare.expr = _watched(compare.expr)
        for operand in compare.ops:
            operand.expr = _watched(operand.expr)
    _replace_expressions(template)


def _watched(expression: nodes.Expr) -> nodes.Expr:
    return expression if isinstance(expression, nodes.Const) else _call("looked_at", [expression])


def _replace_expressions(node: nodes.Node) -> None:
    """Lists, objects and ``~`` in calls of the meter, the inner ones first."""
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            _replace_expressions(value)
            setattr(node, name, _replaced_expression(value))
        elif isinstance(value, list):
            for i, entry in enumerate(value):
                if isinstance(entry, nodes.Node):
                    _replace_expressions(entry)
                    value[i] = _replaced_expression(entry)


def _replaced_expression(node: nodes.Node) -> nodes.Node:
    if isinstance(node, nodes.Concat):
        return _call("concatenate", node.nodes)
    is_made = isinstance(node, (nodes.List, nodes.Dict)) or (
        isinstance(node, nodes.Tuple) and node.ctx == "load"
    )
    return _call("created", [node]) if is_made and isinstance(node, nodes.Expr) else node


def _call(name: str, arguments: list[Any]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    if len(format) > _MAX_FORMAT_CHARACTERS:
        raise CostError("it asks for a date in too many words")
    return datetime.now().strftime(format)
