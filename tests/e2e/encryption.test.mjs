// pusher-js's build for browsers that decrypts, in Chromium: what the SDK encrypted is read there, and
// by nobody else.

import assert from "node:assert/strict";
import { test } from "node:test";

import { fresh } from "./application.mjs";
import { until } from "./legato.mjs";
import { share, Visitor } from "./visitor.mjs";

const LIMIT = { timeout: 180_000 };
const DATA = { text: 'é "quoted" \\ \u2028 👋', list: [1, 2.5, null, true, {}] };

let app;
let browser;

share((...shared) => ([app, browser] = shared));

/** A user's page that listens to a channel: to what its listener is told, and to what was sent. */
async function listen(channel, user = "ann") {
  const visitor = await Visitor.open(browser, app, {
    scripts: [{ path: "node_modules/pusher-js/dist/web/pusher-with-encryption.js" }],
    configure: ([key, options]) => (window.pusher = new Pusher(key, options)),
    options: [app.key, app.options(user)],
  });
  await visitor.run((channel) => {
    pusher.connection.bind("message", (message) => {
      if (message.channel === channel) hear("sent")(message.event, JSON.stringify(message.data));
    });
    pusher.subscribe(channel).bind("e", hear("read"));
  }, channel);
  await visitor.isSubscribed(channel);
  return visitor;
}

for (const kind of ["private-encrypted-", "private-encrypted-cache-"]) {
  test(`${kind} events are encrypted until a listener is told`, LIMIT, async () => {
    const channel = fresh(kind);
    const ann = await listen(channel);
    const isCache = kind.includes("cache-");
    await ann.hears({
      sent: [
        ["pusher_internal:subscription_succeeded", "{}"],
        ...(isCache ? [["pusher:cache_miss", undefined]] : []),
      ],
    });
    await app.sdk.trigger(channel, "e", DATA);
    await app.sdk.trigger(channel, "e", "just text");
    await until("two events", () => ann.run(() => window.heard.read?.length >= 2));
    const sent = await ann.run(() => window.heard.sent.splice(0));
    assert.equal(sent.length, 2);
    for (const [event, data] of sent) {
      assert.equal(event, "e");
      assert.match(data, /^\{"nonce":"[^"]{32}","ciphertext":"[^"]+"\}$/);
    }
    await ann.hears({ sent: [], read: [[DATA], ["just text"]] });
    if (!isCache) return;
    const ben = await listen(channel, "ben"); // who comes later reads the last one
    const heard = await until("the replay", () => ben.run(() => window.heard.read && window.heard));
    assert.deepEqual(heard.read, [["just text"]]);
  });
}

test("an event that another key encrypted is dropped, and no other", LIMIT, async () => {
  const channel = fresh("private-encrypted-");
  const ann = await listen(channel);
  const asked = ann.page.waitForResponse(/\/broadcasting\/auth$/); // whether the key has changed
  await app.encrypting("another").trigger(channel, "e", "unreadable");
  assert.equal((await asked).status(), 200);
  await app.sdk.trigger(channel, "e", "readable");
  await until("an event", () => ann.run(() => window.heard.read));
  await ann.settle();
  assert.deepEqual(await ann.run(() => window.heard.read), [["readable"]]);
});

test("when the master key changes, the new one is asked for", LIMIT, async (t) => {
  const channel = fresh("private-encrypted-");
  const ann = await listen(channel);
  const { sdk } = app;
  t.after(() => (app.sdk = sdk));
  app.sdk = app.encrypting("another");
  for (const data of ["first", "second"]) {
    await app.sdk.trigger(channel, "e", data);
    await until(data, () => ann.run((data) => window.heard.read?.flat().includes(data), data));
  }
  assert.deepEqual(await ann.run(() => window.heard.read), [["first"], ["second"]]);
});
