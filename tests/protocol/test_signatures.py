import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import signatures
from legato.protocol.signatures import SignatureError

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"
KEYS = {KEY: SECRET}
BODY = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
PARAMS = {
    "auth_key": KEY,
    "auth_timestamp": "1353088179",
    "auth_version": "1.0",
    "body_md5": "ec365a775a4cd0599faeb73354201b6f",
    "auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
}
NOW = 1353088179.0
PATHS = ("/apps/3/events",)

WORKED = [  # section 4.3
    (
        "1234.1234:private-foobar",
        "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
    ),
    (
        '1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Channels"}}',
        "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
    ),
    (
        '1234.1234::user::{"id":"12345"}',
        "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
    ),
]


@pytest.mark.parametrize(("text", "signature"), WORKED)
def test_the_worked_examples_of_the_specification(text, signature):
    assert signatures.sign(SECRET, text) == signature
    assert signatures.verify_channel(KEYS, f"{KEY}:{signature}", text)


def test_channel_data_takes_part_only_when_it_is_given():
    assert signatures.channel_text("1.2", "private-x") == "1.2:private-x"
    assert signatures.channel_text("1.2", "private-x", "{}") == "1.2:private-x:{}"


def test_what_is_signed_for_a_channel_verifies_for_that_channel_and_socket_alone():
    auth = signatures.sign_channel(KEY, SECRET, "1.2", "private-x", "{}")
    assert signatures.verify_channel(KEYS, auth, "1.2:private-x:{}")
    assert not signatures.verify_channel(KEYS, auth, "1.2:private-x")
    assert not signatures.verify_channel(KEYS, auth, "1.3:private-x:{}")
    assert not signatures.verify_channel({"other": SECRET}, auth, "1.2:private-x:{}")


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda hexdigits: hexdigits[:-1],
        "{}0".format,
        " {}".format,
        lambda hexdigits: hexdigits[:0],
    ],
)
def test_a_signature_that_is_nearly_right_is_refused(change):
    """The specification says lowercase hex, and all of it."""
    signature = signatures.sign(SECRET, "1.2:private-x")
    assert signatures.verify_channel(KEYS, f"{KEY}:{signature}", "1.2:private-x")
    assert not signatures.verify_channel(KEYS, f"{KEY}:{change(signature)}", "1.2:private-x")
    signed = PARAMS | {"auth_signature": change(PARAMS["auth_signature"])}
    with pytest.raises(SignatureError, match="signature"):
        signatures.verify_request(KEYS, "POST", PATHS, signed, BODY, NOW)


@given(st.text())
def test_no_other_text_verifies(auth):
    text = "1.2:private-x"
    assert signatures.verify_channel(KEYS, auth, text) == (auth == f"{KEY}:{signatures.sign(SECRET, text)}")


def test_the_worked_request_of_the_specification():
    signatures.verify_request(KEYS, "POST", PATHS, PARAMS, BODY, NOW)


def test_any_of_the_paths_may_be_the_signed_one():
    signatures.verify_request(KEYS, "POST", ("/x/apps/3/events", *PATHS), PARAMS, BODY, NOW)


