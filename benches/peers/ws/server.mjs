// The peer on ws, on Node.
//
// A socket is corked by the first message that goes out, and uncorked when the handlers of all that was read have run:
// answers to messages that came together leave together. Text stays bytes, as ws hands it out.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const LISTEN_BACKLOG = 4096;
const MESSAGE_BYTES_MAX = 64 << 20;

const [flag, address] = process.argv.slice(2);
const [, host, port] = address?.match(/^(.+):(\d+)$/) ?? [];
if (flag !== "--listen" || !host) {
  console.error("usage: --listen ADDRESS:PORT");
  process.exit(2);
}

const upgrades = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: MESSAGE_BYTES_MAX,
});
const members = new Set();

/** A connection, whose writes of one turn leave together. */
class Connection {
  constructor(webSocket, stream) {
    this.webSocket = webSocket;
    this.stream = stream;
    this.corked = false;
    this.uncork = () => {
      this.corked = false;
      stream.uncork();
    };
  }

  send(data, binary) {
    if (!this.corked) {
      this.corked = true;
      this.stream.cork();
      process.nextTick(this.uncork);
    }
    this.webSocket.send(data, { binary });
  }
}

const server = createServer((_, response) => response.writeHead(404).end());
server.on("upgrade", (request, stream, head) => {
  const isEcho = request.url === "/echo";
  if (!isEcho && !request.url.startsWith("/ws")) {
    stream.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return;
  }
  upgrades.handleUpgrade(request, stream, head, (webSocket) => {
    const connection = new Connection(webSocket, stream);
    // How a connection ends is no matter here.
    webSocket.on("error", () => {});
    if (isEcho) {
      webSocket.on("message", (data, binary) => connection.send(data, binary));
      return;
    }
    members.add(connection);
    webSocket.on("close", () => members.delete(connection));
    webSocket.on("message", (data, binary) => {
      for (const member of members) member.send(data, binary);
    });
  });
});
server.listen({ host, port: Number(port), backlog: LISTEN_BACKLOG }, () => {
  console.log(`listening on ${server.address().address}:${server.address().port}`);
});
