"""The `websockets` library as a client; run by scripts/clients, which starts the server and names it to the tests."""

import json
import os
import uuid

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from server import Server

SECONDS_MAX = 10
# The bounds of the three length encodings of RFC 6455 §5.2, and a message of many reads.
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
BASE = os.environ["TEST_SERVER_URL"].replace("http://", "ws://")


def open_client(path, base=BASE, **options):
    return connect(
        base + path, proxy=None, max_size=None, open_timeout=SECONDS_MAX, close_timeout=SECONDS_MAX, **options
    )


def receive(client):
    return client.recv(timeout=SECONDS_MAX)


def text_of(size):
    """A text of `size` bytes in UTF-8, with characters of one to four bytes where they fit."""
    characters = "aé€😀"
    count, rest = divmod(size, len(characters.encode()))
    return characters * count + "x" * rest


def bytes_of(size):
    return bytes(index % 251 for index in range(size))


@pytest.fixture
def echo():
    with open_client("/echo") as client:
        yield client


@pytest.fixture
def topic():
    return f"python-{uuid.uuid4().hex}"


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("payload_of", [text_of, bytes_of])
def test_echo_returns_the_same_message_of_the_same_type(payload_of, size, compression):
    payload = payload_of(size)
    with open_client("/echo", compression=compression) as client:
        client.send(payload)
        assert receive(client) == payload


@pytest.mark.parametrize("payload", [b"", b"still there?", bytes(range(125))])
def test_ping_is_answered_by_a_pong_with_the_same_payload(echo, payload):
    # The library resolves a ping only by a pong that carries the ping's payload.
    assert echo.ping(payload).wait(SECONDS_MAX)


@pytest.mark.parametrize("payload_of", [text_of, bytes_of])
def test_fragments_come_back_as_one_message(echo, payload_of):
    fragments = [payload_of(size) for size in (1, 0, 125, 126, 65_536, 0)]
    echo.send(fragments)
    assert receive(echo) == fragments[0][:0].join(fragments)


def test_pipelined_messages_come_back_in_order(echo):
    messages = [f"{index} {'é' * index}" for index in range(200)]
    for message in messages:
        echo.send(message)
    assert [receive(echo) for _ in messages] == messages


def test_an_offered_subprotocol_the_server_does_not_speak_is_not_selected():
    with open_client("/echo", subprotocols=["chat.example"]) as client:
        assert client.subprotocol is None
        client.send("without")
        assert receive(client) == "without"


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_our_close_code_is_echoed(code):
    client = open_client("/echo")
    client.close(code, "bye")
    assert client.protocol.close_rcvd.code == code
    assert client.protocol.close_rcvd_then_sent is False


def test_an_unknown_path_is_refused_with_404():
    with pytest.raises(InvalidStatus) as refused:
        open_client("/no-such-path")
    assert refused.value.response.status_code == 404


def test_messages_reach_the_subscribers_of_their_topic_and_nobody_else(topic):
    a, b = f"{topic}-a", f"{topic}-b"
    with (
        open_client(f"/ws?topic={a}") as at_a,
        open_client(f"/ws?topic={b}") as at_b,
        open_client(f"/ws?topic={a}&topic={b}") as at_both,
    ):
        at_a.send("to a")
        assert [receive(at_a), receive(at_both)] == ["to a", "to a"]
        at_b.send(b"to b \xff")
        assert [receive(at_b), receive(at_both)] == [b"to b \xff", b"to b \xff"]
        at_both.send("to both")
        # What either of them hears next is this: nothing of the other topic came before.
        assert [receive(at_a), receive(at_b), receive(at_both)] == ["to both"] * 3


def test_every_subscriber_receives_a_publishers_messages_in_order(topic):
    messages = [f"{index} {'€' * (index % 50)}" for index in range(200)]
    with open_client(f"/ws?topic={topic}") as publisher, open_client(f"/ws?topic={topic}") as subscriber:
        for message in messages:
            publisher.send(message)
        assert [receive(subscriber) for _ in messages] == messages
        assert [receive(publisher) for _ in messages] == messages


def test_a_client_that_left_is_no_longer_served_and_the_others_are(topic):
    with open_client(f"/ws?topic={topic}") as stays:
        leaves = open_client(f"/ws?topic={topic}")
        leaves.close()
        stays.send("after")
        assert receive(stays) == "after"
        with pytest.raises(ConnectionClosed):
            receive(leaves)


@pytest.mark.parametrize("path", ["/echo", "/ws?topic=ending"])
def test_sigterm_closes_sessions_with_1001_and_ends_the_server_with_code_0(path):
    with Server(json.loads(os.environ["TEST_SERVER_COMMAND"])) as server:
        with open_client(path, base=server.websocket("")) as client:
            client.send("before")
            assert receive(client) == "before"
            server.stop()
            with pytest.raises(ConnectionClosed):
                receive(client)
            assert client.protocol.close_rcvd.code == 1001
