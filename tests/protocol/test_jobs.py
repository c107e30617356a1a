import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import jobs
from legato.protocol.jobs import AttachedFile, ChatRequest, InvalidRequest, Job, ThinkingBudget, Turn


def body(**changes) -> bytes:
    return msgspec.json.encode({"message": "Hello", "history": []} | changes)


def turns(count: int, content: str = "x") -> list:
    return [{"role": "user", "content": content}] * count


@pytest.mark.parametrize(
    "good",
    [
        body(),
        body(message="x" * jobs.MAX_TEXT),
        body(message="é" * jobs.MAX_TEXT),
        body(history=turns(jobs.MAX_TURNS)),
        body(history=turns(1, "x" * jobs.MAX_TEXT)),
        body().ljust(jobs.MAX_REQUEST_BYTES),
        body(session_id="abc-1"),
        body(conversation_id="abc-1"),
        body(conversation_id="abc-1", parent_id="m1"),
        body(conversation_id="abc-1", parent_id="", regenerate=False),
        body(more=1),
        b'{"message":"Hello"}',
    ],
    ids=lambda good: good[:40].decode(),
)
def test_good_chat_requests(good):
    assert jobs.decode_chat_request(good).message


BAD = [
    (b"", "$"),
    (b"junk", "$"),
    (b"\xff", "$"),
    (b"[]", "$"),
    (b"[" * 100_000, "$"),
    (b"{}", "message"),
    (body(message=""), "message"),
    (body(message="  "), "message"),
    (body(message="x" * (jobs.MAX_TEXT + 1)), "message"),
    (body().ljust(jobs.MAX_REQUEST_BYTES + 1), "$"),
    (body(message=1), "message"),
    (body(history={}), "history"),
    (body(history=turns(jobs.MAX_TURNS + 1)), "history"),
    (body(history=[1]), "history.0"),
    (body(history=[{"role": "system", "content": "x"}]), "history.0.role"),
    (body(history=[{"role": "user"}]), "history.0"),
    (body(history=[{"role": "user", "content": "x", "y": 1}]), "history.0"),
    (body(history=turns(1, "x" * (jobs.MAX_TEXT + 1))), "history.0.content"),
    (body(history=turns(1, "")), "history.0.content"),
    (body(session_id="a b"), "session_id"),
    (body(conversation_id="a b"), "conversation_id"),
    (body(conversation_id="c1", history=turns(1)), "history"),
    (body(parent_id="m1"), "parent_id"),
    (body(parent_id=""), "parent_id"),
    (body(conversation_id="c1", parent_id="a b"), "parent_id"),
    (body(conversation_id="c1", parent_id="m" * 65), "parent_id"),
    (body(conversation_id="c1", parent_id="m1", regenerate=True), "message"),
    (body(conversation_id="c1", message="", regenerate=True), "parent_id"),
    (body(conversation_id="c1", parent_id="", message="", regenerate=True), "parent_id"),
    (body(conversation_id="c1", parent_id="m1", message=""), "message"),
]


@pytest.mark.parametrize(("bad", "field"), BAD, ids=range(len(BAD)))
def test_bad_chat_requests_name_the_field(bad, field):
    with pytest.raises(InvalidRequest) as caught:
        jobs.decode_chat_request(bad)
    assert caught.value.field == field
    assert caught.value.reason


def test_to_answer_a_message_once_more_nobody_repeats_it():
    asked = jobs.decode_chat_request(b'{"conversation_id": "c1", "parent_id": "m1", "regenerate": true}')
    assert (asked.message, asked.parent_id, asked.regenerate) == ("", "m1", True)
    job = Job("m2", "1", 7, "", 0, conversation_id="c1", parent_id="m1", regenerate=True)
    assert jobs.decode_job(jobs.encode_job(job)) == job


@given(st.binary(max_size=200))
def test_any_body_is_a_request_or_refused(data):
    with pytest.raises(InvalidRequest):
        jobs.decode_chat_request(data)


JOB = Job(message_id="m-1", app_id="1", user_id=7, message="Hello", queued_at=1, session_id="s")


def test_a_job_survives_the_queue():
    for job in (JOB, msgspec.structs.replace(JOB, conversation_id="c1")):
        assert jobs.decode_job(jobs.encode_job(job)) == job
    assert JOB.channel == "private-ai-chat.7"


