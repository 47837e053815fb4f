"""The peer on picows, on uvloop with aiofastnet, which it takes by itself.

A frame is answered from the callback that it arrives in, by a view of its payload; only fragments are gathered. It
leaves UTF-8 to its users: text is decoded here, as it is inside of the others.
"""

import asyncio
import signal
import sys

import uvloop
from picows import WSCloseCode, WSListener, WSMsgType, ws_create_server

LISTEN_BACKLOG = 4096
MESSAGE_BYTES_MAX = 64 << 20

members = set()


class Messages(WSListener):
    """Frames put together to messages."""

    def __init__(self):
        self.kind = None
        self.fragments = bytearray()

    def on_ws_frame(self, transport, frame):
        kind = frame.msg_type
        if kind in (WSMsgType.TEXT, WSMsgType.BINARY) and frame.fin:
            self.on_whole(transport, kind, frame.get_payload_as_memoryview())
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self.on_fragment(transport, kind, frame)
        elif kind == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_fragment(self, transport, kind, frame):
        if kind != WSMsgType.CONTINUATION:
            self.kind = kind
        self.fragments += frame.get_payload_as_memoryview()
        if len(self.fragments) > MESSAGE_BYTES_MAX:
            transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
            transport.disconnect()
        elif frame.fin:
            message, self.fragments = self.fragments, bytearray()
            self.on_whole(transport, self.kind, message)

    def on_whole(self, transport, kind, message):
        if kind == WSMsgType.TEXT:
            try:
                str(message, "utf-8")
            except UnicodeDecodeError:
                transport.send_close(WSCloseCode.INVALID_TEXT)
                transport.disconnect()
                return
        self.on_message(transport, kind, message)


class Echo(Messages):
    def on_message(self, transport, kind, message):
        transport.send(kind, message)


class FanOut(Messages):
    def on_ws_connected(self, transport):
        members.add(transport)

    def on_ws_disconnected(self, transport):
        members.discard(transport)

    def on_message(self, transport, kind, message):
        # A send may find that its peer is gone.
        for member in tuple(members):
            member.send(kind, message)


def listener(request):
    path = request.path.decode()
    if path == "/echo":
        return Echo()
    return FanOut() if path.startswith("/ws") else None


async def main():
    if len(sys.argv) != 3 or sys.argv[1] != "--listen":
        sys.exit("usage: --listen ADDRESS:PORT")
    host, port = sys.argv[2].rsplit(":", 1)
    server = await ws_create_server(
        listener, host, int(port), backlog=LISTEN_BACKLOG, max_frame_size=MESSAGE_BYTES_MAX,
        websocket_handshake_timeout=None,
    )
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


# No goodbyes: what is measured is over when we are ended.
signal.signal(signal.SIGINT, signal.SIG_DFL)
uvloop.run(main())
