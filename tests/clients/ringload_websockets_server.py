"""A server of Python's `websockets` for test_ringload.py: /echo answers, /broadcast sends to everybody on the path.

Prints its URL once it listens; ends by SIGTERM.
"""

import asyncio
import signal

from websockets.asyncio.server import broadcast, serve

listeners = set()


async def handle(connection):
    if connection.request.path == "/echo":
        async for message in connection:
            await connection.send(message)
    else:
        listeners.add(connection)
        try:
            async for message in connection:
                broadcast(listeners, message)
        finally:
            listeners.discard(connection)


async def main():
    end = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set_result, None)
    async with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await end


asyncio.run(main())
