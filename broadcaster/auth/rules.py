"""The user of a token, the channels that the token allows, and who may decide for others.

A rule is expanded with the claims of a verified token, and the result is compared with the whole channel
name. There is no pattern matching, so a crafted name cannot match by accident.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import refusals
from legato.protocol.channels import CHANNEL_NAME
from legato.protocol.jobs import tenant_name
from legato.protocol.settings import SettingsError
from legato.protocol.stream import UserId, parse_user_id

from .errors import AuthError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z0-9_]+)\}")


def user_of(claims: Mapping[str, Any]) -> UserId:
    """Return the user id in the claims.

    :raises AuthError: ``sub`` is not a valid user id.
    """
    try:
        return parse_user_id(claims.get("sub"))
    except ValueError as error:
        raise AuthError(refusal=refusals.TOKEN_CLAIMS, detail="sub is no user id") from error


def tenant_of(claims: Mapping[str, Any], name: str) -> str:
    """Return the tenant in the claim ``name``; empty without the claim, or if the name is empty.

    :raises AuthError: the claim cannot be the name of a tenant.
    """
    try:
        return tenant_name(claims.get(name)) if name else ""
    except ValueError as error:
        text = f"The claim {name} of the token: {error}."
        raise AuthError(text, refusals.TOKEN_CLAIMS, f"{name} is no name of a tenant") from error


class ChannelRule:
    """A rule such as ``private-team.{team}.user.{sub}``. It allows only the name that it expands to.

    :raises SettingsError: the text cannot become a channel name.
    """

    def __init__(self, text: str) -> None:
        self._literals = _PLACEHOLDER.split(text)[::2]
        self._claims = _PLACEHOLDER.findall(text)
        if not text or any(literal and not CHANNEL_NAME.fullmatch(literal) for literal in self._literals):
            raise SettingsError(
                f"auth.channels: {text!r}: expected a channel name with {{claim}} placeholders"
            )
        if any(not literal for literal in self._literals[1:-1]):
            raise SettingsError(f"auth.channels: {text!r}: expected some text between two placeholders")

    def expand(self, claims: Mapping[str, Any]) -> str | None:
        """Return the allowed name; None if a claim is missing or is not valid in a channel name."""
        parts = [self._literals[0]]
        for position, claim in enumerate(self._claims, start=1):
            value = claims.get(claim)
            text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
            literal = self._literals[position]
            last = position == len(self._claims)
            if not isinstance(text, str) or not CHANNEL_NAME.fullmatch(text):
                return None
            # Else `a.b` + `c` and `a` + `b.c` would give the same name.
            if not last and literal in text:
                return None
            parts += [text, literal]
        return "".join(parts)


def allows(rules: Sequence[ChannelRule], claims: Mapping[str, Any], channel: str) -> bool:
    """Whether one of the rules allows exactly this channel."""
    return any(rule.expand(claims) == channel for rule in rules)


_CLAIM_RULE: Final = re.compile(r"([A-Za-z0-9_]+)=(\S(?:.{0,126}\S)?)")


class ClaimRule:
    """A rule such as ``role=manager``: the claim is this text or number, or a list that has it.

    :raises SettingsError: the text is not of this form.
    """

    def __init__(self, text: str, setting: str) -> None:
        match = _CLAIM_RULE.fullmatch(text)
        if match is None:
            raise SettingsError(f"{setting}: {text!r}: expected claim=value")
        self._claim, self._value = match.groups()

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claims satisfy the rule."""
        claim = claims.get(self._claim)
        values = claim if isinstance(claim, list) else [claim]
        return any(
            isinstance(value, str | int) and not isinstance(value, bool) and str(value) == self._value
            for value in values
        )
