"""Shared by the models of all responses: lenient parsing that keeps unknown fields.

Servers of many versions, and the proxies in front of them, send more or fewer fields than the newest server does. So
no key is required here: null counts as absent, missing fields get their defaults, and unknown fields are kept in
`model_extra`. Only the outer structure must be right; each decoder checks that.
"""

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Protocol, Self, TypeAlias, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema, to_json

from vllmchat.errors import ResponseError
from vllmchat.http.call import Response, ResponseHead
from vllmchat.http.excerpt import beginning, start_of
from vllmchat.http.record import CallRecord, Timings
from vllmchat.lazy import LazyModule
from vllmchat.wire.lenient import TornCharacters, drop, parse
from vllmchat.wire.repeats import Repeats

if TYPE_CHECKING:
    from vllmchat.http import api_errors
else:
    api_errors = LazyModule("vllmchat.http.api_errors")

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_MEMBER = "|"
_building = threading.Lock()


class WireModel(BaseModel):
    """Base of everything a server sends. Keeps unknown fields; its validator is built on first use."""

    model_config = ConfigDict(extra="allow", defer_build=True, protected_namespaces=())

    def __repr_args__(self) -> Iterable[tuple[str | None, object]]:
        # Null and absent are the same: what a reply does not have is not shown.
        return [(name, value) for name, value in super().__repr_args__() if value is not None and value != []]

    def __str__(self) -> str:
        return repr(self)

    def __dir__(self) -> Iterable[str]:
        fields = type(self).model_fields
        return [name for name in super().__dir__() if name not in _DEPRECATED or name in fields]


_DEPRECATED = frozenset(
    {
        "construct", "copy", "dict", "from_orm", "json", "parse_file", "parse_obj", "parse_raw", "schema",
        "schema_json", "update_forward_refs", "validate",
    }
)  # fmt: skip
"""Methods of older versions of pydantic, which a completion does not offer."""