@pytest.mark.parametrize(
    "change",
    [
        {"message_id": "a b"},
        {"message_id": ""},
        {"user_id": "a}b"},
        {"app_id": "a:b"},
        {"message": ""},
        {"queued_at": -1},
        {"queued_at": 2**53 + 1},
        {"queued_at": 10**400},
        {"user_id": 2**53 + 1},
        {"user_id": -(2**53) - 1},
        {"user_id": 10**200},
        {"conversation_id": "c1", "history": turns(1)},
    ],
)
def test_a_bad_job_is_refused(change):
    with pytest.raises(InvalidRequest):
        jobs.decode_job(json.dumps(msgspec.to_builtins(JOB) | change))


@pytest.mark.parametrize(
    ("text", "bytes_of_one"),
    [("x", 1), (r"\"", 2), (r"\u0001", 6), ("é", 2), (r"\ud83d\ude00", 12), (r"\ud83d", 6)],
)
def test_the_job_of_every_request_fits_into_the_queue(text, bytes_of_one):
    """Whatever a request is made of, its job is hardly longer."""
    frame = '{"message":"x","session_id":"%s","history":[%s]}'
    turn = '{"role":"user","content":"%s"}'
    room = jobs.MAX_REQUEST_BYTES - len(frame % ("s" * 64, "")) - len(turn) * 12
    texts = [text * min(jobs.MAX_TEXT, room // 12 // bytes_of_one) for _ in range(12)]
    body = (frame % ("s" * 64, ",".join(turn % text for text in texts))).encode()
    asked = jobs.decode_chat_request(body)
    job = Job(
        message_id="m" * 64,
        app_id="a" * 64,
        user_id="u" * 128,
        message=asked.message,
        queued_at=jobs.EXACT,
        history=asked.history,
        session_id=asked.session_id,
    )
    encoded = jobs.encode_job(job)
    assert len(encoded) - len(body) <= jobs.MAX_JOB_BYTES - jobs.MAX_REQUEST_BYTES
    assert jobs.decode_job(encoded) == job


def test_a_job_is_bounded_before_it_is_parsed():
    body = jobs.encode_job(JOB)
    assert jobs.decode_job(body.ljust(jobs.MAX_JOB_BYTES)) == JOB
    with pytest.raises(InvalidRequest, match="bytes"):
        jobs.decode_job(body.ljust(jobs.MAX_JOB_BYTES + 1))


def test_half_a_character_does_not_cost_the_conversation():
    """What was said once comes again as history with every later message."""
    body = (
        rb'{"message":"\ude00 nice \ud83d\ude00","history":[{"role":"user","content":"\ud83d"}],"x":"\udfff"}'
    )
    request = jobs.decode_chat_request(body)
    assert request == jobs.ChatRequest("\ufffd nice \U0001f600", (Turn("user", "\ufffd"),))
    job = json.dumps(msgspec.to_builtins(JOB) | {"message": "\ud83d"})
    assert jobs.decode_job(job).message == "\ufffd"


@pytest.mark.parametrize("user_id", [2**53, -(2**53), 0, "9" * 128])
def test_a_job_for_any_user_there_may_be(user_id):
    job = msgspec.structs.replace(JOB, user_id=user_id, queued_at=2**53)
    assert jobs.decode_job(jobs.encode_job(job)) == job


PNG = base64.b64encode(b"\x89PNG").decode()
IMAGE = {"type": "image", "media_type": "image/png", "data": PNG}
PDF = {"type": "document", "url": "https://example.com/a.pdf"}

OPTIONS = [
    ("agent", "support-2.b", "support-2.b"),
    ("model", "m" * 200, "m" * 200),
    ("system", "", ""),
    ("system", "s" * jobs.MAX_TEXT, "s" * jobs.MAX_TEXT),
    ("max_tokens", 1, 1),
    ("max_tokens", 1_000_000, 1_000_000),
    ("thinking", True, True),
    ("thinking", False, False),
    ("thinking", {"budget_tokens": 2048}, ThinkingBudget(2048)),
    ("channel", "private-team.7", "private-team.7"),
    ("channel", "presence-" + "r" * 191, "presence-" + "r" * 191),
    (
        "metadata",
        {"plan": "pro", "tags": [1, None, {"a": 1.5}]},
        {"plan": "pro", "tags": [1, None, {"a": 1.5}]},
    ),
    ("attachments", [IMAGE], (AttachedFile("image", "image/png", data=PNG),)),
    ("attachments", [PDF] * 20, (AttachedFile("document", url=PDF["url"]),) * 20),
    (
        "attachments",
        [PDF | {"title": "t" * 200}],
        (AttachedFile("document", url=PDF["url"], title="t" * 200),),
    ),
    ("attachments", [{"type": "image", "url": "http://a/" + "b" * 2039}], None),
]


@pytest.mark.parametrize(("name", "given_", "kept"), OPTIONS, ids=range(len(OPTIONS)))
def test_an_option_is_read_from_jobs_and_requests_and_survives_the_queue(name, given_, kept):
    job = jobs.decode_job(json.dumps(msgspec.to_builtins(JOB) | {name: given_}))
    request = jobs.decode_chat_request(body(**{name: given_}))
    read = getattr(job, jobs.OPTIONS[name])
    assert read == getattr(request, jobs.OPTIONS[name])
    assert kept is None or (read == kept and type(read) is type(kept))
    encoded = jobs.encode_job(job)
    assert json.loads(encoded)[name] == given_
    assert jobs.decode_job(encoded) == job


def nested(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def image(**changes) -> list:
    return [{name: value for name, value in (IMAGE | changes).items() if value is not None}]


BAD_OPTIONS = [
    ("agent", "", "agent"),
    ("agent", "a b", "agent"),
    ("agent", "a" * 65, "agent"),
    ("agent", "a\n", "agent"),
    ("model", "", "model"),
    ("model", "m" * 201, "model"),
    ("system", "s" * (jobs.MAX_TEXT + 1), "system"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", 1_000_001, "max_tokens"),
    ("max_tokens", True, "max_tokens"),
    ("thinking", 1, "thinking"),
    ("thinking", {}, "thinking"),
    ("thinking", {"budget_tokens": 0}, "thinking.budget_tokens"),
    ("thinking", {"budget_tokens": 1, "more": 1}, "thinking"),
    ("channel", "", "channel"),
    ("channel", "public", "channel"),
    ("channel", "cache-a", "channel"),
    ("channel", "private-encrypted-a", "channel"),
    ("channel", "private-encrypted-cache-a", "channel"),
    ("channel", "private-a}b", "channel"),
    ("channel", "private-" + "x" * 193, "channel"),
    ("channel", "#server-to-user-7", "channel"),
    ("metadata", [], "metadata"),
    ("metadata", {"a": "x" * 16_384}, "metadata"),
    ("metadata", nested(33), "metadata"),
    ("attachments", {}, "attachments"),
    ("attachments", [PDF] * 21, "attachments"),
    ("attachments", image(type="video"), "attachments.0.type"),
    ("attachments", image(type="document"), "attachments.0"),
    ("attachments", image(media_type="application/pdf"), "attachments.0"),
    ("attachments", image(media_type="image/svg+xml"), "attachments.0.media_type"),
    ("attachments", image(media_type=None), "attachments.0"),
    ("attachments", image(data=None), "attachments.0"),
    ("attachments", image(url="https://a/b"), "attachments.0"),
    ("attachments", image(data=""), "attachments.0.data"),
    ("attachments", image(data="a"), "attachments.0"),
    ("attachments", image(data="YWI"), "attachments.0"),
    ("attachments", image(data="YWI=\n"), "attachments.0"),
    ("attachments", image(data="YW-_"), "attachments.0"),
    ("attachments", image(data="é" * 4), "attachments.0"),
    ("attachments", image(more=1), "attachments.0"),
    ("attachments", image(title="t" * 201), "attachments.0.title"),
    ("attachments", image(data=None, url="ftp://a/b"), "attachments.0.url"),
    ("attachments", image(data=None, url="https:///b"), "attachments.0.url"),
    ("attachments", image(data=None, url="https://a/b c"), "attachments.0.url"),
    ("attachments", image(data=None, url="https://a/\n"), "attachments.0.url"),
    ("attachments", image(data=None, url="https://a\\@b/c"), "attachments.0.url"),
    ("attachments", image(data=None, url="https://ä/c"), "attachments.0.url"),
    ("attachments", image(data=None, url="http://a/" + "b" * 2040), "attachments.0.url"),
]


@pytest.mark.parametrize(("name", "bad", "field"), BAD_OPTIONS, ids=range(len(BAD_OPTIONS)))
def test_a_bad_option_is_refused_by_its_name(name, bad, field):
    for decode in (
        lambda: jobs.decode_job(json.dumps(msgspec.to_builtins(JOB) | {name: bad})),
        lambda: jobs.decode_chat_request(body(**{name: bad})),
    ):
        with pytest.raises(InvalidRequest) as caught:
            decode()
        assert caught.value.field == field
        assert 0 < len(caught.value.reason) <= jobs.MAX_REASON


def test_the_reason_does_not_repeat_a_long_body():
    with pytest.raises(InvalidRequest, match="Invalid enum value") as caught:
        jobs.decode_chat_request(body(attachments=image(media_type="x" * 100_000)))
    assert len(caught.value.reason) == jobs.MAX_REASON


def test_metadata_has_its_bounds_exactly():
    longest = {"a": "x" * (jobs.MAX_METADATA_BYTES - len('{"a":""}'))}
    for good in (longest, nested(jobs.MAX_METADATA_DEPTH)):
        assert jobs.decode_chat_request(body(metadata=good)).metadata == good
    with pytest.raises(InvalidRequest, match="bytes"):
        jobs.decode_chat_request(body(metadata={"a": longest["a"] + "x"}))


def test_a_number_that_no_reader_can_hold_names_the_metadata():
    with pytest.raises(InvalidRequest) as caught:
        jobs.decode_chat_request(b'{"message":"x","metadata":{"a":%b}}' % (b"1" * 5000))
    assert caught.value.field == "metadata"


def test_a_job_without_options_is_written_as_it_always_was():
    assert jobs.encode_job(JOB) == (
        b'{"message_id":"m-1","app_id":"1","user_id":7,"message":"Hello","queued_at":1,"session_id":"s"}'
    )


def test_the_reply_goes_to_the_channel_of_the_job_or_to_the_user():
    assert JOB.channel == "private-ai-chat.7"
    assert msgspec.structs.replace(JOB, reply_channel="private-team.1").channel == "private-team.1"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/b/c", "https://a.example"),
        ("http://a:80?b#c", "http://a:80"),
        ("http://a#/b", "http://a"),
        ("https://a@b:1/c", "https://a@b:1"),
        ("https://[::1]/://x", "https://[::1]"),
        ("http://a", "http://a"),
        (None, ""),
    ],
)
def test_the_origin_of_an_attachment_ends_where_its_path_begins(url, origin):
    assert (
        AttachedFile("image", url=url, data=None if url else "YWI=", media_type="image/png").origin == origin
    )


@given(st.binary(max_size=100))
def test_the_size_of_an_attachment_is_that_of_its_bytes(data):
    assert AttachedFile("image", "image/png", data=base64.b64encode(data).decode()).size == len(data)
    assert AttachedFile("image", url="https://a/b").size == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Job.__struct_encode_fields__, "more"]), JSON))
