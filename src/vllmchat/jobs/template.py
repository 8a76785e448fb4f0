"""How the rows of a file become requests."""

from __future__ import annotations

import json
import re
import warnings
from string import Formatter
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.checking.describe import format_value
from vllmchat.errors import InvalidRequestError
from vllmchat.jobs.routes import CHAT, SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

_IDS: Final = ("id", "custom_id")
_TEXTS: Final = ("prompt", "text")

_Keys: TypeAlias = "tuple[str | int, ...]"


class Template:
    """How a row becomes a request.

    Args:
        prompt: The prompt, with the names of fields in braces; None to take it from the row.
        system: The system message of a chat, likewise; None for none.
        url: The route.

    Raises:
        InvalidRequestError: One of them is invalid.

    Attributes:
        url: The route.
        columns: The columns of a table that it reads; None for all.
    """

    def __init__(self, prompt: str | None = None, system: str | None = None, url: str = CHAT) -> None:
        if url not in SUBJECTS:
            raise InvalidRequestError(f"url={format_value(url)}: must be one of {', '.join(SUBJECTS)}.")
        self.url = url
        self._subject = SUBJECTS[url]
        if prompt is not None and self._subject is None:
            raise InvalidRequestError(
                f"prompt: {url} has no prompt. Each row must have the fields of a request."
            )
        if system is not None and url != CHAT:
            raise InvalidRequestError(f"system: {url} has no system message. Leave it out.")
        self._prompt = None if prompt is None else Text("prompt", prompt)
        self._system = None if system is None else Text("system", system)
        texts = (self._prompt, self._system)
        self._fields = [name for text in texts if text is not None for name in text.fields]
        if prompt is not None and not self._fields:
            warnings.warn(
                f"prompt={format_value(prompt)}: has no field, so every input becomes the same prompt. "
                "Write {text}, or the name of another field, where the input belongs.",
                stacklevel=3,
            )
        self._subjects = () if prompt is not None else (self._subject or "", *_TEXTS)
        self.columns = None if self._subject is None else frozenset((*self._fields, *self._subjects))

    def is_request(self, names: Container[str]) -> bool:
        """Whether a row with these fields is a request of its own, in the batch format. With a prompt, it is data.

        Raises:
            InvalidRequestError: It is, and there is a system message for it.
        """
        if self._prompt is not None or "url" not in names or "body" not in names:
            return False
        if self._system is not None:
            raise InvalidRequestError(
                "system: the input has requests with messages of their own. Leave it out."
            )
        return True

    def check_columns(self, names: Sequence[str]) -> None:
        """Checks the columns of a table before its first row is read.

        Raises:
            InvalidRequestError: A field that each row needs is missing.
        """
        if self.is_request(names):
            return
        missing = dict.fromkeys(name for name in self._fields if name not in names)
        if missing:
            raise InvalidRequestError(
                f"the input has no column {', '.join(map(repr, missing))}, which the prompt needs; "
                f"it has {', '.join(names)}."
            )
        if self._subjects and self._subject is not None and not set(self._subjects).intersection(names):
            raise _no_subject("the input", self._subject, names)

    def body(self, row: Mapping[str, object], *, is_table: bool = False) -> dict[str, object]:
        """Returns the body of a request.

        Args:
            row: The row.
            is_table: Whether it is of a table, whose other columns are data. In JSON, they are parameters.

        Raises:
            InvalidRequestError: The row lacks a field.
        """
        subject = self._subject
        body: dict[str, object]
        if self._prompt is not None:
            body = self._about(self._prompt.fill(row))
        elif subject is None:
            body = {name: value for name, value in row.items() if name not in _IDS}
        else:
            name = self._subject_of(row)
            body = {subject: row[name]} if name == subject else self._about(row[name])
            if not is_table:
                body.update((key, value) for key, value in row.items() if key not in (*_IDS, name))
        if self._system is not None:
            given = body["messages"]
            rest = cast("list[object]", given) if isinstance(given, list) else [_user(given)]
            body["messages"] = [{"role": "system", "content": self._system.fill(row)}, *rest]
        return body

    def _subject_of(self, row: Mapping[str, object]) -> str:
        """The field with the messages or the prompt."""
        if self._subject is not None and row.get(self._subject) is not None:
            return self._subject
        name = next((name for name in _TEXTS if isinstance(row.get(name), str)), None)
        if name is None:
            raise _no_subject("the row", self._subject or "", list(row))
        return name

    def _about(self, text: object) -> dict[str, object]:
        # Also of a chat, whose method takes a text faster than a list with one message.
        return {cast("str", self._subject): text}


