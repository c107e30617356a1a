"""``.env`` files, by the rules and the own tests of phpdotenv."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.dotenv import DotenvError, parse

VALUES = [
    ("A=bar", "bar"),
    ("A=", ""),
    ("A=   ", ""),
    ("A = bar ", "bar"),
    ("A=bar # comment", "bar"),
    ("A=bar# comment", "bar"),
    ("A=# comment", ""),
    ("A= # comment", ""),
    ("A=secret!@#", "secret!@"),
    ("A='secret!@#'", "secret!@#"),
    ('A="secret!@#"', "secret!@#"),
    ('A="a # b \\" c" # " d', 'a # b " c'),
    ('A="s3$cret"', "s3$cret"),
    ("A=s3$cret", "s3$cret"),
    ("A=abc(1", "abc(1"),
    ("A=abc)&(1", "abc)&(1"),
    ("A=it's", "it's"),
    ('A=it"s', 'it"s'),
    ("A=a&b", "a&b"),
    ("A=a;b|c<d>e", "a;b|c<d>e"),
    ("A=`rm -rf`x", None),
    ('A="`id` $(id) $((1))"', "`id` $(id) $((1))"),
    ("A=`id`", "`id`"),
    ("A=$(id)", "$(id)"),
    ("A=!~*?[]{}", "!~*?[]{}"),
    ("A=\\n\\q", "\\n\\q"),
    ('A="\\n\\t\\r\\f\\v|"', "\n\t\r\f\v|"),
    ('A="\\\\n"', "\\n"),
    ("A='\\\\n'", "\\\\n"),
    ('A="\\$\\"\\\\"', '$"\\'),
    ("A='a\"b'", 'a"b'),
    ('A="a\'b"', "a'b"),
    ("A=base64:abc+/==", "base64:abc+/=="),
    ("A=a=b=c", "a=b=c"),
    ('A="a=b"', "a=b"),
    ('A="x="', "x="),
    ('A=""', ""),
    ("A=''", ""),
    ('A="a  "', "a  "),
    ('A="a\nb"', "a\nb"),
    ('A="a\r\nb"', "a\nb"),
    ('A="\nb" #', "\nb"),
    ('A="a\n"', "a\n"),
    ('A="\n\n"', "\n\n"),
    ('A="a\n  b\\"c\\"\n  d"', 'a\n  b"c"\n  d'),
    ("A='a\nb'", None),
    ('export "A"=bar', "bar"),
    ("export\t'A'=bar", "bar"),
    ("export A=bar", None),
    ("export   'A' = bar", "bar"),
    ('"A"=bar', "bar"),
    ("A=bar\r", "bar"),
    ("\ufeffA=bar", "bar"),
    ("#A=no\n\n  # B=no\nA=bar", "bar"),
    ("A=one\nA=two", "two"),
    ("A=行内支付🚀", "行内支付🚀"),
    ("A=a\u00a0b", "a\u00a0b"),
    ("A=bar baz", None),
    ("A='a' b", None),
    ('A="a"b', None),
    ('A="a', None),
    ("A='a", None),
    ('A="a\nB=c', None),
    ('A="\\', None),
    ('A="\\q"', None),
    ("=x", None),
    ("A!=x", None),
    ('export "A="x', None),
    ("'=x", None),
    ("行=x", None),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_value_is_what_phpdotenv_makes_of_it(text, value):
    if value is None:
        with pytest.raises(DotenvError, match=r"^line [12]: "):
            parse(text, {})
    else:
        assert parse(text, {}) == {"A": value}


NESTED = [
    ("A=Hi\nB=${A}", "Hi"),
    ('A=Hi\nB="${A} ${A}!"', "Hi Hi!"),
    ('A=Hi\nB="{$A} $A"', "{$A} $A"),
    ("A=Hi\nB='${A}'", "${A}"),
    ('A=Hi\nB="\\${A}"', "${A}"),
    ('B="${NONE}"', "${NONE}"),
    ('N.6=x\nB="${N.6}"', "x"),
    ('A=Hi\nC=A\nB="${${C}}"', "Hi"),
    ("A=${B}\nB=x", "x"),
    ("A=foo\nB=${A}\nA=bar", "foo"),
    ("B=${HOME}", "/home/ann"),
    ("HOME=/x\nB=${HOME}", "/home/ann"),
    ("B=$", "$"),
    ("B=a$$${", "a$$${"),
    ("A=Hi\nB=$${A}$", "$Hi$"),
    ("A=$(id)\nB=${A}", "$(id)"),
    ("A='${B2}'\nB=${A}", "${B2}"),
    ("A=\nB=x${A}", "x"),
]


@pytest.mark.parametrize(("text", "value"), NESTED)
def test_references(text, value):
    assert parse(text, {"HOME": "/home/ann"})["B"] == value


def test_a_name_without_a_value_is_taken_back():
    assert parse("A=x\nB=y\nA\nC", {}) == {"B": "y"}


def test_names_may_have_letters_of_any_case_marks_and_numbers():
    assert list(parse("AlbertÅberg=a\nЖ1=b\ne\u0301_.x=c\nexported=d", {})) == [
        "AlbertÅberg",
        "Ж1",
        "e\u0301_.x",
        "exported",
    ]


def test_a_mistake_names_its_line_and_no_value():
    with pytest.raises(DotenvError) as caught:
        parse('# x\nA="1\n2"\n\nSECRET=hush hush\n', {})
    assert str(caught.value).startswith("line 5: ")
    assert "hush" not in str(caught.value)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        found = parse(text, {})
    except DotenvError as error:
        lines = str(error).splitlines()
    else:
        lines = ["read"]
        assert all(found)
    assert len(lines) == 1


@given(
    st.text(st.characters(exclude_characters="\0\r", codec="utf-8")), st.text(st.characters(codec="utf-8"))
)
def test_what_is_quoted_as_laravel_quotes_it_comes_back(value, other):
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    found = parse(f'A="{quoted}"\nZ=1\n', {"Z": other})
    assert found == {"A": value, "Z": "1"}


@given(st.text(st.characters(exclude_characters="\0\r\n'", codec="utf-8")))
def test_single_quotes_change_nothing(value):
    if '="' not in f"='{value}'":
        assert parse(f"A='{value}'", {}) == {"A": value}


def test_many_signs_take_no_time_that_grows_with_their_square():
    assert parse("A=" + "$" * 300_000, {})["A"] == "$" * 300_000
