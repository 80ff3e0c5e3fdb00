"""API keys as text: what they look like, which mistakes are noticed, and what is stored of them."""

from __future__ import annotations

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.access.token import ALPHABET, Token, checksum, digest, fingerprint, looks_like_a_key, mint, parse
from hubscope.errors import MalformedKey, MistypedKey

LENGTH = 55
PEPPER = b"a pepper of tests"
tokens = st.builds(mint)


@given(tokens)
def test_a_new_key_can_be_read_back(token: Token) -> None:
    assert re.fullmatch(r"hsk_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}", token.text)
    assert len(token.text) == LENGTH
    assert parse(token.text) == token
    assert looks_like_a_key(token.text)


@given(tokens, st.integers(0, LENGTH - 1), st.sampled_from(ALPHABET + "_- é"))
def test_one_wrong_character_is_noticed_wherever_it_is(token: Token, at: int, wrong: str) -> None:
    text = token.text[:at] + wrong + token.text[at + 1 :]
    if text != token.text:
        with pytest.raises(MistypedKey if text.startswith("hsk_") else MalformedKey):
            parse(text)


@given(tokens, st.integers(4, LENGTH - 2))
def test_two_neighbours_in_the_wrong_order_are_noticed(token: Token, at: int) -> None:
    text = token.text[:at] + token.text[at + 1] + token.text[at] + token.text[at + 2 :]
    if text != token.text:
        with pytest.raises(MistypedKey):
            parse(text)


@given(tokens, st.integers(4, LENGTH - 1))
def test_a_key_that_is_cut_off_is_noticed(token: Token, length: int) -> None:
    with pytest.raises(MistypedKey):
        parse(token.text[:length])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", MalformedKey),
        ("secret", MalformedKey),
        ("HSK_abcdefghijkl_" + "x" * 38, MalformedKey),
        ("hsk_", MistypedKey),
        ("hsk_abcdefghijkl", MistypedKey),
        ("hsk_abcdefghijkl_" + "x" * 38, MistypedKey),
        ("hsk_abcdefghijkl_" + "x" * 38 + "\n", MistypedKey),
        ("hsk_abcdefghijk\u0661_" + "x" * 38, MistypedKey),
        ("hsk_" + "x" * 100_000, MistypedKey),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else value.__name__,
)
def test_what_is_no_key_is_told_apart_from_what_is_a_mistyped_one(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(text)


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    with pytest.raises((MalformedKey, MistypedKey)):
        parse(text)


@given(st.binary(max_size=60))
def test_the_checksum_is_the_crc_in_six_base62_digits(body: bytes) -> None:
    digits = checksum(body.decode("latin-1"))
    number = 0
    for digit in digits:
        number = number * 62 + ALPHABET.index(digit)
    assert len(digits) == 6
    assert number == zlib.crc32(body.decode("latin-1").encode())


def test_a_known_key_keeps_its_form_for_ever() -> None:
    """Keys that are out there must stay valid: neither checksum nor hash may change."""
    text = "hsk_0123456789AB_" + "abcdefghijklmnopqrstuvwxyzABCDEF"
    token = parse(text + checksum(text))
    assert (token.id, token.text[-6:]) == ("0123456789AB", checksum(text))
    assert checksum(text) == KNOWN_CHECKSUM
    assert digest(PEPPER, token).hex() == KNOWN_DIGEST


KNOWN_CHECKSUM = "1tPtgb"
KNOWN_DIGEST = "158ac2909a11f8d16313ab29dd6b1425fc41219e9ebb34b64d268082720bc745"


def test_keys_do_not_repeat_and_use_the_whole_alphabet() -> None:
    texts = [mint().text for _ in range(2_000)]
    assert len({text[4:16] for text in texts}) == len({text[17:49] for text in texts}) == 2_000
    assert set("".join(text[17:49] for text in texts)) == set(ALPHABET)


@given(tokens, tokens)
def test_what_is_stored_depends_on_the_whole_key_and_on_the_pepper(first: Token, second: Token) -> None:
    stored = digest(PEPPER, first)
    assert len(stored) == 32
    assert stored == digest(PEPPER, parse(first.text))
    assert stored != digest(PEPPER, second)
    assert stored != digest(b"another pepper of tests", first)
    assert fingerprint(PEPPER) != fingerprint(b"another pepper of tests")


def test_a_key_does_not_show_its_secret_where_it_is_printed() -> None:
    token = mint()
    assert token.text[17:] not in f"{token} {token!r}"


@pytest.mark.parametrize("url", ["key=hsk_abcdEFGH", "a=1&t=HSK_abcd1234", "x=%20hsk_0000"])
def test_a_key_in_a_url_is_recognised(url: str) -> None:
    assert looks_like_a_key(url)


@pytest.mark.parametrize("url", ["timeRange=24+hours", "q=hsk", "q=hsk_", "tool=hsk_x"])
def test_other_urls_are_not_taken_for_keys(url: str) -> None:
    assert not looks_like_a_key(url)
