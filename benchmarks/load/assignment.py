"""What one client has to do, and the messages for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from legato.protocol import signatures

if TYPE_CHECKING:
    from .orders import Join, LoadTarget


class Assignment(NamedTuple):
    """Client ``number`` of an order.

    :ivar due: its scheduled time in microseconds, from which delays are measured.
    """

    target: LoadTarget
    join: Join
    number: int
    due: int

    @property
    def upgrade_request(self) -> bytes:
        """The HTTP request for a WebSocket."""
        target = self.target
        return (
            f"GET {target.path}/app/{target.key}?protocol=7&client=legato-bench&version=1 HTTP/1.1\r\n"
            f"Host: {target.host}:{target.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

    def subscription(self, socket_id: str) -> dict[str, Any]:
        """The data of ``pusher:subscribe``."""
        target, number = self.target, str(self.number)
        channel = self.join.channel.replace("{}", number)
        channel_data = self.join.data.replace("{}", number)
        data = {"channel": channel} | ({"channel_data": channel_data} if channel_data else {})
        if channel.startswith(("private-", "presence-")):
            data["auth"] = signatures.sign_channel(
                target.key, target.secret, socket_id, channel, channel_data or None
            )
        return data
