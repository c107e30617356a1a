"""Origins: what patterns mean, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.apps import App
from legato.protocol.origins import MAX_ORIGIN, Origins

MEANINGS = {
    "*": (["https://any.test", "null", "file://", "junk"], []),
    "app.example.com": (
        ["https://app.example.com", "http://APP.example.com:3000", "capacitor://app.example.com"],
        [
            *("https://example.com", "https://x.app.example.com", "https://app.example.com.evil.test"),
            *("https://app.example.comx", "https://xapp.example.com", "https://app.example.com.", "null", ""),
            *(
                "app.example.com",
                "//app.example.com",
                "https://app.example.com/",
                "https://app.example.com/x",
            ),
            *("https://app.example.com#@evil.test", "https://evil.test@app.example.com", "https://"),
            *("https://app.example.com:", "https://app.example.com:x", "https://app.example.com:*"),
            *("https://app.example.com:123456", "https://app.example.com\n", " https://app.example.com"),
            *("https://app.example.com, https://app.example.com", "https://app.example.com https://a.test"),
            *("https://app.example.com\u212a", "https://app_example.com", "https://[app.example.com]"),
        ],
    ),
    "https://app.example.com": (
        ["https://app.example.com", "https://app.example.com:443", "HTTPS://App.Example.com"],
        ["http://app.example.com", "https://app.example.com:8443", "wss://app.example.com"],
    ),
    "https://app.example.com/": (["https://app.example.com"], ["https://app.example.com/"]),
    "localhost:3000": (
        ["http://localhost:3000", "https://localhost:3000"],
        ["http://localhost", "http://localhost:30000", "http://localhost:300"],
    ),
    "app.example.com:443": (["https://app.example.com"], ["http://app.example.com"]),
    "http://localhost:*": (
        ["http://localhost", "http://localhost:1", "http://localhost:65535"],
        ["https://localhost:1", "http://localhost.evil.test:1"],
    ),
    "*:3000": (["http://any.test:3000"], ["http://any.test", "null"]),
    "https://*": (["https://any.test"], ["http://any.test", "https://any.test:8443", "null"]),
    "*.example.com": (
        ["https://a.example.com", "https://a.b.example.com"],
        [
            *(
                "https://example.com",
                "https://.example.com",
                "https://notexample.com",
                "https://a..example.com",
            ),
            *("https://a.example.com.evil.test", "https://a.exampleXcom"),
        ],
    ),
    "https://*.example.com:8443": (["https://a.example.com:8443"], ["https://a.example.com"]),
    "preview-*.example.com": (
        ["https://preview-7.example.com", "https://preview-.example.com"],
        [
            *("https://preview.example.com", "https://xpreview-7.example.com", "https://preview-7.evil.test"),
            *(
                "https://preview-7.evil.example.com",
                "https://preview-7example.com",
                "https://preview-7.example.comx",
            ),
        ],
    ),
    "pr-*-of-*-app.example.com": (
        ["https://pr-1-of-2-app.example.com", "https://pr--of--app.example.com"],
        ["https://pr-1-app.example.com", "https://pr-of-app.example.com", "https://pr-1-of-app.example.com"],
    ),
    "a.*.example.com": (
        ["https://a.b.example.com"],
        ["https://a.example.com", "https://a.b.c.example.com"],
    ),
    "*.dev-*.example.com": (
        ["https://a.b.dev-1.example.com"],
        ["https://dev-1.example.com", "https://a.dev.example.com"],
    ),
    "app-*.test": (["http://app-1.test"], ["http://app-1.test.evil", "http://other.test"]),
    "*.test": (["http://a.test", "http://a.b.test"], ["http://test"]),
    "192.168.1.*": (
        ["http://192.168.1.5", "http://192.168.1.50:8000"],
        [
            "http://192.168.1.evil",
            "http://192.168.1.5.evil.test",
            "http://192.168.2.5",
            "http://192.168.1.999",
        ],
    ),
    "*.168.1.2": (["http://192.168.1.2"], ["http://a.b.168.1.2", "http://a.168.1.2"]),
    "127.0.0.1": (["http://127.0.0.1:8080"], ["http://127.0.0.1.evil.test", "http://127.0.0.10"]),
    "::1": (
        ["http://[::1]", "http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]"],
        ["http://[::2]", "http://::1"],
    ),
    "[::1]:8080": (["http://[::1]:8080"], ["http://[::1]", "http://[x]:8080"]),
    "http://[0::1]": (["http://[::1]"], ["https://[::1]"]),
    "Bücher.example": (
        ["https://xn--bcher-kva.example"],
        ["https://bücher.example", "https://bucher.example"],
    ),
    "xn--bcher-kva.example": (["https://xn--bcher-kva.example"], []),
    "my_app.local": (["http://my_app.local"], ["http://my-app.local"]),
}
CASES = [
    (pattern, origin, allowed)
    for pattern, both in MEANINGS.items()
    for allowed, listed in zip((True, False), both, strict=True)
    for origin in listed
]


@pytest.mark.parametrize(("pattern", "origin", "allowed"), CASES)
def test_what_a_pattern_allows(pattern, origin, allowed):
    assert Origins([pattern]).allow(origin) == allowed


REFUSED = [
    *(
        "",
        " ",
        "app example.com",
        "app.example.com ",
        "a.test,b.test",
        "https://",
        "https:///",
        "https://app/x",
    ),
    *(
        "//app.example.com",
        "app.example.com//",
        "ann@app.example.com",
        "app.example.com?x",
        "app.example.com#",
    ),
    *(
        "app.example.com:x",
        "app.example.com:",
        "app.example.com:0",
        "app.example.com:65536",
        "https://a:123456",
    ),
    *("null", "NULL", "[::1", "[x]", "::x:1", "http://::1", ".example.com", "example.com.", "a..b", "a" * 64),
    *("example.*", "*.*", "https://*.*", "app.example.c*m", "*example.com", "**.com", "http://*example.com"),
    *(
        "faß.example",
        "bü*.example",
        "bücher。example",
        "\u200d.example",
        "^app\\.example\\.com$",
        "http*://a.test",
    ),
]


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_that_could_never_match_or_would_match_strangers_is_refused(pattern):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        Origins(["app.example.com", pattern])
    assert repr(pattern)[:20].lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_the_line_names_what_was_meant():
    with pytest.raises(ValueError, match=r"expected '\*\.example\.com'"):
        Origins(["*example.com"])


@pytest.mark.parametrize("pattern", ["app.example.com", "*.example.com", "localhost:3000"])
def test_a_scheme_can_be_demanded(pattern):
    with pytest.raises(ValueError, match="expected a scheme"):
        Origins([pattern], scheme=True)
    assert Origins([f"https://{pattern}", "*"], scheme=True).any


def test_an_origin_without_bound_is_not_looked_at():
    assert Origins(["*.a.test"]).allow(f"http://{'b.' * 100}a.test")
    assert not Origins(["*.a.test"]).allow(f"http://{'b.' * (MAX_ORIGIN // 2)}a.test")


def test_an_application_names_its_mistake():
    with pytest.raises(ValueError, match=r"^allowed_origins: 'a b'"):
        App(id="1", key="k", secret="s", allowed_origins=("a b",))


LABEL = st.text("ab-7", min_size=1, max_size=4).map(lambda text: f"x{text}x")
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join)


@given(HOST, HOST, st.text("abx.-:/@7[]*", max_size=8))
def test_a_name_opens_only_itself(name, other, strange):
    allowed = Origins([name])
    assert allowed.allow(f"https://{name}:7")
    assert allowed.allow(f"https://{other}") == (name == other)
    for origin in (f"https://{strange}{name}", f"https://{name}{strange}"):
        host = origin.removeprefix("https://").partition(":")[0]
        assert not allowed.allow(origin) or host == name


@given(HOST, st.text(max_size=12))
def test_what_stands_before_a_wildcard_is_labels(name, text):
    if Origins([f"*.{name}"]).allow(f"https://{text}.{name}"):
        assert all(text.split("."))
        assert not set(text) & set("/:@?#[]* ")


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_one_line(text):
    try:
        made = Origins([text])
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        lines = ["fine"]
        assert "*" in text or not made.allow("http://evil.invalid")
    assert len(lines) == 1
