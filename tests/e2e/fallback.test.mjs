// A stock pusher-js over HTTP, in Node and in Chromium: each transport alone, and found by itself.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { after, before, test } from "node:test";
import Pusher from "pusher-js";
import PusherServer from "pusher";

import { launch } from "./browser.mjs";
import { LEGATO_URL, SDK_OPTIONS, until } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };
const TRANSPORTS = ["xhr_streaming", "xhr_polling"];
const { hostname, port } = new URL(LEGATO_URL);

const sdk = new PusherServer(SDK_OPTIONS);

const options = (transports, changes) => ({
  cluster: "",
  forceTLS: false,
  wsHost: hostname,
  wsPort: Number(port),
  httpHost: hostname,
  httpPort: Number(port),
  enabledTransports: transports,
  key: "app-key",
  ...changes,
});

/** What a connected client goes through, in Node or in a page: no closure, so that it can be sent there. */
async function visit(Pusher, { key, ...options }, channel, sign) {
  const seen = { states: [], data: [], errors: [] };
  const pusher = new Pusher(key, {
    ...options,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) =>
        sign(socketId, channelName).then((auth) => callback(null, auth), callback),
    },
  });
  pusher.connection.bind("state_change", ({ current }) => seen.states.push(current));
  pusher.connection.bind("error", ({ data, error }) =>
    seen.errors.push((data ?? error?.data)?.code),
  );
  const subscription = pusher.subscribe(channel);
  subscription.bind("e", (data) => seen.data.push(data));
  subscription.bind("client-e", (data) => seen.data.push(data));
  return {
    seen,
    pusher,
    transport: () => pusher.connection.connection.transport.name,
    ready: () => subscription.subscribed,
    whisper: (data) => subscription.trigger("client-e", data),
  };
}

const sign = async (socketId, channel) => sdk.authorizeChannel(socketId, channel);

let names = 0;
const fresh = (prefix) => `${prefix}${process.pid}-${++names}`;

/** A client in this process. */
async function inNode(transports, channel, changes = {}) {
  const client = await visit(Pusher, options(transports, changes), channel, sign);
  return {
    transport: async () => client.transport(),
    ready: async () => client.ready(),
    whisper: async (data) => client.whisper(data),
    seen: async () => client.seen,
    leave: async () => client.pusher.disconnect(),
  };
}

let browser;
let pages;
let proxy;

/** A client in a page of another origin: what it asks for needs a preflight. */
async function inChromium(transports, channel, changes = {}) {
  browser ??= await launch();
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  await page.addScriptTag({ path: "node_modules/pusher-js/dist/web/pusher.js" });
  await page.exposeFunction("sign", sign);
  await page.evaluate(
    async ([visit, options, channel]) => {
      const run = new Function(`return ${visit}`)();
      window.client = await run(window.Pusher, options, channel, window.sign);
    },
    [visit.toString(), options(transports, changes), channel],
  );
  return {
    transport: () => page.evaluate(() => window.client.transport()),
    ready: () => page.evaluate(() => window.client.ready()),
    whisper: (data) => page.evaluate((data) => window.client.whisper(data), data),
    seen: () => page.evaluate(() => window.client.seen),
    leave: () => context.close(),
  };
}

before(async () => {
  pages = http.createServer((_request, response) => {
    response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>x</title>");
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  // What breaks WebSocket in the worst way: the upgrade is never answered.
  proxy = net.createServer((socket) => socket.on("error", () => {}).resume());
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
});

after(async () => {
  await browser?.close();
  proxy.close();
  pages.closeAllConnections();
  await new Promise((resolve) => pages.close(resolve));
});

const counts = async () => (await (await sdk.get({ path: "/connections" })).json()).connections;

const heard = (client, count) =>
  until(`${count} events`, async () => (await client.seen()).data.length >= count);

for (const [where, connect] of Object.entries({ Node: inNode, Chromium: inChromium })) {
  for (const transport of TRANSPORTS) {
    test(`${transport} in ${where}: events and client events`, LIMIT, async () => {
      const channel = fresh("private-");
      const ann = await connect([transport], channel);
      const bob = await connect([transport], channel);
      await until("two subscriptions", async () => (await ann.ready()) && (await bob.ready()));
      assert.equal(await ann.transport(), transport);
      const data = { text: 'é "quoted" \\ \n \u2028 👋', list: [1, 2.5, null] };
      for (let number = 0; number < 5; number += 1) {
        await sdk.trigger(channel, "e", { ...data, number });
      }
      await heard(ann, 5);
      await bob.whisper("hello");
      await heard(ann, 6);
      const { states, errors, data: got } = await ann.seen();
      assert.deepEqual(got, [
        ...Array.from({ length: 5 }, (_, number) => ({ ...data, number })),
        "hello",
      ]);
      assert.deepEqual([states, errors], [["connected"], []]);
      await heard(bob, 5);
      await Promise.all([ann.leave(), bob.leave()]);
    });

    test(`${transport} in ${where}: a megabyte comes whole and in order`, LIMIT, async () => {
      const channel = fresh("private-");
      const ann = await connect([transport], channel);
      await until("a subscription", () => ann.ready());
      const padding = "é👋".repeat(1_600);
      const total = 160;
      for (let first = 0; first < total; first += 10) {
        const batch = Array.from({ length: 10 }, (_, offset) => ({
          channel,
          name: "e",
          data: `${first + offset} ${padding}`,
        }));
        await sdk.triggerBatch(batch);
      }
      await heard(ann, total);
      const { states, data } = await ann.seen();
      assert.deepEqual(
        data.map((text) => text.split(" ")[0]),
        Array.from({ length: total }, (_, number) => `${number}`),
      );
      assert.ok(data.every((text) => text.endsWith(` ${padding}`)));
      assert.deepEqual(states, ["connected"]);
      await ann.leave();
    });

    test(`${transport} in ${where}: an unknown key is refused for good`, LIMIT, async () => {
      const ann = await connect([transport], "x", { key: "nobody" });
      await until("the refusal", async () => (await ann.seen()).states.includes("disconnected"));
      const { errors } = await ann.seen();
      assert.ok(errors.includes(4001), `${errors}`);
      await ann.leave();
    });
  }

  test(`where no WebSocket gets through, ${where} comes over HTTP by itself`, LIMIT, async () => {
    const channel = fresh("private-");
    const ann = await connect(["ws", ...TRANSPORTS], channel, { wsPort: proxy.address().port });
    await until("a subscription", () => ann.ready());
    assert.ok(TRANSPORTS.includes(await ann.transport()));
    await sdk.trigger(channel, "e", 1);
    await heard(ann, 1);
    await ann.leave();
  });
}

test("whoever has left is soon gone from the server", LIMIT, async () => {
  await until("an empty server", async () => (await counts()) === 0);
});
