"""The suite can fail: a server that is wrong in one way fails the case that is about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmarks.conformance.support import CASES, run

FAULTS = {
    "adds a member again": "5.3 subscribing again changes nothing",
    "adds a member for each connection": "5.3 added with the first connection, removed with the last: presence-…",  # noqa: E501 - a name
    "adds keys to deliveries": "4.7 a delivery is event, channel and data, and nothing else",
    "anchors nothing": "4.1 xprivate-cache-…: anybody may subscribe",
    "announces no activity timeout": "1.5 activity_timeout is an integer of at least 1",
    "answers 202": "10.3 the answer is exactly {}",
    "answers 400 to too much data": "10.3 data: 10 240 bytes are allowed, one more is 413",
    "answers a batch with an object": "10.4 a batch with info: an entry for each event, in order",
    "answers unsubscribe": "4.6 unsubscribe is not answered, and nothing is delivered after it",
    "answers with more than {}": "10.3 the answer is exactly {}",
    "answers with text/html": "10.2 answers are JSON objects with the content type application/json",
    "caches client events": "6 client events are never cached",
    "caches everything": "8.1 a name without a prefix…: neither replay nor cache_miss",
    "closes on a bad sign-in": "7.1 a bad signature is refused with 4009: wrong",
    "closes on nonsense": "2 not JSON: pusher:error with code null, the connection is kept",
    "closes on too many": "6 10 client events a second; more are refused with 4301, the connection is kept",
    "closes refused subscribers": "4.5 a bad signature: pusher:subscription_error, AuthError, 401",
    "closes silent clients": "3.2 a silent client is pinged, and kept if it answers",
    "closes with another code": "1.5 an unknown key is refused with",
    "closes without an error": "1.5 an unknown key is refused with",
    "compares the start of a signature": "4.3 refused: a signature that is truncated",
    "complains about unknown channels": "4.6 unsubscribing from a channel without a",
    "complains in a string": "2 data of pusher:error is an object, as pysher and .NET need it",
    "counts connections for users": "10.5 user_count of presence channels: distinct users",
    "counts in text": "10.6 user_count and subscription_count of a presence channel",
    "counts late": "8.2 all subscribers get the count when one comes and when one goes",
    "counts presence channels": "8.2 presence channels have no counts",
    "counts socket ids": "1.5 socket_id is new on every connection, and not counted",
    "counts users of any channel": "10.6 user_count of a channel that is not a presence channel: 400",
    "cuts refused sockets": "1.5 a refusal is a close frame with a reason of at most 123 bytes",
    "delivers to doubles": "10.3 a channel that is named twice gets the event once",
    "delivers to everybody": "4.7 an event goes to all subscribers of its channel, and to nobody else",
    "delivers to users twice": "7.2 an event to a user reaches",
    "delivers twice after a second subscribe": "4.5 a repeated subscribe is answered, and",
    "does not hold back": "11.4 a return within the hold-back: neither channel_vacated nor channel_occupied",
    "drops body_md5 of a GET": "10.1 body_md5 of a GET is signed as it was sent",
    "echoes client events": "6 relayed to all other subscribers, never to the sender",
    "encodes data anew": "4.7 data arrives as it was published: white space",
    "encodes user_data anew": "7.1 signin_success has user_data as it was sent: white",
    "errors without a channel": "6 refused on a public channel: …",
    "filters anywhere": "10.5 the filter is a prefix, not a pattern",
    "finds a bad version before the key": "1.5 an unknown key is reported before a bad version",
    "forgets CORS": "12 a preflight is answered",
    "forgets first user_info": "5.3 user_info of a second connection",
    "forgets the open frame": "12 the first poll opens the session: an open",
    "forgets user_id": "6 on a presence channel user_id is the sender's, even if the message has another",
    "forgets who is cut off": "5.3 member_removed when a member loses the connection",
    "gives errors a code": "2 an unknown event: pusher:error",
    "greets with an object": "1.5 data of connection_established is a JSON string",
    "has no rate limit": "6 10 client events a second; more are refused with 4301, the connection is kept",
    "hooks with a number for user_id": "11.2 user_id is a string, even if it was a number",
    "hooks with an object for data": "11.2 client_event: data is a string",
    "ignores socket_id": "10.3 socket_id is excluded on all channels",
    "ignores unsubscribe": "4.6 unsubscribe is not answered, and nothing is delivered after it",
    "keeps refused sockets open": "1.5 after a refusal, the socket's messages have no effect",
    "keeps vacated channels": "10.5 a channel is no longer listed when its last subscriber has left",
    "knows paths only as sent": "10.1 a path that is signed before it is escaped",
    "leaves the subscriber out of the roster": "5.2 the first member is in its own roster",
    "lets user_id be forged": "6 other keys of the message are dropped, user_id in particular",
    "lets users change": "7.1 signing in as another user is",
    "lists ids as they are": "10.7 users: each once, ids as strings",
    "lists nothing as a list": "10.5 no channels: an object",
    "loses messages between polls": "12 polls: what is sent between two of them is not lost",
    "measures characters": "10.3 data is measured in bytes of UTF-8, not in characters",
    "names a charset": "11.1 the content type is application/json, without a charset",
    "names the app by its id": "11.1 the key and a signature over the body's bytes",
    "never closes the dead": "3.2 a client that answers nothing is closed with 4201",
    "never pings": "3.2 a silent client is pinged, and kept if it answers",
    "never repeats a hook": "11.3 an answer other than 2xx: the same webhook again, with the same time_ms",
    "never replays": "8.1 cache-…: the last event is replayed after subscription_succeeded",
    "never says cache_miss": "8.1 cache-…: cache_miss when nothing is cached",
    "never says offline": "7.4 a watched user is online with the first socket, offline after the last",
    "refuses silently": "4.5 a bad signature: pusher:subscription_error, AuthError, 401",
    "refuses with a code that is text": "1.5 an unknown key is refused with",
    "refuses with a string": "1.5 a refusal's error has an object as data, as pysher and .NET need it",
    "refuses with text": "4.5 a bad signature: pusher:subscription_error, AuthError, 401",
    "refuses without an upgrade": "1.5 an unknown key is refused with",
    "relays any size": "6 data: 10 240 bytes are allowed, more are not",
    "relays for outsiders": "6 refused from a client that has not subscribed",
    "relays on public channels": "6 refused on a public channel: …",
    "removes a member with each connection": "5.3 added with the first connection, removed with the last: presence-…",  # noqa: E501 - a name
    "replays before subscription_succeeded": "8.1 cache-…: the last event is replayed",
    "says something before the greeting": "1.5 connection_established comes first, even if the",
    "selects any sub-protocol": "1.3 an unknown subprotocol is not selected, and the connection is accepted",
    "selects no sub-protocol": "1.3 the subprotocol that the Swift client offers is selected",
    "sends a batch one by one": "10.4 a batch with an event without a name: 400, and nothing is sent",
    "sends empty watchlists": "7.4 watchlist events without users are left out",
    "sends names of the protocol": "10.3 a name reserved for the protocol: pusher:: 400",
    "signs anybody in": "7.1 a bad signature is refused with 4009: by another secret",
    "signs channel_data encoded anew": "4.3 channel_data is signed as it was received, not encoded anew",
    "signs channel_data for presence only": "4.3 channel_data of a private channel is",
    "signs other bytes than it sends": "11.1 the key and a signature over the body's bytes",
    "splits queries at ;": "10.1 a query unescaped, as from the Node, Python and Go SDKs",
    "stamps hooks anew": "11.3 an answer other than 2xx: the same webhook again, with the same time_ms",
    "stamps hooks with fractions": "11.1 time_ms is an integer",
    "succeeds with an object": '4.4 data of subscription_succeeded is the string "{}"',
    "takes any API request": "10.1 signed with another secret: 401",
    "takes any body": "10.1 a body that was changed after signing: 401",
    "takes any key in auth": "4.3 refused: a signature with another key",
    "takes any name": "4.1 refused: a name with a space",
    "takes any origin": "1.4 an origin that is not allowed is refused with 4009",
    "takes any signature": "4.3 refused: a signature by another secret",
    "takes any socket_id": "10.3 socket_id of one number: 400",
    "takes any timestamp": "10.1 a timestamp an hour ago: 401",
    "takes any user_info": "5.1 user_info: 1024 bytes of JSON are allowed, more are not",
    "takes any version": "1.2 protocol 8: refused with 4007",
    "takes binary frames": "1.4 a binary frame is ignored, or closed with 1003",
    "takes data only as an object": "2 data of a pusher:* message may be a JSON string",
    "tells everybody about channels": "10.1 without a signature, an answer tells",
    "tells members of themselves": "5.3 member_added goes to the others, not to the member itself",
    "tells the secret": "4.5 a bad signature: pusher:subscription_error, AuthError, 401",
    "terminates nobody": "10.8 terminate_connections closes a user's sockets: the error, then 4009",
    "turns client data into text": "6 relayed unchanged: an object",
    "turns ids into text": "5.1 an integer id stays an integer",
    "writes socket ids with a dash": "1.5 socket_id is two numbers with a dot",
}
"""What the server does wrong -> the case that has to fail, or how its name begins."""


def named(start: str) -> str:
    """The one case of that name or beginning."""
    (found,) = {start} & CASES.keys() or {name for name in CASES if name.startswith(start)}
    return found


async def test_a_right_server_passes_every_case():
    results = await run(CASES, seconds=30)
    assert {result.id: result.reason for result in results if result.verdict != "pass"} == {}
    assert len(results) == len(CASES) > 400


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_fails_its_case(fault):
    (result,) = await run([named(FAULTS[fault])], fault)
    assert result.verdict == "fail", result
    assert result.reason


def test_every_fault_that_the_server_knows_is_tried():
    directory = Path(__file__).parent
    known = {
        fault
        for name in ("world.py", "api.py", "broken.py")
        for fault in re.findall(r'\bbad\(\s*"([^"]+)"\s*\)', (directory / name).read_text())
    }
    assert known == FAULTS.keys()
