import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import presence
from legato.protocol.channels import ChannelError
from legato.protocol.presence import Member
from legato.protocol.users import UserError, parse_user, user_channel, watch_channel, watchlist_events

ANN, BOB, SEVEN = Member("ann", b'{"name":"Ann"}'), Member("bob"), Member(7, b"null")


def test_the_roster_keeps_the_type_of_ids_and_has_text_as_keys():
    assert json.loads(presence.roster_data((ANN, BOB, SEVEN))) == {
        "presence": {
            "ids": ["ann", "bob", 7],
            "hash": {"ann": {"name": "Ann"}, "bob": None, "7": None},
            "count": 3,
        }
    }
    assert json.loads(presence.roster_data(()))["presence"] == {"ids": [], "hash": {}, "count": 0}


def test_announcements():
    added = json.loads(presence.member_added("presence-x", ANN))
    assert (added["event"], added["channel"]) == ("pusher_internal:member_added", "presence-x")
    assert json.loads(added["data"]) == {"user_id": "ann", "user_info": {"name": "Ann"}}
    assert json.loads(json.loads(presence.member_added("presence-x", BOB))["data"]) == {"user_id": "bob"}
    removed = json.loads(presence.member_removed("presence-x", SEVEN))
    assert removed["event"] == "pusher_internal:member_removed"
    assert json.loads(removed["data"]) == {"user_id": 7}


@pytest.mark.parametrize("member", [ANN, BOB, SEVEN])
def test_a_member_survives_redis(member):
    assert presence.decode_member(presence.encode_member(member)) == member


@given(st.text(max_size=50))
def test_any_channel_data_is_a_member_or_refused(text):
    with pytest.raises(ChannelError):
        presence.parse_member(text)


@given(st.text(max_size=50))
def test_any_user_data_is_a_user_or_refused(text):
    with pytest.raises(UserError):
        parse_user(text)


def test_half_a_character_in_signed_data_does_not_reach_the_others():
    """They read it as JSON inside JSON, and not every reader takes a lone surrogate."""
    member = presence.parse_member(r'{"user_id":"a\ud83d","user_info":{"name":"\ud83d\ude00\ude00"}}')
    assert member == Member("a\ufffd", rb'{"name":"\ud83d\ude00\ufffd"}')
    assert presence.decode_member(presence.encode_member(member)) == member
    assert json.loads(presence.roster_data((member,)))["presence"]["ids"] == ["a\ufffd"]
    user = parse_user(r'{"id":"a\ud83d","user_info":"\ud83d","watchlist":["\ude00"]}')
    assert (user.id, user.user_info, user.watchlist) == ("a\ufffd", rb'"\ufffd"', ("\ufffd",))


def test_nothing_to_tell_is_not_told():
    assert watchlist_events(online=[], offline=[]) is None
    told = json.loads(watchlist_events(online=["8"], offline=[]))
    assert told["event"] == "pusher_internal:watchlist_events"
    assert json.loads(told["data"]) == {"events": [{"name": "online", "user_ids": ["8"]}]}


def test_channels_of_a_user():
    assert user_channel("7") == "#server-to-user-7"
    assert watch_channel("7") == "#watch-7"


def test_whom_a_removal_tells_of_is_read_back():
    for member in (SEVEN, Member("ann"), Member('o"\\\u00f6')):
        assert presence.removed_user(presence.member_removed("presence-x", member)) == member.id
        assert presence.removed_user(presence.member_added("presence-x", member)) is None
    for broken in (b"", b'{"event":"pusher_internal:member_removed"', b"{}"):
        assert presence.removed_user(broken) is None
    other = b'{"event":"pusher_internal:member_removed","channel":"presence-x","data":"\xff"}'
    assert presence.removed_user(other) is None