def _no_subject(what: str, subject: str, found: Sequence[str]) -> InvalidRequestError:
    *names, last = dict.fromkeys((subject, *_TEXTS))
    return InvalidRequestError(
        f"{what} has no {', '.join(names)} or {last}, but {', '.join(found) or 'nothing'}. "
        "Pass prompt='... {field} ...' to make a prompt of its fields."
    )


def _user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


class Text:
    """A text with fields in braces: `{name}`, `{name[key]}` and `{name[0]}`, with a format such as `{price:.2f}`.

    What they stand for are the values of a row, and never attributes of Python objects.

    Args:
        name: Its name, for errors.
        text: The text.

    Raises:
        InvalidRequestError: Its braces are wrong.

    Attributes:
        fields: The fields of a row that it needs.
    """

    def __init__(self, name: str, text: str) -> None:
        if not isinstance(cast("object", text), str):
            raise InvalidRequestError(f"{name}={format_value(text)}: must be a text.")
        self._name = name
        self._parts: list[tuple[str, str | None, _Keys, str]] = []
        self.fields: list[str] = []
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise self._wrong(text, f"{error}") from None
        for literal, field, spec, conversion in parts:
            if field is None:
                self._parts.append((literal, None, (), ""))
                continue
            if conversion is not None:
                raise self._wrong(text, f"!{conversion} is not supported")
            if spec and "{" in spec:
                raise self._wrong(text, "a format must not have fields of its own")
            first, keys = _path(field)
            if not first:
                raise self._wrong(text, "{} names no field")
            self.fields.append(first)
            self._parts.append((literal, first, keys, spec or ""))

    def fill(self, row: Mapping[str, object]) -> str:
        """Returns the text for a row.

        Raises:
            InvalidRequestError: The row lacks a field, or the field has no value.
        """
        texts: list[str] = []
        for literal, field, keys, spec in self._parts:
            texts.append(literal)
            if field is not None:
                texts.append(self._text(row, field, keys, spec))
        return "".join(texts)

    def _text(self, row: Mapping[str, object], field: str, keys: _Keys, spec: str) -> str:
        if field not in row:
            raise InvalidRequestError(
                f"the row has no {field!r}, which the {self._name} needs; it has {', '.join(row) or 'nothing'}."
            )
        value = row[field]
        shown = field
        for key in keys:
            shown += f"[{key}]"
            try:
                value = cast("Mapping[object, object]", value)[_key_for(value, key)]
            except (LookupError, TypeError):
                raise InvalidRequestError(
                    f"the row has no {shown!r}, which the {self._name} needs."
                ) from None
        if value is None:
            raise InvalidRequestError(f"{shown!r} is null, and the {self._name} needs it.")
        try:
            return format(value, spec) if spec else as_text(value)
        except (ValueError, TypeError) as error:
            if isinstance(value, str):
                raise InvalidRequestError(
                    f"{shown!r} is the text {format_value(value)}, which cannot be formatted as {spec!r}. "
                    f"Values in a CSV file are texts: write {{{shown}}}."
                ) from None
            raise InvalidRequestError(f"{shown!r} cannot be formatted as {spec!r}: {error}.") from None

    def _wrong(self, text: str, why: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._name}={format_value(text)}: {why}. Write {{field}} for a field, and {{{{ for a brace."
        )


def _path(field: str) -> tuple[str, _Keys]:
    """Splits `a[b][0]` into its field and the keys inside it."""
    match = re.fullmatch(r"(.*?)((?:\[[^\[\]]+\])*)", field, re.DOTALL)
    first, rest = match.groups() if match else (field, "")
    return first, tuple(int(key) if key.isdecimal() else key for key in re.findall(r"\[([^\[\]]+)\]", rest))


def _key_for(value: object, key: str | int) -> str | int:
    # Lists have numbers, and the keys of an object are texts.
    if isinstance(value, str):
        raise TypeError
    return str(key) if hasattr(value, "keys") else key


def as_text(value: object) -> str:
    """Returns a value as it stands in a prompt: a text as it is, a number, list or object as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