def test_any_job_is_read_or_refused_and_what_is_read_can_be_queued_again(changes):
    """Nothing but InvalidRequest: the worker's dead letters depend on it."""
    for text in (json.dumps(msgspec.to_builtins(JOB) | changes), json.dumps(changes)):
        try:
            job = jobs.decode_job(text)
        except InvalidRequest:
            continue
        assert jobs.decode_job(jobs.encode_job(job)) == job


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_anything_is_a_job_or_refused(data):
    with pytest.raises(InvalidRequest):
        jobs.decode_job(data)


@given(
    st.fixed_dictionaries({}, optional={name: st.just(good) for name, good, _ in OPTIONS[:-1]}).filter(
        lambda options: len(str(options)) < 5000
    )
)
def test_options_go_together(options):
    request = jobs.decode_chat_request(body(**options))
    given_ = {name for name, attribute in jobs.OPTIONS.items() if getattr(request, attribute)}
    assert given_ == {name for name, value in options.items() if value}


def test_the_job_of_a_request_with_options_fits_into_the_queue():
    """Numbers may become longer: 1E5 is 100000.0."""
    number = b"1E15,"
    metadata = b'{"a":[' + number * 860 + b"1]}"
    head = b'{"metadata":%b,"message":"' % metadata
    text = b"x" * jobs.MAX_TEXT
    asked = jobs.decode_chat_request(head + text + b'"}')
    job = Job("m" * 64, "a" * 64, "u" * 128, asked.message, jobs.EXACT, metadata=asked.metadata)
    job = msgspec.structs.replace(job, tenant="t" * 128)
    grown = len(jobs.encode_job(job)) - len(head + text)
    assert jobs.MAX_METADATA_BYTES / 2 < grown <= jobs.MAX_JOB_BYTES - jobs.MAX_REQUEST_BYTES


