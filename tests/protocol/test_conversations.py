"""Titles are one bounded line, and events never carry more than they may."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import conversations
from legato.protocol.conversations import ConversationChanged, MessageCreated
from legato.protocol.jobs import InvalidRequest

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def data(frame: bytes) -> tuple[str, str, dict]:
    event = json.loads(frame)
    return event["event"], event["channel"], json.loads(event["data"])


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("", ""),
        (" \n\t\0", ""),
        ("Hello", "Hello"),
        ("What is\nthe  weather\tin Oslo?", "What is the weather in Oslo?"),
        ("\u202egnp.exe", "gnp.exe"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, ("word " * 12).strip() + "…"),
        ("x" * 59 + " y", "x" * 59 + "…"),
        ("\n" * 590 + "late words", "late words"),
        ("👩‍👩‍👧 family", "👩‍👩‍👧 family"),
    ],
)
def test_the_first_words_make_a_title(text, title):
    assert conversations.first_words(text) == title


@given(TEXTS)
def test_any_text_makes_a_title_in_one_line_or_none(text):
    title = conversations.first_words(text)
    assert len(title) <= conversations.MAX_FIRST_WORDS
    assert title == conversations.one_line(title)
    words = conversations.one_line(text).split()
    kept = title.removesuffix("…").split() if title not in words else [title]
    assert kept == words[: len(kept)] or words[0].startswith(kept[0])


def rename(title) -> bytes:
    return json.dumps({"title": title, "more": 1}).encode()


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (rename("Oslo"), "Oslo"),
        (rename("  Oslo \n in\0winter "), "Oslo in winter"),
        (rename("x" * 200), "x" * 200),
        (rename("\ud83d"), "\ufffd"),
    ],
)
def test_a_title_is_read_as_one_line(body, title):
    assert conversations.decode_title(body) == title


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "$"),
        (b"[]", "title"),
        (b"{}", "title"),
        (rename(1), "title"),
        (rename(""), "title"),
        (rename(" \n"), "title"),
        (rename("x" * 201), "title"),
        (rename("x").ljust(conversations.MAX_RENAME_BYTES + 1), "$"),
    ],
)
def test_a_bad_title_names_the_field(body, field):
    with pytest.raises(InvalidRequest) as caught:
        conversations.decode_title(body)
    assert caught.value.field == field


@given(st.binary(max_size=100))
def test_any_body_is_a_title_or_refused(body):
    with pytest.raises(InvalidRequest):
        conversations.decode_title(body)


def test_a_change_says_only_what_has_changed():
    changed = ConversationChanged("c1", "2026-01-02T03:04:05.678Z", "Oslo")
    assert data(changed.frame("private-ai-chat.7")) == (
        "conversation.changed",
        "private-ai-chat.7",
        {"conversationId": "c1", "updatedAt": "2026-01-02T03:04:05.678Z", "title": "Oslo"},
    )
    gone = ConversationChanged("c1", "2026-01-02T03:04:05.678Z", deleted=True)
    assert data(gone.frame("x"))[2] == {
        "conversationId": "c1",
        "updatedAt": "2026-01-02T03:04:05.678Z",
        "deleted": True,
    }


@pytest.mark.parametrize(
    ("parent", "message", "regenerate", "more"),
    [
        (None, "Hi", False, {"message": "Hi"}),
        ("", "Hi", False, {"parentId": "", "message": "Hi"}),
        ("m0", "", True, {"parentId": "m0", "regenerate": True}),
        (None, "é" * 8192, False, {"message": "é" * 8192}),
        (None, "é" * 8192 + "x", False, {"truncated": True}),
    ],
)
def test_a_message_is_told_as_far_as_it_is_short(parent, message, regenerate, more):
    made = MessageCreated.of("c1", "m1", parent, message, regenerate=regenerate)
    assert data(made.frame("private-ai-chat.7")) == (
        "message.created",
        "private-ai-chat.7",
        {"conversationId": "c1", "messageId": "m1", **more},
    )
