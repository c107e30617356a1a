"""Settings of the doors, and their names."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec

from legato.protocol.apps import Count, Positive  # noqa: TC001 - msgspec reads the annotations

Door = Literal["events", "updates", "text", "ui", "streams", "ag-ui", "openai"]

DOORS: Final[tuple[str, ...]] = get_args(Door)

STARTING: Final = ("text", "ui", "ag-ui", "openai")
"""Doors whose request starts a reply, and whose disconnect may therefore cancel it."""


class DoorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[doors]``: how the doors that ``chat.doors`` names behave."""

    cancel_on_disconnect: tuple[str, ...] = ("text", "ag-ui", "openai")
    disconnect_grace: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10
    max_readers: Count = 10_000
    max_readers_per_user: Count = 20
    token_seconds: Positive = 300
    ui_reset_step: bool = False

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        for name in self.cancel_on_disconnect:
            if name not in STARTING:
                raise ValueError(f"cancel_on_disconnect: {name!r}: expected some of {', '.join(STARTING)}")
