// What happens on channels, as the application's webhooks tell it. WEBHOOKS_PORT is where they go.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Application, APPS, fresh } from "./application.mjs";
import { until } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };

let app;

before(async () => {
  app = await Application.start(APPS.counted, Number(process.env.WEBHOOKS_PORT));
});

after(() => app.stop());

const of = (channel) => app.webhooks.filter((event) => event.channel === channel);

async function isTold(channel, expected) {
  await until("the webhooks", () => of(channel).length >= expected.length).catch(() => {});
  assert.deepEqual(
    of(channel),
    expected.map(([name, more]) => ({ name, channel, ...more })),
  );
}

test("webhooks tell the life of a presence channel in order", LIMIT, async () => {
  const name = fresh("presence-cache-told-");
  const [ann, ben] = [await app.connect("ann"), await app.connect("ben")];
  await ann.subscribe(name);
  await ben.subscribe(name);
  ben.pusher.channel(name).trigger("client-hi", { x: 1 });
  await until("the client event", () => ann.heard.some(([event]) => event === "client-hi"));
  ann.pusher.unsubscribe(name);
  await ann.settle();
  ben.pusher.unsubscribe(name);
  await ben.settle();
  // Client events of a channel keep their place among its other events.
  const told = { event: "client-hi", data: '{"x":1}', socket_id: ben.socketId, user_id: "ben" };
  await isTold(name, [
    ["channel_occupied"],
    ["member_added", { user_id: "ann" }],
    ["cache_miss"],
    ["member_added", { user_id: "ben" }],
    ["client_event", told],
    ["member_removed", { user_id: "ann" }],
    ["member_removed", { user_id: "ben" }],
    ["channel_vacated"],
  ]);
});

test("webhooks tell how many listen, and that a lost connection has left", LIMIT, async () => {
  const name = fresh("counted-told-");
  const [ann, ben] = [await app.connect(), await app.connect()];
  await ann.subscribe(name);
  // Counts that come close to each other are told as one.
  await ann.hears(
    ["pusher_internal:subscription_succeeded", name, {}],
    ["pusher_internal:subscription_count", name, { subscription_count: 1 }],
  );
  await ben.subscribe(name);
  await ben.hears(
    ["pusher_internal:subscription_succeeded", name, {}],
    ["pusher_internal:subscription_count", name, { subscription_count: 2 }],
  );
  ann.pusher.disconnect();
  ben.pusher.disconnect();
  await isTold(name, [
    ["channel_occupied"],
    ["subscription_count", { subscription_count: 1 }],
    ["subscription_count", { subscription_count: 2 }],
    ["subscription_count", { subscription_count: 1 }],
    ["subscription_count", { subscription_count: 0 }],
    ["channel_vacated"],
  ]);
});
