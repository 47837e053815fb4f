// A server of npm's `ws` for test_ringload.py: /echo answers, /broadcast sends to everybody on the path.
// Prints its URL once it listens; ends by SIGTERM.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 1024 });
const listeners = new Set();

server.on('connection', (socket, request) => {
  // A reset is an error here; it is the client's affair.
  socket.on('error', () => {});
  if (request.url === '/echo') {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    return;
  }
  listeners.add(socket);
  socket.on('close', () => listeners.delete(socket));
  socket.on('message', (data, isBinary) => {
    for (const listener of listeners) listener.send(data, { binary: isBinary });
  });
});
server.on('listening', () => console.log(`ws://127.0.0.1:${server.address().port}`));
process.on('SIGTERM', () => process.exit(0));
