"""Redaction: what goes, what stays, and that no text makes it slow."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubscope import redact
from hubscope.redact import REDACTED, is_secret_name, redact_json, redact_text, suspects, suspicious

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc+/=\n-----END RSA PRIVATE KEY-----"


def letters(count: int) -> str:
    return ("Zx9Qw3Er7Ty1Ui5Op" * 20)[:count]


GOES = [
    # text, the secret in it, what stays around it
    ("Authorization: Bearer abc.def-123", "abc.def-123", "Authorization: Bearer [redacted]"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz", "authorization: Basic [redacted]"),
    ('Proxy-Authorization: Digest username="x", response=abcdef', "abcdef", None),
    ("got {'Authorization': 'Bearer verysecret'}", "verysecret", "got {'Authorization': 'Bearer [redacted]'}"),
    ("Cookie: session=abc123; theme=dark\r\nHost: x", "abc123", "Cookie: [redacted]\r\nHost: x"),
    ("Set-Cookie: sid=31d4d96e407aad42; HttpOnly", "31d4d96e407aad42", None),
    ("X-Api-Key: abcd1234", "abcd1234", "X-Api-Key: [redacted]"),
    ("X-Amz-Security-Token: FwoGZXIvYXdzEBYaDH", "FwoGZXIvYXdzEBYaDH", None),
    ("sent bearer 31d4d96e407aad42 to x", "31d4d96e407aad42", "sent bearer [redacted] to x"),
    ("postgresql://user:p%40ss@db:5432/app", "p%40ss", "postgresql://user:[redacted]@db:5432/app"),
    ("postgres://u:p@ss@h:5/db refused", "p@ss", "postgres://u:[redacted]@h:5/db refused"),
    ("redis://:hunter2@cache:6379/0", "hunter2", "redis://:[redacted]@cache:6379/0"),
    (
        "https://abcdefghijklmnopqrstuvwxyz@github.com/x",
        "abcdefghijklmnopqrstuvwxyz",
        "https://[redacted]@github.com/x",
    ),
    ("GET https://h/p?a=1&access_token=abc&b=2", "abc", "GET https://h/p?a=1&access_token=[redacted]&b=2"),
    ("https://h/p?sv=2020&sig=abc%2Bdef%3D", "abc%2Bdef%3D", "https://h/p?sv=2020&sig=[redacted]"),
    ("https://b.s3.amazonaws.com/k?X-Amz-Signature=fe5f80&X-Amz-Date=20260101", "fe5f80", None),
    ("https://maps/api?key=" + letters(39), letters(39), "https://maps/api?key=[redacted]"),
    ("Server=db;Uid=sa;Pwd=hunter2;", "hunter2", "Server=db;Uid=sa;Pwd=[redacted];"),
    ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc123+/==;X=1", "abc123+/==", None),
    ("mongodb+srv://app:s3cr3t@cluster0.example.net/db", "s3cr3t", None),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "wJalr", None),
    ("PGPASSWORD=hunter2 psql", "hunter2", "PGPASSWORD=[redacted] psql"),
    ("psql 'host=x user=y password=z1'", "z1", "psql 'host=x user=y password=[redacted]'"),
    ("password=hunter2 in line 3", "hunter2", "password=[redacted] in line 3"),
    ("password=$ecret1", "$ecret1", "password=[redacted]"),
    ('DB_PASSWORD="my long pass phrase" x', "my long pass phrase", 'DB_PASSWORD="[redacted]" x'),
    ("password: hunter2", "hunter2", "password: [redacted]"),
    ('password: "open sesame"', "open sesame", 'password: "[redacted]"'),
    ("client_secret: abcdef123", "abcdef123", "client_secret: [redacted]"),
    ('{"password": "x y"}', "x y", '{"password": "[redacted]"}'),
    (r'"{\"api_key\":\"abc\"}"', "abc", r'"{\"api_key\":\"[redacted]\"}"'),
    ("{'refresh_token': 'abc'}", "abc", "{'refresh_token': '[redacted]'}"),
    ("run --token hunter22 --verbose", "hunter22", "run --token [redacted] --verbose"),
    ("run --db-password=hunter22", "hunter22", "run --db-password=[redacted]"),
    (f"jwt {JWT}.", JWT, None),
    (PEM + " tail", "MIIEowIBAAKCAQEA", "-----BEGIN RSA PRIVATE KEY-----[redacted] tail"),
    (PEM[:60], "MIIEowIBAAKCAQEA", None),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNz\\n-----END OPENSSH PRIVATE KEY-----", "b3BlbnNz", None),
    *(
        (f"using {prefix}{secret} now", prefix + secret, "using [redacted] now")
        for prefix, secret in (
            ("AKIA", "IOSFODNN7EXAMPLE"),
            ("AIza", letters(35)),
            ("ya29.", letters(60)),
            ("ghp_", letters(36)),
            ("gho_", letters(36)),
            ("github_pat_", letters(60)),
            ("glpat-", letters(20)),
            ("xoxb-", "123456789012-" + letters(24)),
            ("sk-", letters(48)),
            ("sk-proj-", letters(48)),
            ("sk-ant-api03-", letters(60)),
            ("sk_live_", letters(24)),
            ("npm_", letters(36)),
            ("hf_", letters(34)),
            ("pypi-", letters(100)),
            ("SG.", letters(22) + "." + letters(43)),
            ("hsk_", "k3y1d_" + letters(32)),
        )
    ),
    ("https://hooks.slack.com/services/T000/B000/XXXXXXXX", "T000/B000/XXXXXXXX", None),
]

STAYS = [
    "/home/alice/projects/secret-santa/token_parser.py",
    "C:\\Users\\alice\\keys\\public.txt",
    "0192c7f2-1111-7222-8333-444455556666",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "SyntaxError: Unexpected token: }",
    "Unexpected token '<', \"<!DOCTYPE \"... is not valid JSON",
    "Invalid token: expected ')' after argument list",
    "Bearer token is missing",
    "bearer authentication required",
    "token_type=Bearer expires_in=3600",
    "error: password authentication failed for user bob",
    "/etc/ssl/private.key not found",
    "GET /api/tokens/123 404",
    "Basic authentication is disabled",
    "password: must be at least 8 characters long",
    "password is required",
    "password=None, token=null",
    "def login(user, password=None, token=None): ...",
    "export TOKEN=$GITHUB_TOKEN",
    "max_tokens=100, total_tokens: 5123",
    "next_token=abc&page_token=def",
    "nextPageToken=abc",
    "KeyError: 'password'",
    "the key=value form",
    "https://example.com/search?q=token&key=name",
    "https://example.com:8443/path/@scope/pkg",
    "ssh://git@github.com/org/repo.git",
    "mail bob@example.com about https://example.com/a",
    "http://[::1]:3401/v1/events",
    "passed 12 of 13, bypass the compass passage",
    "the author authored an authority",
    "primary key violates constraint tool_calls_pkey",
    "monkey=banana turkey: roast",
    "task-runner sk-short risk-assessment disk_usage",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE alice@laptop",
    "cookie: none set",
    "authorization failed",
    "Authorization header missing",
    "permission denied for secret",
    "2026-11-21T20:00:00.123Z level=info msg=started",
    "Zażółć gęślą jaźń, 秘密ではない",
    "",
]


@pytest.mark.parametrize(("text", "secret", "left"), GOES, ids=[text[:40] for text, _, _ in GOES])
def test_a_secret_in_text_goes(text: str, secret: str, left: str | None) -> None:
    clean = redact_text(text)
    assert secret not in clean
    assert REDACTED in clean
    assert left is None or clean == left
    assert redact_text(clean) == clean


@pytest.mark.parametrize("text", STAYS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text
    document = json.dumps({"note": text, "list": [text]})
    assert redact_json(document) == document


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"password": "x"}, {"password": REDACTED}),
        ({"userPassword": "x", "API-Key": "y"}, {"userPassword": REDACTED, "API-Key": REDACTED}),
        ({"pin": 1, "password": 1234}, {"pin": 1, "password": REDACTED}),
        ({"token": {"id": 1, "ok": True, "of": None}}, {"token": {"id": REDACTED, "ok": True, "of": None}}),
        ({"secrets": ["a", ["b"]]}, {"secrets": [REDACTED, [REDACTED]]}),
        ({"password": ""}, {"password": ""}),
        ({"has_password": True, "password": None}, {"has_password": True, "password": None}),
        ({"h": {"Authorization": "abc", "Accept": "*/*"}}, {"h": {"Authorization": REDACTED, "Accept": "*/*"}}),
        ({"headers": {"Cookie": "a=b"}}, {"headers": {"Cookie": REDACTED}}),
        ([{"name": "Authorization", "value": "abc"}], [{"name": "Authorization", "value": REDACTED}]),
        ([{"value": "abc", "name": "DB_PASSWORD"}], [{"value": REDACTED, "name": "DB_PASSWORD"}]),
        ([{"value": "abc", "name": "colour"}, "pwd=1"], [{"value": "abc", "name": "colour"}, "pwd=[redacted]"]),
        ({"args": ["--token", "abc", "-v"]}, {"args": ["--token", REDACTED, "-v"]}),
        ({"args": ["--token", "--password"]}, {"args": ["--token", "--password"]}),
        ({"url": "http://a:b@c/"}, {"url": "http://a:[redacted]@c/"}),
        ({"text": 'say "password=hunter2"\n'}, {"text": 'say "password=[redacted]"\n'}),
        ({"body": '{"password": "x"}'}, {"body": '{"password": "[redacted]"}'}),
        ({"after": {"token": "a"}, "plain": "b"}, {"after": {"token": REDACTED}, "plain": "b"}),
        ({"access_token": "x", "plain": ["b", 1]}, {"access_token": REDACTED, "plain": ["b", 1]}),
    ],
)  # fmt: skip
def test_a_secret_in_json_goes_and_its_neighbours_stay(sent: Any, kept: Any) -> None:
    assert json.loads(redact_json(json.dumps(sent))) == kept


@pytest.mark.parametrize(
    "name",
    ["password", "X-Api-Key", "clientSecret", "AWS_SECRET_ACCESS_KEY", "authToken", "refresh_token", "Set-Cookie",
     "private_key", "db.password", "credentials", "GITHUB_TOKEN", "token"],
)  # fmt: skip
def test_a_name_of_a_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["tokens", "max_tokens", "progressToken", "nextPageToken", "continuation_token", "time_to_first_token", "key",
     "primaryKey", "public_key", "cacheKey", "author", "authenticated", "passed", "path", "session_id",
     "password_policy",
     "tokenizer", "secretary", "cookie_count", "tool", "", "秘密"],
)  # fmt: skip
def test_a_name_of_something_else(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        (r'{"p\u0061ssword": "x"}', r'{"p\u0061ssword": "[redacted]"}'),
        (r'{"u": "http:\/\/a:b@c\/"}', '{"u": "http://a:[redacted]@c/"}'),
        (r'{"u": "p\u0061ssword=abc"}', '{"u": "password=[redacted]"}'),
    ],
)
def test_escapes_hide_nothing(document: str, kept: str) -> None:
    assert redact_json(document) == kept


def test_json_keeps_every_byte_that_is_no_secret() -> None:
    document = '{ "big":12345678901234567890123, "f" : 1.10,"e":1E5,\n"t":"\\u00e9\\/","password" :\t"x" , "z":[ ]}'
    assert redact_json(document) == document.replace('"x"', f'"{REDACTED}"')


PIECES = (
    [text for text, _, _ in GOES] + STAYS + [REDACTED, "password", "token", ":", "=", " ", '"', "'", "\\", "Bearer "]
)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=6).map("".join))
@example("Authorization: Bearer [redacted]")
@example('token="[redacted]')
def test_what_was_redacted_once_stays_as_it_is(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.sampled_from(PIECES),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "password", "name", "value", "tokens", "Cookie"]), children, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


def shape(value: Any) -> Any:
    match value:
        case dict():
            return {name: shape(below) for name, below in value.items()}
        case list():
            return [shape(below) for below in value]
        case _:
            return ...


@given(JSON_VALUES)
def test_json_keeps_its_structure_and_is_redacted_once(value: Any) -> None:
    once = redact_json(json.dumps(value))
    assert shape(json.loads(once)) == shape(value)
    assert redact_json(once) == once


@given(st.lists(JSON_VALUES, max_size=8), st.booleans())
def test_a_look_over_many_documents_finds_each_that_has_a_secret(values: list[Any], ascii_only: bool) -> None:
    documents = [json.dumps(value, ensure_ascii=ascii_only, indent=len(values) % 2 or None) for value in values]
    changed = {at for at, document in enumerate(documents) if redact_json(document) != document}
    assert changed <= set(suspects(documents))


def test_a_look_over_many_documents_leaves_plain_ones_alone() -> None:
    assert list(suspects(['{"model": "large"}', '{"password": "x"}', "", '{"a": "\\u00e9"}', "{}"])) == [1, 3]


@given(st.sampled_from(GOES), st.text(max_size=20))
def test_the_cheap_look_misses_nothing(case: tuple[str, str, str | None], around: str) -> None:
    assert suspicious(f"{around} {case[0]} {around}")


def repeats(tree: Any) -> list[tuple[Any, int]]:
    """Every repetition in a parsed pattern: (kind, most)."""
    found = []
    for node, argument in tree:
        if str(node) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            found.append((str(node), int(argument[1])))
        below = argument if isinstance(argument, tuple | list) else [argument]
        for one in below:
            if isinstance(one, re._parser.SubPattern):  # type: ignore[attr-defined]
                found += repeats(one)
            elif isinstance(one, list):
                for branch in one:
                    if isinstance(branch, re._parser.SubPattern):  # type: ignore[attr-defined]
                        found += repeats(branch)
    return found


PATTERNS = {name: value for name, value in vars(redact).items() if isinstance(value, re.Pattern)}


@pytest.mark.parametrize("name", sorted(PATTERNS.keys() - {"_NOT_ALNUM", "_SUSPECT"}))
def test_every_repetition_is_bounded_or_gives_nothing_back(name: str) -> None:
    tree = re._parser.parse(PATTERNS[name].pattern, PATTERNS[name].flags & ~re.UNICODE)  # type: ignore[attr-defined]
    endless = [kind for kind, most in repeats(tree) if most > 10_000 and kind != "POSSESSIVE_REPEAT"]
    assert endless == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["://", "://a:", "a@", "eyJ", "-eyJ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "password", "password=",
     "token: ", 'password: "', "authorization: ", "bearer ", "basic a", "--token ", "?sig=", "x-", "x-a-", "a_", "1",
     "\\", '"', "sk-a", "cookie: a", " ", "[redacted]", "hsk_", "Cookie: =", "pass: aaaa("],
)  # fmt: skip
def test_no_text_is_slow(piece: str) -> None:
    """A pattern that goes back over what it read would need hours for this, not seconds."""
    text = piece * (300_000 // len(piece))
    redact_text("password=1 " + text)
    redact_json(json.dumps({"password": "1", "a": text, "b": [text[:1000]] * 100}))
