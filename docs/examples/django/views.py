"""The views of a chat whose replies Legato streams: copy them, and `urlpatterns`, into your project.

They talk to Legato through Redis alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from functools import wraps
from typing import TYPE_CHECKING, Any

import jwt
from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_GET, require_POST
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS = "legato:jobs:{ai-streaming}"
"""The job stream of Legato's worker."""

TOKEN_SECONDS = 3600
OWNER_SECONDS = 24 * 3600
CANCEL_SECONDS = 300
MAX_TURNS = 40

redis = Redis.from_url(settings.REDIS_URL)


def signed_in(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Answer 401 unless a user is signed in: `login_required` redirects, which scripts cannot use."""

    @wraps(view)
    def checked(request: HttpRequest, **captured: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return HttpResponse(status=401)
        return view(request, **captured)

    return checked


@require_GET
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """The page of ../article, for this user."""
    return render(request, "index.html", {"user_id": request.user.pk})


@require_GET
@signed_in
def chat_token(request: HttpRequest) -> HttpResponse:
    """The token with which `legato-client` calls Legato's own HTTP API."""
    claims = {"sub": str(request.user.pk), "exp": int(time.time()) + TOKEN_SECONDS}
    token = jwt.encode(claims, settings.LEGATO_JWT_SECRET, algorithm="HS256")
    return HttpResponse(token, content_type="text/plain")


@require_POST
@signed_in
def authorize(request: HttpRequest) -> HttpResponse:
    """Let a user listen on the own channel, as Pusher's protocol has it."""
    socket_id, channel = request.POST.get("socket_id", ""), request.POST.get("channel_name", "")
    if channel != f"private-ai-chat.{request.user.pk}":
        return HttpResponse(status=403)
    text = f"{socket_id}:{channel}"
    digest = hmac.new(settings.REVERB_APP_SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    return JsonResponse({"auth": f"{settings.REVERB_APP_KEY}:{digest}"})


class TurnForm(forms.Form):
    """An earlier turn."""

    role = forms.ChoiceField(choices=[("user", "user"), ("assistant", "assistant")])
    content = forms.CharField(max_length=100_000, strip=False)


class MessageForm(forms.Form):
    """What a user sends, without the history."""

    message = forms.CharField(max_length=2000, strip=False)


def checked_body(request: HttpRequest) -> dict[str, Any] | None:
    """The message and its history; None if they are not as they should be."""
    try:
        body = json.loads(request.body)
        turns = [TurnForm(turn) for turn in body.get("history", [])]
        form = MessageForm(body)
        if len(turns) > MAX_TURNS or not all(each.is_valid() for each in (form, *turns)):
            return None
    except (ValueError, AttributeError, TypeError):
        return None
    return {**form.cleaned_data, "history": [turn.cleaned_data for turn in turns]}


@require_POST
@signed_in
def send(request: HttpRequest) -> HttpResponse:
    """Submit a job. The reply streams to the user's channel; nothing waits for it here."""
    body = checked_body(request)
    if body is None:
        return JsonResponse({"message": "The message is empty, too long, or not JSON."}, status=422)
    message_id = str(uuid.uuid4())
    job = {
        "message_id": message_id,
        "app_id": settings.REVERB_APP_ID,
        "user_id": request.user.pk,
        "queued_at": int(time.time() * 1000),
        **body,
    }
    redis.set(f"chat-owner:{message_id}", request.user.pk, ex=OWNER_SECONDS)
    redis.xadd(JOBS, {"job": json.dumps(job)})
    return JsonResponse({"message_id": message_id})


@require_POST
@signed_in
def cancel(request: HttpRequest, message_id: uuid.UUID) -> HttpResponse:
    """Stop a reply of the user."""
    if redis.get(f"chat-owner:{message_id}") != str(request.user.pk).encode():
        return HttpResponse(status=404)
    redis.set(f"stream_cancel:{message_id}", 1, ex=CANCEL_SECONDS)
    return JsonResponse({"cancelled": True})


urlpatterns = [
    path("", page),
    path("chat-token", chat_token),
    path("broadcasting/auth", authorize),
    path("api/chat/send", send),
    path("api/chat/<uuid:message_id>/cancel", cancel),
]
