import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.channels import MAX_NAME, Channel, ChannelError

KINDS = [
    # name, private, presence, encrypted, cache
    ("orders", False, False, False, False),
    ("private", False, False, False, False),
    ("cache", False, False, False, False),
    ("privatefoo", False, False, False, False),
    ("xprivate-cache-y", False, False, False, False),
    ("Private-x", False, False, False, False),
    ("cache-x", False, False, False, True),
    ("cache-private-x", False, False, False, True),
    ("private-x", True, False, False, False),
    ("private-encrypted", True, False, False, False),
    ("private-cache-x", True, False, False, True),
    ("private-encrypted-x", True, False, True, False),
    ("private-encrypted-cache-x", True, False, True, True),
    ("presence-x", True, True, False, False),
    ("presence-cache-x", True, True, False, True),
]


@pytest.mark.parametrize(("name", "private", "presence", "encrypted", "cache"), KINDS)
def test_the_kind_is_read_off_an_anchored_prefix(name, private, presence, encrypted, cache):
    assert Channel.parse(name) == Channel(name, private, presence, encrypted, cache)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a{b}", "ä", "a\n", "#server-to-user-7", "a/b", "a#b"])
def test_other_characters_are_refused(name):
    with pytest.raises(ChannelError) as caught:
        Channel.parse(name)
    assert (caught.value.type, caught.value.status) == ("InvalidChannel", 4009)


def test_the_longest_name_is_accepted_and_one_more_is_not():
    assert Channel.parse("a" * MAX_NAME).name == "a" * MAX_NAME
    with pytest.raises(ChannelError) as caught:
        Channel.parse("a" * (MAX_NAME + 1))
    assert (caught.value.type, caught.value.status) == ("LimitReached", 4009)


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused_and_what_needs_a_signature_says_so(name):
    try:
        channel = Channel.parse(name)
    except ChannelError:
        return
    assert channel.name == name
    assert channel.private == name.startswith(("private-", "presence-"))
    assert channel.presence <= channel.private
    assert channel.encrypted <= channel.private
