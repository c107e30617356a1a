"""Which options of a job a browser may set, and to what: ``chat.allow`` and the settings beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from legato.broadcaster.auth.rules import ChannelRule, allows, tenant_of
from legato.protocol.jobs import OPTIONS, ChatRequest, InvalidRequest, options_of
from legato.protocol.origins import Origins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.broadcaster.config import Settings

_LISTS: Final = {"agent": "chat.agents", "model": "chat.models"}


class OptionRules:
    """The options that ``POST /api/chat/send`` takes from a browser: by default none.

    :ivar names: by option, the values that it may have; empty for any.

    :raises SettingsError: ``auth.channels`` cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        chat = settings.chat
        self._allowed = frozenset(chat.allow)
        self.names = {"agent": chat.agents, "model": chat.models}
        self._system_characters = chat.max_message_characters
        self._attachments = chat.max_attachments
        self._attachment_bytes = chat.max_attachment_bytes
        self._hosts = Origins(chat.attachment_hosts)
        self._tenant_claim = chat.tenant_claim
        self._channels = [ChannelRule(text) for text in settings.auth.channels]

    @property
    def allowed(self) -> frozenset[str]:
        """Names of the options that a browser may set."""
        return self._allowed

    def explain(self, error: InvalidRequest) -> InvalidRequest:
        """The error to answer: an option that is not allowed is refused as that, also if it is malformed."""
        name = error.field.partition(".")[0]
        return self._forbidden(name) if name in OPTIONS and name not in self._allowed else error

    def check(self, request: ChatRequest) -> None:
        """Check the options of a request, but for its channel.

        :raises InvalidRequest: one is not allowed, or beyond its limit.
        """
        for name, value in options_of(request).items():
            if name not in self._allowed:
                raise self._forbidden(name)
            if (values := self.names.get(name)) and value not in values:
                raise InvalidRequest(name, f"Expected one that the setting {_LISTS[name]} lists")
        self._check_system(request)
        self._check_attachments(request)

    def allows_channel(self, request: ChatRequest, claims: Mapping[str, Any]) -> bool:
        """Whether the reply may go where the request says: only where these claims may subscribe."""
        channel = request.reply_channel
        return channel is None or allows(self._channels, claims, channel)

    def tenant(self, claims: Mapping[str, Any]) -> str:
        """The tenant of a job, which a browser cannot choose: its token says it.

        :raises AuthError: the claim cannot be the name of a tenant.
        """
        return tenant_of(claims, self._tenant_claim)

    def _forbidden(self, name: str) -> InvalidRequest:
        return InvalidRequest(name, f"Expected no {name}: the setting chat.allow does not list it")

    def _check_system(self, request: ChatRequest) -> None:
        length, most = len(request.system or ""), self._system_characters
        if length > most:
            raise InvalidRequest("system", f"Expected at most {most} characters, not {length}")

    def _check_attachments(self, request: ChatRequest) -> None:
        count, most = len(request.attachments), self._attachment_bytes
        if count > self._attachments:
            raise InvalidRequest("attachments", f"Expected at most {self._attachments}, not {count}")
        for index, file in enumerate(request.attachments):
            if file.size > most:
                raise InvalidRequest(
                    f"attachments.{index}.data", f"Expected at most {most} bytes, not {file.size}"
                )
            if file.url is not None and not self._hosts.allow(file.origin):
                raise InvalidRequest(
                    f"attachments.{index}.url", "Expected a host that the setting chat.attachment_hosts lists"
                )
