// The peer on Bun: its own server, and its own publish and subscribe.

import { dlopen, FFIType } from "bun:ffi";
import { readFileSync, readdirSync, readlinkSync } from "node:fs";

// Ours has as many. Bun asks for 512 and has no option for it, so the system is asked once more.
const LISTEN_BACKLOG = 4096;
const MESSAGE_BYTES_MAX = 64 << 20;

function listenAgain(port) {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/self/net/tcp", "utf8").split("\n").map((row) => row.trim().split(/\s+/));
  const listening = rows.find((row) => row[1]?.endsWith(local) && row[3] === "0A");
  const link = `socket:[${listening?.[9]}]`;
  const isOurs = (descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`) === link;
    } catch {
      // The descriptor that the folder was read by.
      return false;
    }
  };
  const descriptor = readdirSync("/proc/self/fd").find(isOurs);
  const signature = { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 };
  const { listen } = dlopen("libc.so.6", { listen: signature }).symbols;
  if (descriptor === undefined || listen(Number(descriptor), LISTEN_BACKLOG) !== 0) {
    throw new Error("the listening socket was not found");
  }
}

const [flag, address] = process.argv.slice(2);
const [, hostname, port] = address?.match(/^(.+):(\d+)$/) ?? [];
if (flag !== "--listen" || !hostname) {
  console.error("usage: --listen ADDRESS:PORT");
  process.exit(2);
}

const server = Bun.serve({
  hostname,
  port: Number(port),
  fetch(request, server) {
    // Whole: to take a URL apart costs as much as the rest of an upgrade.
    const path = request.url.slice(request.url.indexOf("/", "http://".length));
    const isEcho = path === "/echo";
    if (!isEcho && !path.startsWith("/ws")) return new Response(null, { status: 404 });
    if (server.upgrade(request, { data: isEcho })) return undefined;
    return new Response(null, { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: MESSAGE_BYTES_MAX,
    // No timer for idle connections, no pings.
    idleTimeout: 0,
    sendPings: false,
    // Nothing is dropped for a slow reader.
    backpressureLimit: 2 ** 32 - 1,
    closeOnBackpressureLimit: false,
    open(socket) {
      if (!socket.data) socket.subscribe("all");
    },
    message(socket, message) {
      if (socket.data) socket.send(message);
      else server.publish("all", message);
    },
  },
});
listenAgain(server.port);
console.log(`listening on ${server.hostname}:${server.port}`);
