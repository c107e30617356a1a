"""Who is told by webhooks: what is signed rightly, and each event once however often it comes."""

from __future__ import annotations

import hashlib
import hmac
import json

import httpx2
import pytest

from legato.benchmarks.chaos.receiver import WebhookReceiver

KEY, SECRET = "key", "secret"
OCCUPIED = {"name": "channel_occupied", "channel": "a"}
ADDED = {"name": "member_added", "channel": "presence-a", "user_id": "7"}


@pytest.fixture
async def receiver():
    made = WebhookReceiver(KEY, SECRET)
    await made.start()
    yield made
    await made.close()


async def post(receiver, *events, node=1, time_ms=5, key=KEY, secret=SECRET):
    body = json.dumps({"time_ms": time_ms, "events": events}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Pusher-Key": key, "X-Pusher-Signature": signature}
    async with httpx2.AsyncClient(trust_env=False, timeout=40) as client:
        answer = await client.post(f"http://127.0.0.1:{receiver.port}/{node}", content=body, headers=headers)
    assert answer.status_code == httpx2.codes.OK


def told(receiver):
    return [(one.node, one.event, one.channel, one.user) for one in receiver.told]


async def test_events_are_kept_in_order_with_who_told_them(receiver):
    await post(receiver, OCCUPIED, ADDED)
    await post(receiver, OCCUPIED, node=2)
    first = [(1, "channel_occupied", "a", ""), (1, "member_added", "presence-a", "7")]
    assert told(receiver) == [*first, (2, "channel_occupied", "a", "")]
    assert (receiver.refused, receiver.again) == (0, 0)


async def test_a_request_that_comes_again_is_known_also_in_parts_and_another_is_not(receiver):
    await post(receiver, OCCUPIED, ADDED)
    await post(receiver, OCCUPIED, ADDED)
    await post(receiver, ADDED)
    assert (len(receiver.told), receiver.again) == (2, 3)
    await post(receiver, OCCUPIED, time_ms=6)
    assert (len(receiver.told), receiver.again) == (3, 3)


async def test_what_is_not_signed_with_the_secret_is_refused(receiver):
    await post(receiver, OCCUPIED, secret="another")
    await post(receiver, OCCUPIED, key="another")
    assert (receiver.told, receiver.refused) == ([], 2)


async def test_what_was_told_is_saved_line_by_line(receiver, tmp_path):
    await post(receiver, OCCUPIED, ADDED)
    receiver.save(tmp_path / "told")
    lines = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [(line["node"], line["event"], line["user"]) for line in lines] == [
        (1, "channel_occupied", ""),
        (1, "member_added", "7"),
    ]
