"""Tokens and channel rules."""

from __future__ import annotations

import base64
import hmac
import json
import time
import warnings

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.auth.errors import AuthError
from legato.broadcaster.auth.rules import ChannelRule, allows, user_of
from legato.broadcaster.auth.verifier import verifier
from legato.broadcaster.config import Auth
from legato.protocol.settings import SettingsError

SECRET = "a secret of more than thirty-two bytes"


def bearer(claims, key=SECRET, algorithm="HS256", **headers) -> str:
    """A header with an unexpired token, unless the claims say otherwise; ``exp=None`` omits ``exp``."""
    claims = {name: value for name, value in ({"exp": 2**32} | claims).items() if value is not None}
    return "Bearer " + jwt.encode(claims, key, algorithm, headers=headers or None)


async def test_a_good_token_gives_its_claims():
    claims = await verifier(Auth(jwt_secret=SECRET)).verify(bearer({"sub": "7", "team": 3}))
    assert claims == {"sub": "7", "team": 3, "exp": 2**32}
    assert user_of(claims) == 7


async def test_an_integer_sub_is_accepted():
    claims = await verifier(Auth(jwt_secret=SECRET)).verify(bearer({"sub": 7}))
    assert user_of(claims) == 7


BAD = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer junk",
    "Basic " + bearer({"sub": "7"}).removeprefix("Bearer "),
    "Bearer " + "x" * 9_000,
    bearer({"sub": "7"}, "another secret of more than thirty-two bytes"),
    bearer({"sub": "7"}, algorithm="HS512", key=SECRET * 2),
    bearer({"sub": "7", "exp": 1}),
    bearer({"sub": "7", "nbf": time.time() + 3600}),
    bearer({"team": "7"}),
    bearer({"sub": "7", "exp": None}),
    "Bearer " + jwt.encode({"sub": "7", "exp": 2**32}, None, algorithm="none"),
]


@pytest.mark.parametrize("header", BAD, ids=range(len(BAD)))
async def test_any_other_header_is_refused(header):
    with pytest.raises(AuthError, match=r"^Unauthenticated\.$"):
        await verifier(Auth(jwt_secret=SECRET)).verify(header)


async def test_a_token_without_exp_is_accepted_only_by_setting(caplog):
    header = bearer({"sub": "7", "exp": None})
    assert await verifier(Auth(jwt_secret=SECRET, require_exp=False)).verify(header) == {"sub": "7"}
    tokens = verifier(Auth(jwt_secret=SECRET))
    with pytest.raises(AuthError):
        await tokens.verify(bearer({"sub": "7", "exp": None}, "another secret of more than thirty-two bytes"))
    assert not caplog.messages  # a forged token is not the application's mistake
    for _ in range(3):
        with pytest.raises(AuthError):
            await tokens.verify(header)
    (line,) = caplog.messages
    assert "auth.require_exp" in line


@pytest.mark.parametrize("key", [b"k" * 32, "base64:" + base64.b64encode(b"k" * 32).decode()])
async def test_laravels_key_verifies_what_was_signed_with_either_of_its_forms(key):
    tokens = verifier(Auth(jwt_secret="base64:" + base64.b64encode(b"k" * 32).decode()))
    assert (await tokens.verify(bearer({"sub": "7"}, key)))["sub"] == "7"
    for wrong in (bearer({"sub": "7"}, SECRET), bearer({"sub": "7", "exp": 1}, key)):
        with pytest.raises(AuthError):
            await tokens.verify(wrong)


@pytest.mark.parametrize("secret", ["base64:", "base64:not base64 at all, but long", "a" * 44])
async def test_a_secret_that_only_looks_like_base64_is_itself(secret):
    tokens = verifier(Auth(jwt_secret=secret))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        assert (await tokens.verify(bearer({"sub": "7"}, secret)))["sub"] == "7"
        with pytest.raises(AuthError):
            await tokens.verify(bearer({"sub": "7"}, base64.b64decode("a" * 44)))


async def test_without_a_key_every_token_is_refused():
    tokens = verifier(Auth())
    for header in (bearer({"sub": "7"}), "Bearer " + jwt.encode({"sub": "7"}, None, algorithm="none")):
        with pytest.raises(AuthError):
            await tokens.verify(header)


