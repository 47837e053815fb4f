// Headless Chromium on the server's page and on /echo; run by scripts/clients, which starts the server and names
// it in the environment. CHROMIUM names another browser binary than /usr/bin/chromium.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { SIZES, bytesOf, textOf } from './payloads.mjs';

const URL = process.env.TEST_SERVER_URL;
const BOUNDED = { timeout: 60_000 };
const STEP_MS_MAX = 10_000;

let browser;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
    timeout: 30_000,
  });
}, BOUNDED);

after(() => browser?.close(), BOUNDED);

/** The server's page in a context of its own, with what a visitor does there. */
async function openTab(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS_MAX);
  const errors = [];
  page.on('pageerror', (error) => errors.push(error));
  await page.goto(`${URL}/`);
  // The page shows a message's text beside its time and size.
  const received = () => page.locator('#log .received .text').allTextContents();
  return {
    page,
    errors,
    received,
    async state(expected) {
      await page.waitForFunction((text) => document.querySelector('#state').textContent.trim() === text, expected);
    },
    async connect(topic) {
      await page.fill('#topic', topic);
      await page.click('#connect');
      await this.state('connected');
    },
    async send(message) {
      await page.fill('#message', message);
      await page.click('#send');
    },
    /** Waits for as many messages as expected, then insists on exactly these. */
    async assertReceived(expected) {
      await page.waitForFunction(
        (count) => document.querySelectorAll('#log .received').length >= count,
        expected.length,
      );
      assert.deepEqual(await received(), expected);
    },
  };
}

test('what one tab sends arrives in both, either way, and no more after it disconnects', BOUNDED, async (t) => {
  const [one, two] = [await openTab(t), await openTab(t)];
  const topic = `browser-${randomUUID()}`;
  await one.state('disconnected');
  await one.connect(topic);
  await two.connect(topic);

  await one.send('from one: aé€😀');
  await one.assertReceived(['from one: aé€😀']);
  await two.assertReceived(['from one: aé€😀']);

  const markup = '<img src=x onerror="throw new Error()"> & <b>two</b>';
  await two.send(markup);
  await one.assertReceived(['from one: aé€😀', markup]);
  await two.assertReceived(['from one: aé€😀', markup]);

  await one.page.click('#disconnect');
  await one.state('disconnected');
  await two.send('alone');
  await two.assertReceived(['from one: aé€😀', markup, 'alone']);
  assert.deepEqual((await one.received()).filter((text) => text === 'alone'), []);

  await one.connect(topic);
  await two.send('together again');
  await one.page.locator('#log .received', { hasText: 'together again' }).waitFor();
  assert.deepEqual([...one.errors, ...two.errors], []);
});

test('tabs on different topics do not hear each other', BOUNDED, async (t) => {
  const [one, two] = [await openTab(t), await openTab(t)];
  await one.connect(`browser-${randomUUID()}`);
  await two.connect(`browser-${randomUUID()}`);
  await one.send('for one');
  await one.assertReceived(['for one']);
  await two.send('for two');
  await two.assertReceived(['for two']);
});

test("the browser's WebSocket echoes every size as text and binary and closes cleanly", BOUNDED, async (t) => {
  const { page } = await openTab(t);
  const result = await page.evaluate(echoInPage, {
    url: `${URL.replace('http://', 'ws://')}/echo`,
    sizes: SIZES,
    functions: [textOf, bytesOf].map(String),
  });
  assert.deepEqual(result, {
    protocol: '',
    echoed: SIZES.flatMap((size) => [`text ${size} same`, `binary ${size} same`]),
    close: { code: 1000, wasClean: true },
  });
});

/** Runs within the page: it sees nothing of this file but its argument. */
async function echoInPage({ url, sizes, functions }) {
  const [textOf, bytesOf] = functions.map((source) => (0, eval)(`(${source})`));
  const next = (socket, name) =>
    new Promise((resolve, reject) => {
      socket.addEventListener(name, resolve, { once: true });
      if (name !== 'close') socket.addEventListener('close', ({ code }) => reject(new Error(`closed: ${code}`)));
    });
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  await next(socket, 'open');
  const echoed = [];
  for (const size of sizes) {
    const text = textOf(size);
    socket.send(text);
    const textBack = (await next(socket, 'message')).data;
    echoed.push(`text ${new TextEncoder().encode(text).length} ${textBack === text ? 'same' : 'differs'}`);

    const bytes = bytesOf(size);
    socket.send(bytes);
    const bytesBack = new Uint8Array((await next(socket, 'message')).data);
    const same = bytesBack.length === bytes.length && bytesBack.every((byte, index) => byte === bytes[index]);
    echoed.push(`binary ${bytes.length} ${same ? 'same' : 'differs'}`);
  }
  const closed = next(socket, 'close');
  socket.close(1000, 'done');
  const { code, wasClean } = await closed;
  return { protocol: socket.protocol, echoed, close: { code, wasClean } };
}
