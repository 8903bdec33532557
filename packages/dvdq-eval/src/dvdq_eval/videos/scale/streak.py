"""When to give up: failures without a video between them."""

from __future__ import annotations

from dvdq_reference.spec.errors import DvdqError

OPERATION = "generate"
HOPELESS = 10
"""Videos in a row whose failures end a run: it is not the videos, then."""


class Streak:
    """Counts the failures since the last video."""

    def __init__(self) -> None:
        self._failed = 0

    def made(self) -> None:
        """A video was made."""
        self._failed = 0

    def failed(self, error: str) -> None:
        """One was not: the last of :data:`HOPELESS` in a row is a :class:`DvdqError`."""
        self._failed += 1
        if self._failed >= HOPELESS:
            raise DvdqError(OPERATION, expected="videos", got=f"{HOPELESS} failures in a row, the last: {error}")
