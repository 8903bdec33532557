"""The one error that this project raises for bad input."""

from __future__ import annotations


class DvdqError(ValueError):
    """Bad input, said in one line: ``operation: where: expected …, got …``.

    Args:
        operation: what was being done, e.g. ``"refine_grid"``.
        expected: what would have been accepted.
        got: what came instead.
        where: the row, token, layer or file at fault, if it is narrower than the operation.
    """

    def __init__(self, operation: str, *, expected: object, got: object, where: str | None = None) -> None:
        self.operation = operation
        self.where = where
        self.expected = expected
        self.got = got
        place = operation if where is None else f"{operation}: {where}"
        super().__init__(f"{place}: expected {expected}, got {got}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.operation, self.expected, self.got, self.where)


def _rebuild(operation: str, expected: object, got: object, where: str | None) -> DvdqError:
    return DvdqError(operation, expected=expected, got=got, where=where)
