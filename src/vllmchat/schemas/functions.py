"""Python functions as tools: described to the model, and called with its arguments."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, Required, cast, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import from_json, to_json, to_jsonable_python
from typing_extensions import TypedDict, get_type_hints

from vllmchat.checking.describe import as_mapping, type_name
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.schemas import docstrings
from vllmchat.schemas.types import SchemaError, SchemaGenerator, new_adapter, schema_of
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import TypeAdapter

    from vllmchat.schemas.tool_params import FunctionTool

_EMPTY: Final = inspect.Parameter.empty


class Tool:
    """A Python function as a tool.

    Functions in `tools=` are converted automatically. Create a `Tool` to set another name or description, or a JSON
    schema of your own:

        weather = Tool(lookup, name="get_weather", description="Current weather in a city.")

    By default, the name is the function's, and the description is its docstring without the sections on parameters,
    returns and errors. The schema of the arguments comes from the annotations, through pydantic, with the parameter
    descriptions in the docstring (Google, NumPy or reST style). `Annotated[..., Field(description=...)]` takes
    precedence over the docstring. A parameter without an annotation accepts anything. `**kwargs` is left out.

    Args:
        function: A function, a bound method, a `functools.partial` or any other callable object; sync or async.
        name: The name of the tool.
        description: What it does and when to call it. The model reads this.
        parameters: A JSON schema of the arguments (an object schema), instead of that from the signature. The
            arguments are then passed as keywords without validation.

    Raises:
        InvalidRequestError: The function cannot be described; the message says why.
    """

    __slots__ = ("__weakref__", "_signature", "description", "function", "name", "parameters")

    def __init__(
        self,
        function: Callable[..., object],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        try:
            _check(function)
            self._signature = None if parameters is not None else _signature_of(function)
            self.name = name or _name_of(function)
        except _UndescribableError as error:
            raise InvalidRequestError([error.problem("function")]) from error.__cause__
        self.function = function
        self.description = description if description is not None else _description_of(function)
        self.parameters = parameters if self._signature is None else self._signature.schema

    @property
    def definition(self) -> FunctionTool:
        """The tool in the form for a request's `tools`."""
        function: dict[str, object] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = self.parameters
        return cast("FunctionTool", {"type": "function", "function": function})

    @property
    def is_async(self) -> bool:
        """Whether the function is known to be async."""
        function = _without_partials(self.function)
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - the method of a callable object
        )

    def bind(self, arguments: str) -> Callable[[], object]:
        """Validates the model's arguments. Returns a callable that calls the function with them.

        Args:
            arguments: JSON text; empty means no arguments.

        Raises:
            ValueError: They are not a JSON object; or pydantic's `ValidationError`, if they are invalid.
        """
        text = arguments if arguments.strip() else "{}"
        if self._signature is None:
            values = as_object(from_json(text))
            if values is None:
                raise ValueError("not a JSON object")
            return functools.partial(self.function, **values)
        return self._signature.bind(self.function, text)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Calls the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"


def text_of(result: object) -> str:
    """Returns a tool's result as text for the model: a `str` unchanged, anything else as JSON."""
    if isinstance(result, str):
        return result
    return to_json(result, fallback=_plain, inf_nan_mode="strings").decode()


def _plain(value: object) -> object:
    """Returns a numpy array, or its like, as a list; anything else as text."""
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else str(value)


def convert_tools(tools: Sequence[object], path: str) -> tuple[list[object], list[Problem]]:
    """Converts functions among the tools to the mappings that are sent. Also returns the problems of the functions."""
    sent: list[object] = []
    problems: list[Problem] = []
    for place, item in enumerate(tools):
        if callable(item) and as_mapping(item) is None:
            try:
                sent.append(as_tool(item).definition)
            except InvalidRequestError as error:
                problems += [
                    Problem(f"{path}[{place}]", each.value, each.rule, each.suggestion)
                    for each in error.problems
                ]
        else:
            sent.append(item)
    return sent, problems


