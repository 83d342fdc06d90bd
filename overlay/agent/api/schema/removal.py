"""The response to a removal, which the command line also gives for several objects."""

from typing import TypedDict


class ErrorBody(TypedDict):
    """An error: its code, text, cause and hint, and the field that is wrong."""

    code: str
    what: str
    why: str
    hint: str
    field: str


class RemovalFailureResponse(TypedDict):
    """An object that was not removed, and the error."""

    name: str
    error: ErrorBody


class RemovalResponse(TypedDict):
    """The objects that were removed, and those that were not.

    A request names one object, and fails with its error; the command line names several.
    """

    removed: list[str]
    failed: list[RemovalFailureResponse]