WRONG = [
    ({"auth_key": "other"}, "auth_key"),
    ({"auth_key": None}, "auth_key"),
    ({"auth_version": "2.0"}, "auth_version"),
    ({"auth_version": None}, "auth_version"),
    ({"auth_timestamp": "soon"}, "auth_timestamp"),
    ({"auth_timestamp": "\u0661"}, "auth_timestamp"),
    ({"auth_timestamp": "1" * 13}, "auth_timestamp"),
    ({"auth_timestamp": None}, "auth_timestamp"),
    ({"body_md5": "0" * 32}, "body_md5"),
    ({"body_md5": None}, "body_md5"),
    ({"auth_signature": "0" * 64}, "signature"),
    ({"auth_signature": "ä"}, "signature"),
    ({"auth_signature": None}, "signature"),
    ({"more": "x"}, "signature"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG)
def test_one_wrong_parameter_refuses_the_request(change, reason):
    params = {name: value for name, value in (PARAMS | change).items() if value is not None}
    with pytest.raises(SignatureError, match=reason) as caught:
        signatures.verify_request(KEYS, "POST", PATHS, params, BODY, NOW)
    assert caught.value.status == 401
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("now", "fine"), [(NOW + 600, True), (NOW - 600, True), (NOW + 601, False), (NOW - 601, False)]
)
def test_the_clock_may_be_off_by_ten_minutes(now, fine):
    if fine:
        signatures.verify_request(KEYS, "POST", PATHS, PARAMS, BODY, now)
        return
    with pytest.raises(SignatureError, match="Timestamp expired"):
        signatures.verify_request(KEYS, "POST", PATHS, PARAMS, BODY, now)


def test_another_method_path_or_body_is_not_what_was_signed():
    for method, paths, body in [("PUT", PATHS, BODY), ("POST", ("/apps/4/events",), BODY)]:
        with pytest.raises(SignatureError, match="Invalid signature"):
            signatures.verify_request(KEYS, method, paths, PARAMS, body, NOW)
    with pytest.raises(SignatureError, match="body_md5"):
        signatures.verify_request(KEYS, "POST", PATHS, PARAMS, BODY + b" ", NOW)


def test_body_md5_of_an_empty_body_takes_part_as_sent():
    """The official Python SDK sends it with every GET (section 10.1, step 4)."""
    params = {
        "auth_key": KEY,
        "auth_timestamp": "1353088179",
        "auth_version": "1.0",
        "body_md5": hashlib.md5(b"").hexdigest(),
    }
    params["auth_signature"] = signatures.sign(
        SECRET, signatures.request_text("GET", "/apps/3/channels", params)
    )
    signatures.verify_request(KEYS, "GET", ("/apps/3/channels",), params, b"", NOW)


QUERIES = [
    (b"a=1&B=2", {"a": "1", "b": "2"}),
    (b"filter_by_prefix=presence-a=b;c@d,&info=x", {"filter_by_prefix": "presence-a=b;c@d,", "info": "x"}),
    (
        b"filter_by_prefix=presence-a%3Db%3Bc%40d%2C&info=x",
        {"filter_by_prefix": "presence-a=b;c@d,", "info": "x"},
    ),
    (b"channels[]=a&channels%5B%5D=b", {"channels": "a,b"}),
    (b"a+b=c+d", {"a+b": "c+d"}),
    (b"&&a", {"a": ""}),
    (b"", {}),
    (b"a=%ff", {"a": "\udcff"}),
]


@pytest.mark.parametrize(("query", "params"), QUERIES)
def test_queries_are_split_as_the_sdks_sign_them(query, params):
    assert signatures.parse_query(query) == params


@given(st.binary(max_size=200))
def test_any_query_can_be_checked(query):
    params = signatures.parse_query(query)
    with pytest.raises(SignatureError):
        signatures.verify_request(KEYS, "GET", ("/apps/3/channels",), params | {"auth_key": KEY}, b"", NOW)


@given(st.text(max_size=100), st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_signing_is_hmac_sha256(secret, text):
    assert (
        signatures.sign(secret, text) == hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    )


@given(st.text("aB&=+[]", max_size=30))
def test_plain_queries_are_split_like_all_others(query):
    """There is a short way for those in which nothing is escaped."""
    escaped = query.replace("a", "%61") + "&%61=a"
    plain = query + "&a=a"
    assert signatures.parse_query(plain.encode()) == signatures.parse_query(escaped.encode())


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_a_secret_may_be_longer_than_the_hashs_block(size):
    secret = "s" * size
    assert signatures.sign(secret, "text") == hmac.new(secret.encode(), b"text", hashlib.sha256).hexdigest()