def as_tool(function: Callable[..., object]) -> Tool:
    """Returns a function as a `Tool`."""
    return function if isinstance(function, Tool) else Tool(function)


# Describing


class _UndescribableError(Exception):
    def __init__(self, function: object, rule: str, suggestion: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.suggestion = suggestion
        self.function = function

    def problem(self, path: str) -> Problem:
        name = getattr(self.function, "__qualname__", None) or type_name(self.function)
        return Problem(path, f"<{name.replace('<locals>.', '')}>", self.rule, self.suggestion)


class _Untitled(SchemaGenerator):
    # Titles repeat the names of the properties and would cost tokens in every prompt.
    def field_title_should_be_set(self, schema: object) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class _Signature:
    """The parameters of a function.

    Attributes:
        schema: Their JSON schema.
        adapter: Validates arguments.
        positional: The positional-only parameters, each with its default.
        defaults: The parameters whose default is pydantic's `Field(...)`.
    """

    schema: dict[str, object]
    adapter: TypeAdapter[dict[str, object]]
    positional: tuple[tuple[str, object], ...]
    defaults: dict[str, FieldInfo]

    def bind(self, function: Callable[..., object], arguments: str) -> Callable[[], object]:
        values = self.adapter.validate_json(arguments)
        for name, field in self.defaults.items():
            if name not in values:
                values[name] = field.get_default(call_default_factory=True)
        # Validation has ensured that those without a default are given.
        positions = [values.pop(name, default) for name, default in self.positional]
        return functools.partial(function, *positions, **values)


def _check(function: object) -> None:
    if not callable(function):
        raise _UndescribableError(function, f"must be a function, not {type_name(function)}.")
    if isinstance(function, type):
        hint = "Write a function, or a mapping with the schema of the class."
        raise _UndescribableError(function, "is a class, not a function.", hint)
    if inspect.isasyncgenfunction(function):
        hint = "Return a list of the items instead."
        raise _UndescribableError(function, "is an async generator, which returns no result.", hint)


def _without_partials(function: Callable[..., object]) -> Callable[..., object]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name_of(function: Callable[..., object]) -> str:
    inner = _without_partials(function)
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if not isinstance(name, str) or name == "<lambda>":
        raise _UndescribableError(function, "has no name.", 'Write Tool(..., name="...").')
    return name


def _description_of(function: Callable[..., object]) -> str:
    return docstrings.parse(_doc_of(function)).text


def _doc_of(function: Callable[..., object]) -> str | None:
    inner = _without_partials(function)
    if inspect.isroutine(inner):
        return inspect.getdoc(inner)
    # For an object, the docstring of its `__call__`, else of its class.
    return type(inner).__call__.__doc__ or inspect.getdoc(type(inner))


_FUNCTIONS: Final[WeakKeyDictionary[FunctionType, _Signature]] = WeakKeyDictionary()
_METHODS: Final[WeakKeyDictionary[FunctionType, _Signature]] = WeakKeyDictionary()


def _signature_of(function: Callable[..., object]) -> _Signature:
    """Returns the parameters of a function. Cached for functions and methods, because it takes a millisecond."""
    plain: object = function
    kept = _FUNCTIONS
    if isinstance(function, MethodType):
        plain, kept = function.__func__, _METHODS
    if not isinstance(plain, FunctionType):
        return _read_signature(function)
    known = kept.get(plain)
    if known is None:
        known = kept[plain] = _read_signature(function)
    return known


def _read_signature(function: Callable[..., object]) -> _Signature:
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError) as error:
        raise _UndescribableError(function, f"has no signature ({error}).", _BY_HAND) from error
    hints = _hints_of(function)
    # Arguments bound by a partial may be secrets, so the model must not see them.
    bound = _keywords_of(function)
    descriptions = docstrings.parse(_doc_of(function)).parameters
    fields: dict[str, object] = {}
    defaults: dict[str, FieldInfo] = {}
    texts: dict[str, str] = {}
    positional: list[tuple[str, object]] = []
    shown: dict[str, object] = {}
    for place, (name, parameter) in enumerate(parameters.items()):
        if parameter.kind is parameter.VAR_KEYWORD or name in bound:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            rule = f"has *{name}, but a model passes arguments by name."
            raise _UndescribableError(function, rule, "Use a list parameter instead.")
        if place == 0 and name in ("self", "cls") and name not in hints:
            rule = f"is an unbound method: its first parameter is {name}."
            raise _UndescribableError(function, rule, "Pass the bound method: instance.method.")
        hint, default = hints.get(name, Any), parameter.default
        if (text := _text_in(hint) or descriptions.get(name)) is not None:
            texts[name] = text
        if isinstance(default, FieldInfo):
            defaults[name] = default
            hint = Annotated[hint, default]
            default = _EMPTY if default.is_required() else default
        elif default is not _EMPTY:
            shown[name] = default
        fields[name] = Required[hint] if default is _EMPTY else NotRequired[hint]
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append((name, default))
    kind = TypedDict("Arguments", fields)  # type: ignore[misc] # pyright: ignore # built from a signature
    kind.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    optional = {name: field for name, field in defaults.items() if not field.is_required()}
    try:
        adapter: TypeAdapter[dict[str, object]] = new_adapter(kind)
        made = schema_of(adapter, _Untitled)
    except SchemaError as error:
        raise _UndescribableError(function, f"has no JSON schema: {error}.", _BY_HAND) from error.__cause__
    # The model uses the alias of a parameter, if pydantic's `Field` sets one. The order is the same.
    names = list(cast("Mapping[str, object]", made.get("properties", {})))
    if len(names) != len(fields):
        raise _UndescribableError(function, "has two parameters with the same alias.", "Make aliases unique.")
    aliases = dict(zip(fields, names, strict=True))
    return _Signature(_finished(made, texts, shown, aliases), adapter, tuple(positional), optional)


