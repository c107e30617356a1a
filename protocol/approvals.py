"""Decisions of people on tool calls that need an approval: the request, and what is stored of it."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from .jobs import decode_body

CALL_ID: Final = re.compile(r"[!-.0-~]{1,128}")
"""Ids of calls that can be decided: visible ASCII without ``/``. Use with ``fullmatch``."""

MAX_NOTE: Final = 1_000
"""Characters of a note."""

MAX_APPROVAL_BYTES: Final = 16_384
"""Bytes of a request: a note in JSON escapes has up to 12 bytes for a character."""


class Approval(msgspec.Struct, frozen=True):
    """Body of ``POST /api/chat/{id}/tools/{call}``. Unknown keys are ignored.

    :ivar note: a reason, for the model and for readers.
    """

    approve: bool
    note: Annotated[str, msgspec.Meta(max_length=MAX_NOTE)] = ""


_decoder: Final = msgspec.json.Decoder(Approval)


def decode_approval(body: bytes) -> Approval:
    """Parse a request. Escapes of lone surrogates become U+FFFD.

    :raises InvalidRequest: it is not JSON, or a field is missing, of the wrong type, or over its limit.
    """
    return decode_body(_decoder, body, MAX_APPROVAL_BYTES)


def stored(approval: Approval, at: int) -> tuple[bytes, bytes]:
    """The decision as it is stored under :func:`.wire.approvals_key`, in two parts to join.

    Equal decisions have the same first part.

    :param at: Unix time.
    """
    return msgspec.json.encode(approval)[:-1] + b",", b'"at":%d}' % at
