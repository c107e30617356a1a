"""A FastAPI back end of the article's chat: signs tokens, authorises channels, and submits jobs to Redis.

It talks to Legato through Redis alone. Replies stream to the browser over Legato's WebSocket.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
import uuid
from pathlib import Path
from typing import Annotated, Literal

import jwt
from fastapi import Cookie, Depends, FastAPI, Form, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, BeforeValidator, Field
from redis.asyncio import Redis

APP_ID = os.environ.get("REVERB_APP_ID", "1")
APP_KEY = os.environ.get("REVERB_APP_KEY", "app-key")
APP_SECRET = os.environ.get("REVERB_APP_SECRET", "app-secret")
JWT_SECRET = os.environ["LEGATO_AUTH_JWT_SECRET"]
SESSION_SECRET = os.environ.get("SESSION_SECRET") or secrets.token_hex(32)
PAGE = Path(os.environ.get("CHAT_PAGE", "../article/dist"))

JOBS = "legato:jobs:{ai-streaming}"
"""The job stream of Legato's worker."""

SESSION_SECONDS = 8 * 3600
TOKEN_SECONDS = 3600
OWNER_SECONDS = 24 * 3600
CANCEL_SECONDS = 300

app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"])


# Who asks: put your own users here.


def signed(user: int, secret: str, seconds: int) -> str:
    """A JSON Web Token that says who the user is."""
    return jwt.encode({"sub": str(user), "exp": int(time.time()) + seconds}, secret, algorithm="HS256")


def current_user(session: Annotated[str | None, Cookie()] = None) -> int:
    """The signed-in user's id.

    :raises HTTPException: 401, nobody is signed in.
    """
    try:
        claims = jwt.decode(session or "", SESSION_SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    return int(claims["sub"])


User = Annotated[int, Depends(current_user)]


@app.get("/login/{user}")
def login(user: int) -> Response:
    """For development only: anybody is signed in as anybody. Your application asks for a password."""
    response = RedirectResponse("/")
    # Strict: no other site's page can send it, so there is no need of a CSRF token.
    session = signed(user, SESSION_SECRET, SESSION_SECONDS)
    response.set_cookie("session", session, httponly=True, samesite="strict")
    return response


# What the browser asks for.


@app.get("/")
def page(user: User) -> HTMLResponse:
    """The page of ../article, for this user."""
    html = (PAGE / "index.html").read_text()
    return HTMLResponse(html.replace("{{ user_id }}", str(user)).replace("{{ csrf_token }}", ""))


@app.get("/chat-token")
def chat_token(user: User) -> PlainTextResponse:
    """The token with which `legato-client` calls Legato's own HTTP API."""
    return PlainTextResponse(signed(user, JWT_SECRET, TOKEN_SECONDS))


@app.post("/broadcasting/auth")
def authorize(
    user: User, socket_id: Annotated[str, Form()], channel_name: Annotated[str, Form()]
) -> dict[str, str]:
    """Let a user listen on the own channel, as Pusher's protocol has it."""
    if channel_name != f"private-ai-chat.{user}":
        raise HTTPException(403)
    text = f"{socket_id}:{channel_name}"
    return {"auth": f"{APP_KEY}:{hmac.new(APP_SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"}


def well_formed(text: object) -> object:
    """Replace halves of characters, which JSON may hold and pydantic does not take."""
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text
    )


Text = Annotated[str, BeforeValidator(well_formed)]


class Turn(BaseModel):
    """An earlier turn."""

    role: Literal["user", "assistant"]
    content: Text = Field(min_length=1, max_length=100_000)


class Message(BaseModel):
    """What a user sends."""

    message: Text = Field(min_length=1, max_length=2000)
    history: list[Turn] = Field(default=[], max_length=40)


@app.post("/api/chat/send")
async def send(user: User, body: Message) -> dict[str, str]:
    """Submit a job. The reply streams to the user's channel; nothing waits for it here."""
    message_id = str(uuid.uuid4())
    job = {
        "message_id": message_id,
        "app_id": APP_ID,
        "user_id": user,
        "queued_at": int(time.time() * 1000),
        **body.model_dump(),
    }
    await redis.set(f"chat-owner:{message_id}", user, ex=OWNER_SECONDS)
    await redis.xadd(JOBS, {"job": json.dumps(job)})
    return {"message_id": message_id}


@app.post("/api/chat/{message_id}/cancel")
async def cancel(user: User, message_id: uuid.UUID) -> dict[str, bool]:
    """Stop a reply of the user."""
    if await redis.get(f"chat-owner:{message_id}") != str(user).encode():
        raise HTTPException(404)
    await redis.set(f"stream_cancel:{message_id}", 1, ex=CANCEL_SECONDS)
    return {"cancelled": True}


app.mount("/build", StaticFiles(directory=PAGE))