_BY_HAND: Final = "Write Tool(..., parameters={...}) with your own schema."


def _hints_of(function: Callable[..., object]) -> dict[str, Any]:
    inner = _without_partials(function)
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    try:
        return get_type_hints(inspect.unwrap(inner), include_extras=True)
    except Exception as error:  # evaluating an annotation may raise anything
        reason = f"{type(error).__name__}: {error}"
        hint = "Import the names in its annotations at run time, not only under TYPE_CHECKING."
        raise _UndescribableError(
            function, f"has annotations that cannot be resolved ({reason}).", hint
        ) from error


def _keywords_of(function: object) -> set[str]:
    keywords: set[str] = set()
    while isinstance(function, functools.partial):
        keywords.update(function.keywords)
        function = function.func
    return keywords


def _text_in(hint: object) -> str | None:
    """Returns the text in `Annotated[..., "text"]` or `Annotated[..., Doc("text")]`."""
    if get_origin(hint) is not Annotated:
        return None
    for word in get_args(hint)[1:]:
        text = word if isinstance(word, str) else getattr(word, "documentation", None)
        if isinstance(text, str):
            return text
    return None


def _finished(
    schema: dict[str, Any], texts: dict[str, str], defaults: dict[str, object], aliases: dict[str, str]
) -> dict[str, object]:
    """Returns the schema with descriptions and defaults, in the usual order of keys."""
    properties: dict[str, dict[str, object]] = schema.get("properties", {})
    for name, text in texts.items():
        properties[aliases[name]].setdefault("description", text)
    for name, default in defaults.items():
        try:
            properties[aliases[name]]["default"] = to_jsonable_python(default)
        except ValueError:
            continue  # not JSON-serializable, and only informative
    finished: dict[str, object] = {"type": "object", "properties": properties}
    for name in ("required", "additionalProperties", "$defs"):
        if name in schema:
            finished[name] = schema[name]
    return finished
