// The `ws` library as a client; run by scripts/clients, which starts the server and names it in the environment.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { on, once } from 'node:events';
import { test } from 'node:test';
import WebSocket from 'ws';
import { SIZES, bytesOf, textOf } from './payloads.mjs';

const BASE = process.env.TEST_SERVER_URL.replace('http://', 'ws://');
const BOUNDED = { timeout: 20_000 };

/** An open client whose `receive()` gives the next message: a string for text, a Buffer for binary. */
async function openClient(t, path, options) {
  const client = new WebSocket(BASE + path, options);
  t.after(() => client.terminate());
  const messages = on(client, 'message');
  client.receive = async () => {
    const [data, isBinary] = (await messages.next()).value;
    return isBinary ? data : data.toString();
  };
  await once(client, 'open');
  return client;
}

for (const perMessageDeflate of [true, false]) {
  for (const size of SIZES) {
    test(`echo of ${size} bytes, compression ${perMessageDeflate ? 'offered' : 'absent'}`, BOUNDED, async (t) => {
      const client = await openClient(t, '/echo', { perMessageDeflate });
      for (const payload of [textOf(size), Buffer.from(bytesOf(size))]) {
        client.send(payload);
        assert.deepEqual(await client.receive(), payload);
      }
    });
  }
}

test('a ping is answered by a pong with the same payload', BOUNDED, async (t) => {
  const client = await openClient(t, '/echo');
  for (const payload of ['', 'still there?', 'x'.repeat(125)]) {
    const pong = once(client, 'pong');
    client.ping(payload);
    assert.equal((await pong)[0].toString(), payload);
  }
});

test('fragments come back as one message, though they split a character and stand around a ping', BOUNDED, async (t) => {
  const client = await openClient(t, '/echo', { perMessageDeflate: false });
  const whole = Buffer.from(textOf(1000));
  const pong = once(client, 'pong');
  // Byte 2 stands within the two bytes of 'é', byte 8 within the four of '😀'.
  client.send(whole.subarray(0, 2), { binary: false, fin: false });
  client.ping('between');
  client.send(whole.subarray(2, 8), { binary: false, fin: false });
  client.send('', { binary: false, fin: false });
  client.send(whole.subarray(8), { binary: false, fin: true });
  assert.equal((await pong)[0].toString(), 'between');
  assert.equal(await client.receive(), whole.toString());
});

test('pipelined messages come back in order', BOUNDED, async (t) => {
  const client = await openClient(t, '/echo');
  const messages = Array.from({ length: 200 }, (_, index) => `${index} ${'é'.repeat(index)}`);
  for (const message of messages) client.send(message);
  for (const message of messages) assert.equal(await client.receive(), message);
});

test('no subprotocol is selected when none was offered', BOUNDED, async (t) => {
  const client = await openClient(t, '/echo');
  assert.equal(client.protocol, '');
});

test('our close code comes back', BOUNDED, async (t) => {
  for (const code of [1000, 3000]) {
    const client = await openClient(t, '/echo');
    client.close(code, 'bye');
    assert.equal((await once(client, 'close'))[0], code);
  }
});

test('an unknown path is refused with 404', BOUNDED, async () => {
  const client = new WebSocket(`${BASE}/no-such-path`);
  const [request, response] = await once(client, 'unexpected-response');
  assert.equal(response.statusCode, 404);
  request.destroy();
});

test('messages reach the subscribers of their topic and nobody else', BOUNDED, async (t) => {
  const topic = `node-${randomUUID()}`;
  const [atA, atB, atBoth] = [
    await openClient(t, `/ws?topic=${topic}-a`),
    await openClient(t, `/ws?topic=${topic}-b`),
    await openClient(t, `/ws?topic=${topic}-a&topic=${topic}-b`),
  ];
  const assertReceived = async (payload, ...clients) => {
    for (const client of clients) assert.deepEqual(await client.receive(), payload);
  };
  atA.send('to a');
  await assertReceived('to a', atA, atBoth);
  atB.send(Buffer.from('to b'));
  await assertReceived(Buffer.from('to b'), atB, atBoth);
  atBoth.send('to both');
  // What either of them hears next is this: nothing of the other topic came before.
  await assertReceived('to both', atA, atB, atBoth);
});

test('twenty clients of one topic receive every message once and in order', BOUNDED, async (t) => {
  const topic = `node-${randomUUID()}`;
  const clients = await Promise.all(Array.from({ length: 20 }, () => openClient(t, `/ws?topic=${topic}`)));
  const messages = Array.from({ length: 50 }, (_, index) => `message ${index}`);
  for (const message of messages) clients[0].send(message);
  for (const client of clients) {
    for (const message of messages) assert.equal(await client.receive(), message);
  }
});
