"""The peer on websockets: asyncio on uvloop, its C extension, its own broadcast."""

import asyncio
import signal
import sys

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

LISTEN_BACKLOG = 4096
MESSAGE_BYTES_MAX = 64 << 20

members = set()


async def handle(connection):
    path = connection.request.path
    try:
        if path == "/echo":
            async for message in connection:
                await connection.send(message)
        elif path.startswith("/ws"):
            members.add(connection)
            try:
                async for message in connection:
                    broadcast(members, message)
            finally:
                members.discard(connection)
    except ConnectionClosed:
        # How a connection ends is no matter here.
        pass


async def main():
    if len(sys.argv) != 3 or sys.argv[1] != "--listen":
        sys.exit("usage: --listen ADDRESS:PORT")
    host, port = sys.argv[2].rsplit(":", 1)
    server = await serve(
        handle, host, int(port), backlog=LISTEN_BACKLOG, max_size=MESSAGE_BYTES_MAX,
        compression=None, ping_interval=None, open_timeout=None,
    )
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.wait_closed()


# No goodbyes: what is measured is over when we are ended.
signal.signal(signal.SIGINT, signal.SIG_DFL)
uvloop.run(main())
