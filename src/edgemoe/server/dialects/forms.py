"""How families write calls of functions, so that a grammar can hold a model to it.

A call is opened by a mark; what follows is written in one of a few forms. ``{name}`` stands for a name, and
``{id}`` for the call's. Models may leave out spaces and newlines that stand before and after the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class JsonForm:
    """A call whose arguments are one JSON object, and what stands before and after it."""

    before: str
    after: str


@dataclass(frozen=True)
class TaggedForm:
    """A call that has each argument between tags: texts as they are, other values as JSON.

    ``opens_json``: the tag before values that are no texts, where that is another one.
    """

    before: str
    opens: str
    closes: str
    after: str
    opens_json: str | None = None


@dataclass(frozen=True)
class QuotedForm:
    """A call with its arguments in braces, in any order, and texts between quotation marks of its own."""

    before: str
    after: str
    quote: str


@dataclass(frozen=True)
class PythonForm:
    """A call as Python writes it, with all arguments by name."""

    before: str
    after: str


@dataclass(frozen=True)
class ListForm:
    """Calls in one list, with commas between them."""

    item: JsonForm | PythonForm
    before: str
    after: str

    @property
    def alone(self) -> JsonForm | PythonForm:
        """The form of a list of one call."""
        item = self.item
        return replace(item, before=self.before + item.before, after=item.after + self.after)


Form = JsonForm | TaggedForm | QuotedForm | PythonForm | ListForm


@dataclass(frozen=True)
class Opening:
    """A mark behind which a model has said that it calls a function.

    ``pattern``: a regular expression for it where it is no fixed text; it ends in ``mark``.
    """

    mark: str
    forms: tuple[Form, ...]
    pattern: str | None = None


@dataclass(frozen=True)
class ForcedCall:
    """How a call is written that must be made: a text, and the form behind it."""

    begins: str
    form: Form