def test_requests_and_jobs_have_the_same_options():
    both = set(ChatRequest.__struct_encode_fields__) & set(Job.__struct_encode_fields__)
    place = {"session_id", "conversation_id", "parent_id", "regenerate"}
    assert set(jobs.OPTIONS) == both - {"message", "history", *place}


GOOD_TENANTS = ["a", "acme-7", "t" * 128, "a=b@c,d.e;f_G"]


@pytest.mark.parametrize("tenant", GOOD_TENANTS)
def test_tenants_that_are_taken(tenant):
    assert jobs.tenant_name(tenant) == tenant
    job = Job("m", "1", 7, "Hello", 0, tenant=tenant)
    assert jobs.decode_job(jobs.encode_job(job)) == job


@pytest.mark.parametrize(
    "tenant", ["t" * 129, "a b", "a|b", "a:b", "\xe4", "a\n", "\n", 1.5, True, ["a"], {}]
)
def test_tenants_that_are_refused(tenant):
    with pytest.raises(ValueError, match=r"^expected a number or a text of 1 to 128"):
        jobs.tenant_name(tenant)
    with pytest.raises(InvalidRequest):
        jobs.decode_job(job_body(tenant=tenant))


def test_a_claim_that_is_absent_or_a_number_names_a_tenant_too():
    assert [jobs.tenant_name(value) for value in (None, 0, -7, 10**127)] == ["", "0", "-7", "1" + "0" * 127]
    for value in ("", 10**128):
        with pytest.raises(ValueError, match=r"^expected"):
            jobs.tenant_name(value)


