"""Reading tokens open one reply for a while, and nothing else."""

from __future__ import annotations

import pytest

from legato.protocol.reading_tokens import ReadingToken, _signature, unseal

TOKEN = ReadingToken(7, "m-1", 1000)


@pytest.mark.parametrize("user", [7, "ann@example.com"])
def test_a_token_is_read_as_it_was_made(user):
    token = ReadingToken(user, "m-1", 1000)
    sealed = token.seal("secret")
    assert sealed.replace(".", "").isalnum()
    assert unseal("secret", sealed, "m-1", 999.9) == token


@pytest.mark.parametrize(
    ("secret", "message_id", "now"), [("other", "m-1", 0), ("secret", "m-2", 0), ("secret", "m-1", 1000)]
)
def test_another_secret_message_or_time_is_refused(secret, message_id, now):
    assert unseal(secret, TOKEN.seal("secret"), message_id, now) is None


def test_a_changed_token_is_refused():
    body, _, signature = TOKEN.seal("secret").partition(".")
    forged = ReadingToken(8, "m-1", 1000).seal("guess").partition(".")[0]
    for text in (f"{forged}.{signature}", body, f"{body}.", f"{body}.é\ud800", ""):
        assert unseal("secret", text, "m-1", 0) is None


@pytest.mark.parametrize("body", ["a", b"{}".hex(), b"[7]".hex()])
def test_what_is_signed_but_no_token_is_refused(body):
    assert unseal("secret", f"{body}.{_signature('secret', body)}", "m-1", 0) is None
