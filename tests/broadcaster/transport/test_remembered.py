"""Caches of repeated input: bounded, and without the secrets of clients."""

from __future__ import annotations

import gc

import pytest

from legato.broadcaster.transport.memo import recognised, remembered
from tests.broadcaster.transport.fed import door
from tests.broadcaster.transport.test_http import event, post
from tests.broadcaster.transport.test_plain import FIREFOX


@pytest.mark.parametrize("kind", [remembered, recognised])
def test_a_result_is_cached_within_the_bounds(kind):
    asked = []

    def work(data: bytes) -> None:
        asked.append(data)

    known = kind(2, 3, work)
    for data in (b"a", b"a", b"b", b"b", b"a", b"long", b"long"):
        assert known(data) is None
    assert asked == [b"a", b"b", b"long", b"long"]
    known(b"c")
    known(b"c")
    for data in (b"a", b"b"):  # one of them had to go
        known(data)
    assert asked[4] == b"c"
    assert len(asked) in (6, 7)


def test_a_failure_is_not_cached():
    def work(data: bytes) -> int:
        return int(data)

    known = recognised(2, 3, work)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            known(b"x")
    assert known(b"1") == 1


async def test_no_cache_holds_the_secrets_of_a_request():
    """After the request was answered and its connection closed."""
    secrets = [b"c00kie-" + b"s3cret", b"b3arer-" + b"s3cret"]
    fields = b"Cookie: a=%b\r\nAuthorization: Bearer %b" % (*secrets,)
    async with door() as opened:
        for data in (FIREFOX[:-2] + fields + b"\r\n\r\n", post(event("a"), fields.decode())):
            for cut in (0, 20):  # read at once, and by the parser
                one = opened.come()
                for piece in (data[:cut], data[cut:]):
                    if piece:
                        one.read(piece)
                await opened.calm()
                assert one.written.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 "))
                one.protocol.connection_lost(None)
                del one, piece
        del data, fields
        gc.collect()
        held = [kept for kept in _all_bytes() if kept not in secrets and any(one in kept for one in secrets)]
        assert held == []


def test_what_a_module_keeps_would_be_seen():
    KEPT[0] = b"kept-" + b"s3cret"
    assert KEPT[0] in _all_bytes()


KEPT: dict[int, bytes] = {}
"""As old as the caches of the modules that are tested."""


def _all_bytes() -> list[bytes]:
    """All bytes that an object known to the garbage collector references, directly or in a tuple."""
    gc.unfreeze()  # tests/conftest.py freezes what is imported, the caches of modules among it
    held = [one for there in gc.get_objects() for one in gc.get_referents(there)]
    gc.freeze()
    held += [inner for one in held if type(one) is tuple for inner in one]
    return [one for one in held if isinstance(one, bytes)]