def test_a_job_without_a_tenant_is_written_as_before():
    assert jobs.encode_job(Job("m", "1", 7, "Hello", 0)) == (
        b'{"message_id":"m","app_id":"1","user_id":7,"message":"Hello","queued_at":0}'
    )
    assert jobs.decode_job(job_body(tenant="")).tenant == ""


def job_body(**changes) -> bytes:
    job = {"message_id": "m", "app_id": "1", "user_id": 7, "message": "Hello", "queued_at": 0}
    return msgspec.json.encode(job | changes)


def test_the_owner_of_a_job_and_where_its_reply_goes():
    assert jobs.decode_owner(job_body()) == jobs.JobOwner("m", "1", 7, "", "private-ai-chat.7")
    elsewhere = jobs.decode_owner(job_body(user_id="ann", tenant="t", channel="private-room.5"))
    assert elsewhere == jobs.JobOwner("m", "1", "ann", "t", "private-room.5")
    assert jobs.decode_owner(job_body(message=5)).message_id == "m"


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense",
        b"\xff",
        b"[]",
        job_body(tenant="a|b"),
        job_body(user_id="a|b"),
        job_body(message_id="a|b"),
        job_body(app_id="1:2"),
        job_body(channel="private-a|b"),
        job_body(channel="private-" + "a" * 200),
    ],
)
def test_what_could_be_taken_for_another_owner_has_none(bad):
    with pytest.raises(InvalidRequest):
        jobs.decode_owner(bad)


@given(st.builds(Job, *map(st.just, ("m", "1", 7, "Hello", 0)), tenant=st.sampled_from(["", *GOOD_TENANTS])))
def test_the_owner_is_what_the_job_says(job):
    owner = jobs.decode_owner(jobs.encode_job(job))
    assert (owner.tenant, owner.channel) == (job.tenant, job.channel)
