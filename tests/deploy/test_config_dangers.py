"""What is valid and dangerous is told, in one line that names the setting and no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from legato.broadcaster.config import Auth, Dev, Server, Settings
from legato.deploy import config_dangers as dangers
from legato.deploy.up import APP_SECRET
from legato.protocol.apps import App
from tests import certificates
from tests.test_sample import REQUIRED

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
GOOD = App(id="1", key="k", secret=RANDOM[:20], allowed_origins=("chat.example.com",))


def of(app: App = GOOD, **settings: object) -> list[str]:
    return list(dangers.of_broadcaster(Settings(apps=(app,), **settings)))  # type: ignore[arg-type]


def changed(**values: object) -> App:
    return App(**({name: getattr(GOOD, name) for name in GOOD.__struct_fields__} | values))  # type: ignore[arg-type]


def test_good_settings_have_no_danger() -> None:
    base64 = "base64:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
    for secret in (RANDOM, base64):
        assert of(auth=Auth(jwt_secret=secret)) == []
    assert of(auth=Auth(jwks_url="https://id.example.com/keys")) == []


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"dev": Dev(enabled=True)}, "dev.enabled: "),
        ({"server": Server(cors_origins=("*",))}, "server.cors_origins: * lets any web page"),
        (
            {"server": Server(trusted_proxies=("10.0.0.0/8", "::/0"))},
            "server.trusted_proxies: ::/0 lets every client",
        ),
        (
            {"server": Server(max_failed_tokens_per_address=5)},
            "server.trusted_proxies: without it, all clients behind your proxy",
        ),
        ({"app": changed(allowed_origins=("*",))}, "apps.allowed_origins: * lets any web page connect to 1"),
        ({"app": changed(secret="short")}, "apps.secret of application 1 has 5 bytes, fewer than 16: "),
        ({"app": changed(secret="abab" * 8)}, "apps.secret of application 1 repeats a few characters"),
        (
            {"app": changed(old_keys={"k7": "secret"})},
            "apps.old_keys: the secret of k7 of application 1 is one",
        ),
        ({"auth": Auth(jwt_secret=RANDOM[:31])}, "auth.jwt_secret has 31 bytes, fewer than 32: "),
        (
            {"auth": Auth(jwt_secret=RANDOM[:50], algorithms=("HS256", "HS512"))},
            "auth.jwt_secret has 50 bytes, fewer than 64: ",
        ),
        ({"auth": Auth(jwt_secret="base64:" + "QUJD" * 10)}, "auth.jwt_secret has 30 bytes, fewer than 32"),
        ({"auth": Auth(jwt_secret="base64:no!")}, "auth.jwt_secret has 10 bytes, fewer than 32"),
        ({"auth": Auth(jwt_secret=RANDOM, require_exp=False)}, "auth.require_exp: "),
        ({"auth": Auth(jwks_url="http://id/keys")}, "auth.jwks_url: keys come without TLS"),
    ],
)
def test_each_danger_is_one_line_without_the_secret(settings: dict[str, object], line: str) -> None:
    (found,) = of(**settings)  # type: ignore[arg-type]
    assert found.startswith(line)
    assert "short" not in found
    assert RANDOM[:30] not in found


@pytest.mark.parametrize("secret", [APP_SECRET, REQUIRED["apps"]["secret"], "ChangeMe"])
def test_secrets_of_our_examples_are_known(secret: str) -> None:
    assert dangers.guessable(secret, 1) == "is one of a published example"


def test_an_rsa_key_may_not_be_short(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    keys = (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1()))
    found = []
    for key in keys:
        pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(*pem))
        found.append(of(auth=Auth(jwt_public_key=str(path))))
    assert found == [["auth.jwt_public_key: an RSA key of 1024 bits is too short: expected 2048 or more"], []]


def test_a_certificate_is_tried_and_its_end_is_told(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    paths = {"tls_cert": str(tmp_path / "server.pem"), "tls_key": str(tmp_path / "server.key")}
    assert dangers.certificate_error(Server(**paths)) == ""  # type: ignore[arg-type]
    assert of(server=Server(**paths)) == [  # type: ignore[arg-type]
        "server.tls_cert: the certificate expires in 0 days"
    ]
    other = Server(tls_cert=str(tmp_path / "ca.pem"), tls_key=paths["tls_key"])
    assert "cannot be used: KEY_VALUES_MISMATCH" in dangers.certificate_error(other)
    assert of(server=other) == []
    missing = Server(tls_cert="/nowhere", tls_key="/nowhere")
    assert dangers.certificate_error(missing).endswith("cannot be used: No such file or directory")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1", False),
        ("redis://[::1]:1", False),
        ("redis://localhost", False),
        ("unix:///run/redis.sock", False),
        ("rediss://far.example.com", False),
        ("rediss+cluster://a,b", False),
        ("redis://:geheim@10.0.0.1", True),
        ("redis+sentinel://127.0.0.1,far/master", True),
    ],
)
def test_redis_on_another_host_needs_tls(url: str, *, said: bool) -> None:
    lines = list(dangers.of_redis(url))
    assert bool(lines) == said
    assert "geheim" not in "".join(lines)
