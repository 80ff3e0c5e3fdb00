"""The bench's own HTTP client against a server that answers in pieces and hangs up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.bench.drive import drive, request

pytestmark = pytest.mark.integration

Answering = Callable[[socket.socket, int], None]
"""Answers the nth request of a connection."""


@contextmanager
def server(answering: Answering) -> Iterator[int]:
    """A server on loopback, its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            said, number = b"", 0
            while True:
                head, found, rest = said.partition(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0] or 0) if found else 0
                if not found or len(rest) < length:
                    data = connection.recv(65_536)
                    if not data:
                        return
                    said += data
                    continue
                said = rest[length:]
                number += 1
                try:
                    answering(connection, number)
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def in_pieces(connection: socket.socket, _number: int) -> None:
    for piece in (b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 4\r\n\r\n", b"do", b"ne"):
        connection.sendall(piece)
        time.sleep(0.001)


def test_every_request_is_answered_once_whatever_its_size() -> None:
    requests = [request(b"x" * size, "key") for size in (1, 10, 5_000_000, 0, 300_000)] * 4
    with server(in_pieces) as port:
        driven = drive(port, requests, 3)
    assert driven.answers == [(200, b"done")] * len(requests)
    assert len(driven.latencies_ms) == len(requests)
    assert driven.broken == 0


def test_a_connection_that_is_closed_is_counted_and_made_anew() -> None:
    def hang_up_at_the_second(connection: socket.socket, number: int) -> None:
        if number == 2:
            connection.shutdown(socket.SHUT_RDWR)
            raise OSError
        in_pieces(connection, number)

    with server(hang_up_at_the_second) as port:
        driven = drive(port, [request(b"x", "key")] * 10, 1)
    assert len(driven.answers) == driven.broken == 5


def test_an_endless_supply_ends_at_the_time_given() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield request(b"x", "key")

    with server(in_pieces) as port:
        driven = drive(port, endless(), 2, until=time.perf_counter() + 0.1)
    assert driven.answers