async def test_issuer_and_audience_are_checked_when_they_are_set():
    tokens = verifier(Auth(jwt_secret=SECRET, issuer="me", audience="chat"))
    good = {"sub": "7", "iss": "me", "aud": "chat"}
    assert (await tokens.verify(bearer(good)))["sub"] == "7"
    for change in ({"iss": "you"}, {"aud": "shop"}):
        with pytest.raises(AuthError):
            await tokens.verify(bearer(good | change))


@pytest.mark.parametrize("sub", [None, "", "a b", "a:b", [], {"x": 1}, True])
def test_a_sub_that_cannot_be_a_user_is_refused(sub):
    with pytest.raises(AuthError):
        user_of({"sub": sub})


def pem(key) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def forged(claims, secret: bytes) -> str:
    """An HS256 token by hand: PyJWT refuses to sign with a public key."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256"}, claims)
    ]
    signature = hmac.digest(secret, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


KEYS = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}


@pytest.mark.parametrize("algorithm", list(KEYS))
async def test_a_public_key_file(algorithm, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS[algorithm].public_key()))
    tokens = verifier(Auth(jwt_public_key=str(path)))
    assert (await tokens.verify(bearer({"sub": "7"}, KEYS[algorithm], algorithm)))["sub"] == "7"
    # The classic confusion: the public key used as an HMAC secret.
    with pytest.raises(AuthError):
        await tokens.verify("Bearer " + forged({"sub": "1", "exp": 2**32}, path.read_bytes()))


def test_keys_that_cannot_be_used_stop_the_start(tmp_path):
    with pytest.raises(SettingsError, match="expected a PEM file"):
        verifier(Auth(jwt_public_key=str(tmp_path / "none.pem")))
    (tmp_path / "no.pem").write_text("not a key")
    with pytest.raises(SettingsError, match="expected a PEM file"):
        verifier(Auth(jwt_public_key=str(tmp_path / "no.pem")))
    with pytest.raises(SettingsError, match="expected http"):
        verifier(Auth(jwks_url="notaurl"))
    with pytest.raises(SettingsError, match="HS"):
        verifier(Auth(jwt_secret=SECRET, algorithms=("RS256",)))
    with pytest.raises(SettingsError, match="HS"):
        verifier(Auth(jwks_url="http://127.0.0.1:1", algorithms=("HS256",)))


EXPANSIONS = [
    ("private-ai-chat.{sub}", {"sub": 7}, "private-ai-chat.7"),
    ("private-ai-chat.{sub}", {"sub": "7"}, "private-ai-chat.7"),
    ("private-ai-chat.{sub}", {}, None),
    ("private-ai-chat.{sub}", {"sub": ""}, None),
    ("private-ai-chat.{sub}", {"sub": "7 8"}, None),
    ("private-ai-chat.{sub}", {"sub": True}, None),
    ("private-ai-chat.{sub}", {"sub": ["7"]}, None),
    ("private-ai-chat.{sub}", {"sub": "a.b"}, "private-ai-chat.a.b"),
    ("private-{team}.{sub}", {"team": "a", "sub": "b.c"}, "private-a.b.c"),
    ("private-{team}.{sub}", {"team": "a.b", "sub": "c"}, None),
    ("private-{team}-end", {"team": 3}, "private-3-end"),
    ("private-news", {}, "private-news"),
]


@pytest.mark.parametrize(("rule", "claims", "name"), EXPANSIONS)
def test_a_rule_allows_its_own_expansion(rule, claims, name):
    assert ChannelRule(rule).expand(claims) == name


@pytest.mark.parametrize(
    "rule", ["", "private-{a}{b}", "private x", "private-{}", "private-{a b}", "a:{sub}"]
)
def test_a_rule_that_is_no_channel_name_stops_the_start(rule):
    with pytest.raises(SettingsError, match=r"auth\.channels"):
        ChannelRule(rule)


NAMES = st.text(alphabet="ab.-7", min_size=1, max_size=5)


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_two_users_get_the_same_channel(team, sub, other_team, other_sub):
    rules = [ChannelRule("private-{team}.{sub}")]
    name = f"private-{team}.{sub}"
    if (team, sub) != (other_team, other_sub) and allows(rules, {"team": team, "sub": sub}, name):
        assert not allows(rules, {"team": other_team, "sub": other_sub}, name)
