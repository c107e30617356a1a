import pytest

from legato.protocol import errors
from legato.protocol.apps import App, over_quota, refuse

APP = App(id="1", key="k", secret="top-secret")


def app(**changes) -> App:
    return App(**({"id": "1", "key": "k", "secret": "top-secret"} | changes))


VERSIONS = [
    ({}, None),
    ({"protocol": "4"}, None),
    ({"protocol": "7"}, None),
    ({"protocol": "3"}, errors.UNSUPPORTED_VERSION),
    ({"protocol": "8"}, errors.UNSUPPORTED_VERSION),
    ({"protocol": "9" * 5000}, errors.UNSUPPORTED_VERSION),
    ({"protocol": ""}, errors.INVALID_VERSION),
    ({"protocol": "x"}, errors.INVALID_VERSION),
    ({"protocol": "7.0"}, errors.INVALID_VERSION),
    ({"protocol": "-7"}, errors.INVALID_VERSION),
    ({"protocol": "\u0667"}, errors.INVALID_VERSION),
]


@pytest.mark.parametrize(("params", "error"), VERSIONS)
def test_protocol_versions(params, error):
    assert refuse(APP, params, "") == error


ORIGINS = [
    (("*",), "https://evil.test", True),
    (("example.com",), "", True),
    (("example.com",), "https://example.com:8443", True),
    (("EXAMPLE.com",), "https://example.com", True),
    (("example.com",), "https://sub.example.com", False),
    (("example.com",), "https://example.com.evil.test", False),
    (("*.example.com",), "https://sub.example.com", True),
    (("*.example.com",), "https://example.com", False),
    (("*.example.com",), "https://.example.com", False),
    (("*.example.com",), "https://notexample.com", False),
    (("example.com",), "null", False),
    (("example.com",), "http://[bad", False),
    ((), "https://example.com", False),
]


@pytest.mark.parametrize(("patterns", "origin", "allowed"), ORIGINS)
def test_origins(patterns, origin, allowed):
    assert refuse(app(allowed_origins=patterns), {}, origin) == (None if allowed else errors.UNAUTHORIZED)


def test_the_connection_quota():
    assert over_quota(app(max_connections=1)) == errors.OVER_QUOTA
    assert over_quota(app(max_connections=1, over_quota="back_off")) == errors.OVER_QUOTA_FOR_NOW


def test_refusals_come_in_the_order_of_the_specification():
    bad = {"protocol": "x"}
    worst = app(enabled=False, allowed_origins=())
    assert refuse(None, bad, "https://x.test") == errors.UNKNOWN_APP
    assert refuse(worst, bad, "https://x.test") == errors.APP_DISABLED
    enabled = app(allowed_origins=())
    assert refuse(enabled, bad, "https://x.test") == errors.INVALID_VERSION
    assert refuse(enabled, {"protocol": "8"}, "https://x.test") == errors.UNSUPPORTED_VERSION
    assert refuse(enabled, {}, "https://x.test") == errors.UNAUTHORIZED
    assert refuse(enabled, {}, "") is None


def test_the_secret_is_not_in_the_representation():
    assert "top-secret" not in repr(APP)
    assert APP.keys == {"k": "top-secret"}