class Fallback:
    """Marks a field that may also come in another form, which `convert` turns into the declared type.

    The declared type is tried first, inside the compiled validator, so the usual form costs nothing. `convert`
    receives what did not match, and raises ValueError if it does not know it either.

    Args:
        convert: Converts what did not match.
        tried: The type to try instead of the declared one, if that is wider.
    """

    __slots__ = ("_convert", "_tried")

    def __init__(self, convert: Callable[[object], object], tried: object = None) -> None:
        self._convert = convert
        self._tried = tried

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        declared = handler(source) if self._tried is None else handler.generate_schema(self._tried)
        return core_schema.union_schema(
            # The labels appear in an error's path, where `first_problem` removes them.
            [(declared, _MEMBER), (core_schema.no_info_plain_validator_function(self._convert), _MEMBER)],
            mode="left_to_right",
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        declared: Any = schema
        return handler(declared["choices"][0][0])


def default_for_null(make: Callable[[], object]) -> Fallback:
    """Replaces null by what `make` returns."""

    def convert(value: object) -> object:
        if value is None:
            return make()
        raise ValueError("not of the declared type")

    return Fallback(convert)


def _whole(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    raise ValueError("not a number")


def text_of_parts(value: object) -> str:
    """The text of content that is a text, a part, or a list of parts."""
    pieces: list[str] = []
    for part in cast("list[object]", value if isinstance(value, list) else [value]):
        text = part if isinstance(part, str) else (as_object(part) or {}).get("text")
        if isinstance(text, dict):
            text = cast("JsonObject", text).get("value")
        if isinstance(text, str):
            pieces.append(text)
    return "".join(pieces)


def has_thinking(value: object) -> bool:
    """Whether content has parts with thoughts."""
    parts = cast("list[object]", value if isinstance(value, list) else [value])
    return any("thinking" in (as_object(part) or ()) for part in parts)


def _joined_text(value: object) -> str:
    if not isinstance(value, list | dict):
        raise ValueError("neither text nor a list of parts")
    parts = cast("list[object] | JsonObject", value)
    if has_thinking(parts):
        raise ValueError("has thoughts, which do not belong to the text")
    return text_of_parts(parts)


def _id_text(value: object) -> str:
    """An id that is a number as text."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("neither text nor a number")


def _json_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    raise ValueError("neither text nor an object")


JsonObject: TypeAlias = dict[str, object]
"""A JSON object that is passed on unchanged. (An alias, because some models have a field named `object`.)"""

NEEDED = frozenset(
    {
        "choices",
        "index",
        "delta",
        "message",
        "content",
        "text",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "data",
        "embedding",
        "score",
        "relevance_score",
        "results",
    }
)
"""The keys that make a reply. A value that does not fit is an error here, and counts as absent anywhere else."""

MAX_PARTS = 4096
"""The most choices in a chunk, and tool calls in a piece: each costs far more memory than it has bytes."""

LenientList = Annotated[list[T], default_for_null(list[Any])]
"""A list; null becomes the empty list."""

LenientStr = Annotated[str, default_for_null(str)]
"""Text; null becomes the empty text."""

LenientInt = Annotated[int, Fallback(_whole)]
"""An integer; null becomes 0, and a fraction is truncated."""

ChoiceIndex = Annotated[int, Field(ge=0, lt=65_536), Fallback(_whole)]
"""The index of a choice. Its bound limits the memory that the choices of a stream can take."""

CallIndex = Annotated[int | None, Field(ge=0, lt=65_536), Fallback(lambda _: None)]
"""The index of a tool call; None if it is not one."""

Id = Annotated[str, Fallback(_id_text)]
"""An id; a number becomes text, and null becomes the empty text."""

Content = Annotated[str | None, Fallback(_joined_text)]
"""Text or null; a part, or a list of parts, becomes its text."""

JsonText = Annotated[str, Fallback(_json_text)]
"""JSON as text; an object is encoded, and null becomes the empty text."""


def as_object(value: object) -> JsonObject | None:
    """A decoded JSON value as an object, or None if it is something else."""
    return cast("JsonObject", value) if isinstance(value, dict) else None


def unexpected_body(what: str, body: bytes, reason: str) -> ResponseError:
    """The error for a body that is not `what`."""
    text = start_of(body)
    return ResponseError(f"the response is not {what} ({reason}); {beginning(text)}", body=text)


def ensure_built(model: type[BaseModel]) -> None:
    """Builds a model's validator now, unless that is done already. Thread-safe.

    Models are built on first use, which keeps the import fast; older versions of pydantic do that without a lock.
    """
    if not model.__pydantic_complete__:
        with _building:
            model.model_rebuild()


def decode(
    model: type[M],
    body: bytes,
    what: str,
    needed: frozenset[str] | None = None,
    torn: TornCharacters | None = None,
    context: object | None = None,
) -> M:
    """Decodes a JSON body.

    Args:
        model: The model to make of it.
        body: The body.
        what: What it should be, with its article, for the error message.
        needed: The keys without which the response is useless: values of others that do not fit the model are left
            out. None if all are needed.
        torn: The torn characters of a stream.
        context: What the model's validators need to know.

    Raises:
        ResponseError: The body is not JSON, or something that is needed does not match the model.
    """
    if not model.__pydantic_complete__:
        ensure_built(model)
    try:
        # Call the validator directly: `model_validate_json` would add a quarter of the time that validation takes.
        decoded: M = model.__pydantic_validator__.validate_json(body, context=context)
    except ValidationError as error:
        if needed is None or error.error_count() > _MOST_PROBLEMS or _is_too_long(error):
            raise unexpected_body(what, body, first_problem(error)) from error
        try:
            value = parse(body)
            if b"\\u" in body:
                value = (torn or TornCharacters()).mend(value)
        except (ValueError, RecursionError):
            raise unexpected_body(what, body, first_problem(error)) from error
        return _decode_leniently(model, value, body, what, needed, context)
    return decoded


_MOST_PROBLEMS = 10_000


def _is_too_long(error: ValidationError) -> bool:
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    return any(each["type"] == "too_long" for each in wrong)


def _decode_leniently(
    model: type[M], value: object, body: bytes, what: str, needed: frozenset[str], context: object | None
) -> M:
    while True:
        try:
            data = to_json(value, inf_nan_mode="constants")
            decoded: M = model.__pydantic_validator__.validate_json(data, context=context)
        except PydanticSerializationError as error:  # nested too deeply
            raise unexpected_body(what, body, str(error)) from error
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)
            if not drop(value, [each["loc"] for each in wrong], needed):
                raise unexpected_body(what, body, first_problem(error)) from error
        else:
            return decoded


def build(model: type[M], fields: JsonObject) -> M:
    """Builds a reply of what its chunks added up to. What does not fit the model is left out, in place.

    Fields that are unknown in chunks may be known in the whole reply, and have another type there.
    """
    ensure_built(model)
    while True:
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)
            if not drop(fields, [each["loc"] for each in wrong], frozenset()):
                raise


def decode_with_choices(
    model: type[M],
    body: bytes,
    what: str,
    needed: frozenset[str] = NEEDED,
    torn: TornCharacters | None = None,
) -> M:
    """Decodes a whole reply or a chunk, in which only the choices are required; see `decode`.

    Raises:
        ResponseError: The body is not JSON, does not match the model, or has no choices.
    """
    decoded = decode(model, body, what, needed, torn)
    sent = decoded.model_fields_set
    # Some servers send the usage of a stream by itself.
    if "choices" not in sent and (torn is None or "usage" not in sent):
        raise unexpected_body(what, body, "it has no choices")
    return decoded


def first_problem(error: ValidationError) -> str:
    """The first validation error, as `path: rule`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"] if part != _MEMBER)
    return f"{path}: {first['msg']}" if path else first["msg"]


KEEP_ALIVE = frozenset({"ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"})
"""The types of events that only keep a connection alive."""

_KEEP_ALIVE_DATA = frozenset(kind.encode() for kind in KEEP_ALIVE)


class ChunkDecoder(Generic[M]):
    """Decodes the data of the server-sent events of one stream.

    Args:
        decode: Decodes a chunk. Raises `ResponseError` if the data is not one.

    Attributes:
        repeat: Decodes data that differs from those before in its text only; returns None for any other.
        repeated: Returns one chunk that adds up to the same as all that `repeat` has returned since its last call; None
            without any.
        texts: The texts of those.
    """

    def __init__(self, decode: Callable[[bytes, TornCharacters], M]) -> None:
        self._decode = decode
        self._torn = TornCharacters()
        self._repeats = Repeats(decode)
        self.repeat = self._repeats.next
        self.repeated = self._repeats.joined
        self.texts = self._repeats.texts

    def decode(self, data: bytes, kind: str = "") -> M | JsonObject | None:
        """Decodes the data of an event: a chunk, the body of the error that it reports, or None to keep alive.

        An error is a JSON object whose `error` is neither null nor empty, even if it has choices too, or another
        object that `reports_error` knows, or any object in an event of the type `error`.

        Args:
            data: The data.
            kind: The type of the event, if the stream gives one.

        Raises:
            ResponseError: The data is something else: not JSON, or JSON of another structure.
        """
        repeated = self._repeats.find(data)
        if repeated is not None:
            return repeated
        # Only events unlike vLLM's chunks are parsed twice.
        try:
            chunk = self._decode(data, self._torn)
        except ResponseError:
            error = find_error(data, kind)
            if error is not None:
                return error
            if keeps_alive(data, kind):
                return None
            raise
        if chunk.__pydantic_extra__ and (error := find_error(data)) is not None:
            return error
        return chunk


def keeps_alive(data: bytes, kind: str) -> bool:
    """Whether an event that is not a chunk only keeps the connection alive: `null`, `{}`, or a ping."""
    if kind in KEEP_ALIVE or data.strip(b" \"'").lower() in _KEEP_ALIVE_DATA:
        return True
    try:
        body = parse(data)
    except (ValueError, RecursionError):
        return False
    named = (as_object(body) or {}).get("type")
    return body is None or body == {} or (isinstance(named, str) and named in KEEP_ALIVE)


def find_error(data: bytes, kind: str = "") -> JsonObject | None:
    """The body of the error that an event, or a whole response, reports; or None.

    Args:
        data: The data.
        kind: The type of the event; if it is `error`, any object is an error.
    """
    if b'"error"' not in data and b'"choices"' in data and kind != "error":
        return None
    try:
        body = as_object(parse(data))
    except (ValueError, RecursionError):
        return None
    if body is None:
        return None
    if api_errors.reports_error(body):
        return body
    if "error" in (kind, body.get("type")):
        return {"error": body}
    # Some gateways report the error in the choice that it ended.
    choices = body.get("choices")
    for choice in cast("list[object]", choices) if isinstance(choices, list) else []:
        fields = as_object(choice)
        if fields is not None and fields.get("error"):
            return {"error": fields["error"]}
    return None


A = TypeVar("A", bound="Answer")
V = TypeVar("V", bound="Received")
P = TypeVar("P", bound="Indexed")


class Received(WireModel):
    """Base of responses that know how they came about. That counts neither in comparisons nor in `model_dump`."""

    # A slot, not a private attribute of pydantic's: those cost each reply 3 µs, and count in comparisons.
    __slots__ = ("_record",)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), _RECORD: record_of(self)}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__({name: value for name, value in state.items() if name != _RECORD})
        _set_record(self, state.get(_RECORD))

    def __copy__(self) -> Self:
        return _set_record(super().__copy__(), record_of(self))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return _set_record(super().__deepcopy__(memo), record_of(self))

    @property
    def timings(self) -> Timings:
        """How long the call took, in seconds. All of it is None if the response did not come over HTTP."""
        record = record_of(self)
        if record is None:
            return Timings()
        fields = vars(self)
        usage, metrics = fields.get("usage"), fields.get("metrics")
        queued: float | None = getattr(metrics, "queue_time_ms", None)
        return record.timings(
            tokens=getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None),
            queued=None if queued is None else queued / 1000,
            rate=getattr(metrics, "tokens_per_second", None),
        )

    @property
    def attempts(self) -> int:
        """How many requests were sent; more than 1 after retries, and 0 if it did not come over HTTP."""
        record = record_of(self)
        return 0 if record is None else record.attempts

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response, names in lower case. Cookies and keys are masked."""
        record = record_of(self)
        return {} if record is None else record.headers


_RECORD: Final = "vllmchat_record"


def record_of(answer: "Received") -> CallRecord | None:
    """What is known of the call that brought a response; None if it did not come over HTTP."""
    return getattr(answer, "_record", None)


def _set_record(answer: V, record: CallRecord | None) -> V:
    if record is not None:
        object.__setattr__(answer, "_record", record)
    return answer


class Answer(Received):
    """Base of responses that know their request ID."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        return super().__eq__(other) and self.request_id == other.request_id

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None if it did not come over HTTP.

        The server logs it; quote it to whoever runs the server.
        """
        record = record_of(self)
        return None if record is None else record.request_id


def requested(value: T | None, what: str, parameter: str) -> T:
    """Returns a part of a response that is only sent on request.

    Args:
        value: The part.
        what: What it is.
        parameter: What requests it.

    Raises:
        ResponseError: It was not sent.
    """
    if value is None:
        raise ResponseError(f"the response has no {what}. Pass {parameter} to the call")
    return value


class Indexed(Protocol):
    """A part of a response that says which input it belongs to."""

    index: int


def read_answer(
    model: type[A],
    reply: Response,
    what: str,
    *,
    required_key: str,
    needed: frozenset[str] | None = NEEDED,
    context: object | None = None,
) -> A:
    """Decodes a JSON response.

    Args:
        model: The model to make of it.
        reply: The response.
        what: What it should be, with its article, for the error message.
        required_key: A key that it must have.
        needed: See `decode`.
        context: What the model's validators need to know.

    Raises:
        ResponseError: The body is not JSON or does not match the model.
    """
    answer = decode(model, reply.body, what, needed, context=context)
    if required_key not in answer.model_fields_set:
        raise unexpected_body(what, reply.body, f"it has no {required_key}")
    if (answer.__pydantic_extra__ or {}).get("error") is not None:
        raise unexpected_body(what, reply.body, "it reports an error")
    drop_empty_usage(answer)
    return with_record(answer, reply.head)


def with_record(answer: V, head: ResponseHead | None) -> V:
    """Returns the result with what is known of its call.

    Args:
        answer: The result.
        head: The head of the response, if there was one.
    """
    if head is not None:
        record = head.record.settled() if head.record is not None else CallRecord.of(head)
        object.__setattr__(answer, "_record", record)
    return answer


def drop_empty_usage(answer: BaseModel) -> None:
    """Removes a usage in which the server sent nothing: it would read as zeros."""
    fields = vars(answer)
    usage = fields.get("usage")
    if isinstance(usage, BaseModel) and not usage.model_fields_set:
        fields["usage"] = None


def sort_by_index(parts: list[P], expected: int | None, what: str, reply: Response) -> None:
    """Sorts the parts of a response into the order of the inputs.

    Args:
        parts: The parts.
        expected: The expected number of parts; None if unknown.
        what: What the response is, with its article, for the error message.
        reply: The response.

    Raises:
        ResponseError: The number is wrong, or an index occurs twice, so parts could be assigned to the wrong inputs.
    """
    if expected is not None and len(parts) != expected:
        raise unexpected_body(what, reply.body, f"it has {len(parts)} results for {expected} inputs")
    parts.sort(key=lambda part: part.index)
    if expected is None or not any(part.index for part in parts):
        # Some servers send no index, or always 0: their parts are in order.
        return
    for place, part in enumerate(parts, parts[0].index):
        if part.index != place:
            raise unexpected_body(what, reply.body, f"its indexes are wrong: {part.index} instead of {place}")
