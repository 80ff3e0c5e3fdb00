"""The HTTP server against clients that are slow, greedy or ambiguous: raw sockets to the real service."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib
from contextlib import suppress
from typing import Final, cast

import psutil
import pytest

from hubscope.entrypoints import protocol
from hubscope.entrypoints.serve import listen
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.events import tool_call
from tests.integration.entrypoints.served import PATIENCE_S, Serve, code, status
from tests.keys import make_key

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

HEAD: Final = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def posted(*headers: str, body: bytes = b"[]") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{HEAD}{lines}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


# Slow clients


CHUNKED: Final = HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"

SLOW: Final[dict[str, tuple[bytes, int | None, str]]] = {
    "nothing at all": (b"", None, "idle"),
    "an empty line": (b"\r\n", 408, "head"),
    "half a request line": (b"POST /v1/ev", 408, "head"),
    "half a header": (HEAD.encode() + b"x-slow: a", 408, "head"),
    "headers without an end": (HEAD.encode(), 408, "head"),
    "half a body": (HEAD.encode() + b"content-length: 100\r\n\r\n[", 408, "body"),
    "no body": (HEAD.encode() + b"content-length: 100\r\n\r\n", 408, "body"),
    "half a chunk": (CHUNKED + b"64\r\n[", 408, "body"),
    "chunks without an end": (CHUNKED + b"1\r\n[\r\n", 408, "body"),
    "trailers without an end": (
        CHUNKED + b"2\r\n[]\r\n0\r\nx: y\r\n",
        408,
        "body",
    ),
}


@pytest.mark.parametrize(("sent", "expected", "reason"), SLOW.values(), ids=SLOW)
async def test_a_client_that_trickles_is_cut_off(sent: bytes, expected: int | None, reason: str, serve: Serve) -> None:
    """However it goes on: a byte now and then buys no time."""
    async with serve(header_timeout_ms=400, body_timeout_ms=400) as service:
        reader, writer = await service.connect()
        writer.write(sent)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def trickle() -> None:
            # What may follow anywhere: part of a name, a value, a body or a trailer.
            while sent and not reader.at_eof():
                writer.write(b"a" if not sent.endswith(b"\r\n") or b"\r\n\r\n" in sent else b"")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        answer = b""
        # A byte that comes after the end has the kernel throw the answer away; that it was cut off is what counts.
        with suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                answer = await reader.read()
        assert loop.time() - began >= 0.3
        trickling.cancel()
        await asyncio.wait([trickling])
        writer.close()
        assert service.cut(reason) == 1
        if answer:
            assert (status(answer), code(answer)) == (expected, "request_timeout")
            assert b"connection: close" in answer
        assert status(await service.say(posted())) == 200


async def test_an_idle_connection_is_closed(serve: Serve) -> None:
    async with serve(keep_alive_timeout_ms=300) as service:
        reader, writer = await service.connect()
        for _ in range(2):
            writer.write(HEAD.encode() + b"content-length: 2\r\n\r\n[]")
            async with asyncio.timeout(PATIENCE_S):
                assert status(await reader.readuntil(b"\r\n\r\n")) == 200
                await reader.readexactly(len(b'{"accepted":0,"duplicates":0,"rejected":[]}'))
            await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
        assert service.cut("idle") == 1


async def test_a_connection_is_not_idle_forever_when_its_body_comes_after_the_answer(serve: Serve) -> None:
    """The answer is out before the body: the rest of the body is waited for, and then the next request, in time."""
    async with serve(keep_alive_timeout_ms=300, max_body_bytes=1_000) as service:
        reader, writer = await service.connect()
        writer.write(HEAD.encode() + b"content-length: 2000\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert status(await reader.readuntil(b"\r\n\r\n")) == 413
        writer.write(b"x" * 2_000)
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()
        writer.close()
        assert service.cut("idle") == 1


async def test_a_client_that_does_not_read_is_cut_off(serve: Serve) -> None:
    async with serve(write_timeout_ms=300) as service:
        reader, writer = await service.connect(limit=1024)
        request = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while service.cut("unread") == 0:
                    writer.write(request * 10)
                    await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        transport.abort()
        del reader
        assert service.cut("unread") == 1
        assert status(await service.say(posted())) == 200


async def test_a_slow_database_is_not_the_clients_fault(serve: Serve, admin: Connection) -> None:
    """Deadlines are for what the client sends: an answer may take longer than all of them."""
    async with serve(header_timeout_ms=200, body_timeout_ms=200, keep_alive_timeout_ms=200) as service:
        async with admin.transaction():
            await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
            talking = asyncio.create_task(service.say(posted(body=json.dumps([tool_call()]).encode())))
            await asyncio.sleep(0.8)
        answer = await talking
    assert (status(answer), b'"accepted":1' in answer) == (200, True)


# Too much


async def test_a_connection_too_many_is_told_and_closed(serve: Serve) -> None:
    async with serve(max_connections=3) as service:
        held_open = [await service.connect() for _ in range(3)]
        await asyncio.sleep(0.05)
        answer = await service.say(b"")
        assert (status(answer), code(answer)) == (503, "overloaded")
        assert b"retry-after: 1" in answer
        for _, writer in held_open:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(PATIENCE_S):
            while status(await service.say(posted())) != 200:  # noqa: ASYNC110 (it notices in time)
                await asyncio.sleep(0.02)


LARGE_HEADS: Final[dict[str, list[bytes]]] = {
    "one field": [HEAD.encode(), b"x: " + b"a" * 5_000, b"\r\n\r\n"],
    "a field without an end": [HEAD.encode(), b"x: ", *[b"a" * 500] * 10],
    "a name without an end": [HEAD.encode(), *[b"a" * 500] * 10],
    "many fields": [HEAD.encode(), *[b"x: y\r\n"] * 1_000, b"\r\n"],
    "a path": [b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
    "a query": [b"GET /livez?" + b"a" * 5_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
    "trailers": [CHUNKED + b"2\r\n[]\r\n0\r\n", *[b"x: y\r\n"] * 1_000],
}


@pytest.mark.parametrize("parts", LARGE_HEADS.values(), ids=LARGE_HEADS)
async def test_a_head_over_the_limit_is_refused(parts: list[bytes], serve: Serve) -> None:
    async with serve(max_header_bytes=4_096) as service:
        answer = await service.say(*parts)
        assert (status(answer), code(answer)) == (431, "head_too_large")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["limit_bytes"] == 4_096
        assert status(await service.say(posted())) == 200


async def test_bodies_under_way_are_bounded_together(serve: Serve) -> None:
    async with serve(max_buffered_bytes=3_500, max_body_bytes=2_000) as service:
        waiting = []
        for _ in range(2):
            reader, writer = await service.connect()
            writer.write(HEAD.encode() + b"content-length: 2000\r\n\r\n" + b" " * 1_400)
            waiting.append((reader, writer))
        endpoint_full = posted(body=b" " * 1_000 + b"[]")
        async with asyncio.timeout(PATIENCE_S):
            while status(answer := await service.say(endpoint_full)) == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (status(answer), code(answer)) == (503, "overloaded")
        for reader, writer in waiting:
            writer.write(b" " * 598 + b"[]")
            async with asyncio.timeout(PATIENCE_S):
                assert status(await reader.readuntil(b"\r\n\r\n")) == 200
            writer.close()
        assert status(await service.say(endpoint_full)) == 200


async def test_a_gzip_bomb_costs_its_limit_and_no_more(serve: Serve) -> None:
    """2 GiB of zeros in 2 MiB, ten times at once."""
    press = zlib.compressobj(9, wbits=31)
    block = b"\0" * 2**24
    bomb = b"".join(press.compress(block) for _ in range(128)) + press.flush()
    assert len(bomb) < 4 * 2**20
    async with serve(max_decoded_bytes=2**20) as service:
        before = psutil.Process().memory_info().rss
        answers = await asyncio.gather(*(service.say(posted("content-encoding: gzip", body=bomb)) for _ in range(10)))
        assert {status(answer) for answer in answers} == {413}
        assert psutil.Process().memory_info().rss - before < 150 * 2**20
        small = gzip.compress(b"[]")
        assert status(await service.say(posted("content-encoding: gzip", body=small))) == 200


# Ambiguous requests


AMBIGUOUS: Final[dict[str, str]] = {
    "length and chunks": HEAD + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + "content-length: 2\r\ncontent-length: 4\r\n\r\n[]  ",
    "the same length twice": HEAD + "content-length: 2\r\ncontent-length: 2\r\n\r\n[]",
    "a list of lengths": HEAD + "content-length: 2, 2\r\n\r\n[]",
    "a signed length": HEAD + "content-length: +2\r\n\r\n[]",
    "a negative length": HEAD + "content-length: -2\r\n\r\n[]",
    "a length in hexadecimal": HEAD + "content-length: 0x2\r\n\r\n[]",
    "a length beyond numbers": HEAD + "content-length: 99999999999999999999\r\n\r\n[]",
    "chunks twice": HEAD + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and another coding": HEAD + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity coding": HEAD + "transfer-encoding: identity\r\ncontent-length: 2\r\n\r\n[]",
    "a coding that is none": HEAD + "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding with a vertical tab": HEAD + "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": HEAD.replace("1.1", "1.0") + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + "content-length : 2\r\n\r\n[]",
    "a folded header": HEAD + "x: a\r\n b\r\ncontent-length: 2\r\n\r\n[]",
    "bare line feeds": HEAD.replace("\r\n", "\n") + "content-length: 2\n\n[]",
    "a carriage return in a value": HEAD + "x: a\rcontent-length: 5\r\n\r\n",
    "a NUL in a value": HEAD + "x: a\0b\r\ncontent-length: 2\r\n\r\n[]",
    "a chunk length with a sign": HEAD + "transfer-encoding: chunked\r\n\r\n+2\r\n[]\r\n0\r\n\r\n",
    "a chunk length beyond numbers": HEAD + "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n[]\r\n0\r\n\r\n",
    "no host": "POST /v1/events HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]",
    "two hosts": HEAD + "host: localhost\r\ncontent-length: 2\r\n\r\n[]",
    "a target with a host of its own": HEAD.replace("/v1/", "http://evil.example/v1/") + "content-length: 2\r\n\r\n[]",
    "a target that is a host": "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "HTTP/2 without TLS": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP": "hello\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("request_text", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(request_text: str, serve: Serve) -> None:
    """And whatever comes behind it on the connection is not taken for a request."""
    async with serve(header_timeout_ms=2_000, body_timeout_ms=2_000, keep_alive_timeout_ms=500) as service:
        smuggled = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
        answer = await service.say(request_text, smuggled)
        assert status(answer) == 400
        assert b'"openapi"' not in answer
        assert b'"accepted"' not in answer
        assert status(await service.say(posted())) == 200


async def test_a_trailer_is_not_a_header(serve: Serve, database: str) -> None:
    """A proxy in front looks at headers, not at trailers: a key, a host or an address in one must count for nothing."""
    _, key = await make_key(database)
    chunked = HEAD + "transfer-encoding: chunked\r\nconnection: close\r\n{}\r\n2\r\n[]\r\n0\r\n{}\r\n"
    async with serve() as service:
        assert status(await service.say(chunked.format(f"authorization: Bearer {key}\r\n", ""))) == 200
        answer = await service.say(chunked.format("", f"authorization: Bearer {key}\r\n"))
        assert (status(answer), code(answer)) == (401, "key_required")
    async with serve(loopback_trust="always") as service:
        assert status(await service.say(chunked.format("", "x-forwarded-for: 192.0.2.1\r\nhost: evil\r\n"))) == 200
        assert status(await service.say(chunked.format("x-forwarded-for: 192.0.2.1\r\n", ""))) == 401


async def test_a_websocket_is_not_spoken(serve: Serve) -> None:
    async with serve() as service:
        answer = await service.say(
            "GET /api/v1/analytics HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 101 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("wanted", ["websocket", "h2c"])
async def test_nothing_is_taken_from_a_connection_that_asked_to_become_another(wanted: str, serve: Serve) -> None:
    """It is answered as what it is, and what follows it is not read as requests that nobody has looked at."""
    async with serve(keep_alive_timeout_ms=300) as service:
        upgrade = f"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: {wanted}\r\n\r\n"
        answer = await service.say(upgrade, posted())
        assert status(answer) == 200
        assert b'"accepted"' not in answer


async def test_pipelined_requests_are_answered_in_order_within_their_deadlines(serve: Serve) -> None:
    async with serve(body_timeout_ms=1_000) as service:
        one = HEAD.encode() + b"content-length: 2\r\n\r\n[]"
        answer = await service.say(one * 3 + posted())
        assert answer.count(b"HTTP/1.1 200 OK") == 4


async def test_a_bad_request_behind_a_good_one_does_not_take_its_answer(serve: Serve, admin: Connection) -> None:
    """What was asked first is answered first; then the connection ends without a word about the rest."""
    event = json.dumps([tool_call()]).encode()
    good = HEAD.encode() + f"content-length: {len(event)}\r\n\r\n".encode() + event
    async with serve() as service:
        for bad in (b"GARBAGE\r\n\r\n", HEAD.encode() + b"content-length: 1\r\ncontent-length: 2\r\n\r\n[]"):
            async with admin.transaction():
                await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
                talking = asyncio.create_task(service.say(good + bad))
                await asyncio.sleep(0.2)
            answer = await talking
            assert answer.count(b"HTTP/1.1 ") == 1
            assert (status(answer), b'"accepted":' in answer) == (200, True)


async def test_a_large_body_and_the_start_of_another_request_in_one_piece_are_no_large_head(serve: Serve) -> None:
    body = b" " * 50_000 + b"[]"
    async with serve(max_header_bytes=4_096) as service:
        one = HEAD.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body
        answer = await service.say(one + posted()[:60], posted()[60:])
        assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_refusal_arrives_even_while_its_client_goes_on_sending(serve: Serve) -> None:
    """A connection that is closed with bytes unread is reset and the answer lost: so the rest is read and dropped."""
    async with serve(max_header_bytes=4_096) as service:
        reader, writer = await service.connect()
        writer.write(HEAD.encode() + b"x: " + b"a" * 5_000)
        for _ in range(20):
            writer.write(b"a" * 50_000)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        assert (status(answer), code(answer)) == (431, "head_too_large")


async def test_a_refused_client_that_does_not_hang_up_is_hung_up_on(serve: Serve) -> None:
    async with serve(max_header_bytes=4_096) as service:
        reader, writer = await service.connect()
        writer.write(b"GARBAGE\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert status(await reader.read()) == 400
            with suppress(ConnectionError):
                while True:  # until the service closes its side, too
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(0.05)
        writer.close()


async def test_one_connection_that_cannot_be_closed_does_not_keep_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(header_timeout_ms=300) as service:
        _, stuck = await service.connect()
        await asyncio.sleep(0.05)
        original = protocol._Protocol.close_if_late

        def fail_once(self: protocol._Protocol, now: float) -> None:
            if self.client is not None and self.client[1] == stuck.get_extra_info("sockname")[1]:
                raise RuntimeError("no")
            original(self, now)

        monkeypatch.setattr(protocol._Protocol, "close_if_late", fail_once)
        assert status(await service.say("POST /v1")) == 408
        stuck.close()


async def test_a_request_is_answered_once_even_when_its_body_never_ends(serve: Serve) -> None:
    async with serve(body_timeout_ms=300, max_body_bytes=1_000) as service:
        answer = await service.say(HEAD + "content-length: 2000\r\n\r\nx")
        assert (answer.count(b"HTTP/1.1 "), status(answer)) == (1, 413)
        assert service.cut("body") == 1


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    """Nagle's algorithm is off on the connections that a listener gives: 40 ms an answer otherwise."""
    with listen(Settings.load(port=0)) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
