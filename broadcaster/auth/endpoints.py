"""Authorisation endpoints for applications that have none of their own (protocol section 14).

A request brings a bearer token and gets a signature. The token alone decides what the client may have.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from legato.broadcaster.api.refusals import ChannelRefusal, ChatRefusal
from legato.broadcaster.limits import AUTH_REQUEST_MAX_BYTES
from legato.protocol import presence, signatures, users
from legato.protocol.channels import SOCKET_ID, Channel, ChannelError
from legato.protocol.jobs import InvalidRequest
from legato.protocol.settings import SettingsError

from .forms import read_form
from .rules import ChannelRule, allows, user_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from legato.broadcaster.apps.directory import Directory
    from legato.broadcaster.config import Auth, Settings
    from legato.protocol.apps import App

    from .verifier import Verifier

MASTER_KEY_BYTES: Final = 32


class Signer:
    """What both endpoints share: verifies the token, reads the form, and holds the application's key.

    :raises SettingsError: ``auth.app`` is not the id of an application.
    """

    def __init__(self, settings: Settings, apps: Directory, tokens: Verifier) -> None:
        self._apps = apps
        self._tokens = tokens
        self._user_info = settings.auth.user_info
        self._app_id = settings.app(settings.auth.app).id

    async def read(self, request: Request) -> tuple[Mapping[str, Any], Mapping[str, str], str]:
        """The verified claims, the form, and its ``socket_id``.

        :raises AuthError: no valid token.
        :raises InvalidRequest: the body is not a form (:mod:`.forms`), or has no valid socket id.
        """
        claims = await self._tokens.verify(request.headers.get("authorization", ""))
        form = await read_form(request, AUTH_REQUEST_MAX_BYTES)
        socket_id = form.get("socket_id", "")
        if not SOCKET_ID.fullmatch(socket_id):
            raise InvalidRequest("socket_id", "Expected two numbers with a dot between them")
        return claims, form, socket_id

    def user_info(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """``{"user_info": {...}}`` with the claims of ``auth.user_info``; empty without any."""
        info = {name: claims[name] for name in self._user_info if name in claims}
        return {"user_info": info} if info else {}

    @property
    def app(self) -> App:
        """The current state of the application.

        :raises ChatRefusal: 503, the application was removed.
        """
        app = self._apps.by_id.get(self._app_id)
        if app is None:
            raise ChatRefusal(503, "The application is gone.")
        return app


class ChannelAuth:
    """``POST /broadcasting/auth`` (section 14.1): signs a channel that a rule of ``auth.channels`` allows.

    Answers ``auth``; for a presence channel also ``channel_data``, for an encrypted one ``shared_secret``.

    :raises SettingsError: ``auth.channels`` or ``auth.encryption_master_key`` cannot be used.
    """

    def __init__(self, signer: Signer, auth: Auth) -> None:
        self._signer = signer
        self._rules = [ChannelRule(text) for text in auth.channels]
        self._master_key = _master_key(auth.encryption_master_key)

    async def __call__(self, request: Request) -> Response:
        """Handle a request with the form fields ``socket_id`` and ``channel_name``."""
        claims, form, socket_id = await self._signer.read(request)
        channel = self._channel(claims, form.get("channel_name", ""))
        answer: dict[str, str] = {}
        if channel.presence:
            answer["channel_data"] = self._channel_data(claims)
        if channel.encrypted:
            secret = hashlib.sha256(channel.name.encode() + self._master_key).digest()
            answer["shared_secret"] = base64.b64encode(secret).decode()
        app = self._signer.app
        signature = signatures.sign_channel(
            app.key, app.secret, socket_id, channel.name, answer.get("channel_data")
        )
        return JSONResponse({"auth": signature} | answer)

    def _channel(self, claims: Mapping[str, Any], name: str) -> Channel:
        if not allows(self._rules, claims, name):
            raise ChannelRefusal("Forbidden.", name)
        try:
            channel = Channel.parse(name, self._signer.app.max_channel_name_length)
        except ChannelError as error:  # a long claim can exceed the limit
            raise ChannelRefusal("Forbidden.", name) from error
        if channel.encrypted and not self._master_key:
            raise ChatRefusal(403, "Encrypted channels need auth.encryption_master_key.")
        return channel

    def _channel_data(self, claims: Mapping[str, Any]) -> str:
        data = json.dumps({"user_id": user_of(claims)} | self._signer.user_info(claims))
        try:
            presence.parse_member(data, self._signer.app.max_user_info_bytes)
        except ChannelError as error:
            raise ChatRefusal(403, str(error)) from error
        return data


class UserAuth:
    """``POST /broadcasting/user-auth`` (section 14.2): answers ``auth`` and ``user_data``."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def __call__(self, request: Request) -> Response:
        """Handle a request with the form field ``socket_id``."""
        claims, _, socket_id = await self._signer.read(request)
        user_data = json.dumps({"id": str(user_of(claims))} | self._signer.user_info(claims))
        try:
            users.parse_user(user_data, self._signer.app.max_user_info_bytes)
        except users.UserError as error:
            raise ChatRefusal(403, str(error)) from error
        app = self._signer.app
        signature = signatures.sign(app.secret, signatures.user_text(socket_id, user_data))
        return JSONResponse({"auth": f"{app.key}:{signature}", "user_data": user_data})


def _master_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix("base64:"), validate=True)
    except binascii.Error:
        key = b"?"
    if key and len(key) != MASTER_KEY_BYTES:
        raise SettingsError(
            "auth.encryption_master_key (LEGATO_AUTH_ENCRYPTION_MASTER_KEY):"
            f" expected {MASTER_KEY_BYTES} bytes in base64"
        )
    return key
