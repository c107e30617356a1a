// The official server SDK for Node: every call of it.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import PusherServer from "pusher";

import { Application, fresh, HOST, PORT } from "./application.mjs";
import { until } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };

let app;

before(async () => {
  app = await Application.start();
});

afterEach(() => app.disconnect());

after(() => app.stop());

/** Status and JSON of an answer. */
const read = async (response) => [response.status, await response.json()];

const isSignedIn = (person) =>
  until("a sign-in", () => person.pusher.user.serverToUserChannel?.subscribed);

async function signIn(id) {
  const person = await app.connect(id);
  person.pusher.signin();
  await isSignedIn(person);
  person.heard.length = 0;
  return person;
}

/** People on channels, with nothing heard so far. */
async function gather(...channels) {
  const people = [await app.connect("ann"), await app.connect("ben"), await app.connect("ben")];
  for (const person of people) {
    for (const channel of channels) await person.subscribe(channel);
  }
  for (const person of people) {
    await person.settle();
    person.heard.length = 0;
  }
  return people;
}

test("trigger", LIMIT, async () => {
  const [open, room] = [fresh("a=b@c,d.e;f-"), fresh("presence-a-")];
  const [ann, ben] = await gather(open, room);
  assert.deepEqual(await read(await app.sdk.trigger(open, "one", { é: "👋" })), [200, {}]);
  const params = { socket_id: ann.socketId, info: "user_count,subscription_count" };
  assert.deepEqual(await read(await app.sdk.trigger([open, room], "two", "text", params)), [
    200,
    {
      channels: {
        [open]: { subscription_count: 3 },
        [room]: { user_count: 2, subscription_count: 3 },
      },
    },
  ]);
  await ann.hears(["one", open, { é: "👋" }]);
  await ben.hears(["one", open, { é: "👋" }], ["two", open, "text"], ["two", room, "text"]);
});

test("triggerBatch", LIMIT, async () => {
  const [open, room] = [fresh("batch-"), fresh("presence-batch-")];
  const [ann, ben] = await gather(open, room);
  const events = [
    { channel: open, name: "one", data: { n: 1 }, info: "subscription_count" },
    { channel: room, name: "two", data: { n: 2 }, info: "user_count", socket_id: ann.socketId },
    { channel: open, name: "three", data: "text" },
  ];
  assert.deepEqual(await read(await app.sdk.triggerBatch(events)), [
    200,
    { batch: [{ subscription_count: 3 }, { user_count: 2 }, {}] },
  ]);
  assert.deepEqual(await read(await app.sdk.triggerBatch([events[2]])), [200, {}]);
  const [one, two, three] = [
    ["one", open, { n: 1 }],
    ["two", room, { n: 2 }],
    ["three", open, "text"],
  ];
  await ann.hears(one, three, three);
  await until("the batches", () => ben.heard.length >= 4);
  await ben.settle();
  const of = (channel) => ben.heard.filter(([, on]) => on === channel); // order is by channel
  assert.deepEqual([ben.heard.length, of(open), of(room)], [4, [one, three, three], [two]]);
});

test("the channels, one channel, and its users", LIMIT, async () => {
  const mark = fresh("asked-");
  const [open, room] = [mark, `presence-${mark}`];
  await gather(open, room);
  assert.deepEqual(await app.get("/channels", { filter_by_prefix: mark }), {
    channels: { [open]: {} },
  });
  const params = { filter_by_prefix: room, info: "user_count" };
  assert.deepEqual(await app.get("/channels", params), { channels: { [room]: { user_count: 2 } } });
  const { channels } = await app.get("/channels");
  assert.deepEqual([channels[open], channels[room]], [{}, {}]);
  assert.deepEqual(await app.get("/channels", { filter_by_prefix: fresh("no-") }), {
    channels: {},
  });

  assert.deepEqual(await app.get(`/channels/${open}`, { info: "subscription_count" }), {
    occupied: true,
    subscription_count: 3,
  });
  const both = { info: "user_count,subscription_count" };
  assert.deepEqual(await app.get(`/channels/${room}`, both), {
    occupied: true,
    user_count: 2,
    subscription_count: 3,
  });
  assert.deepEqual(await app.get(`/channels/${fresh("no-")}`), { occupied: false });

  const { users } = await app.get(`/channels/${room}/users`);
  assert.deepEqual(users.map(({ id }) => id).toSorted(), ["ann", "ben"]);
  assert.deepEqual(await app.get(`/channels/${fresh("presence-no-")}/users`), { users: [] });
});

test("what a cache channel keeps", LIMIT, async () => {
  const name = fresh("cache-");
  await app.sdk.trigger(name, "kept", { n: 1 });
  const { occupied, cache } = await app.get(`/channels/${name}`, { info: "cache" });
  assert.deepEqual([occupied, cache.data], [false, '{"n":1}']);
  assert.ok(cache.ttl > 1700 && cache.ttl <= 1800, `${cache.ttl} s`);
});

test("sendToUser and terminateUserConnections", LIMIT, async () => {
  const [ann, ben] = [await signIn(fresh("ann-")), await signIn(fresh("ben-"))];
  assert.deepEqual(await read(await app.sdk.sendToUser(ann.id, "hello", { n: 1 })), [200, {}]);
  await ann.hears(["hello", `#server-to-user-${ann.id}`, { n: 1 }]);
  await ben.hears();
  assert.deepEqual(await read(await app.sdk.terminateUserConnections(ann.id)), [200, {}]);
  await until("the end", () => ann.pusher.connection.state === "disconnected");
  await ben.hears();
  assert.equal(ben.pusher.connection.state, "connected");
  assert.deepEqual(await read(await app.sdk.terminateUserConnections(fresh("no-"))), [200, {}]);
});

test("what is wrong is an error of the SDK, with the status", LIMIT, async () => {
  const status = (promise) =>
    promise.then(
      () => 200,
      (error) => error.status,
    );
  const forger = new PusherServer({
    appId: "1",
    key: app.key,
    secret: "x",
    host: HOST,
    port: PORT,
  });
  const stranger = new PusherServer({ appId: "9", key: "no", secret: "x", host: HOST, port: PORT });
  const { key, secret } = app.sdk.config.token;
  const mistaken = new PusherServer({ appId: "9", key, secret, host: HOST, port: PORT });
  assert.deepEqual(
    [
      await status(forger.trigger("a", "e", {})),
      await status(forger.get({ path: "/channels" })),
      await status(stranger.trigger("a", "e", {})),
      await status(mistaken.trigger("a", "e", {})),
      await status(app.sdk.trigger("a", "e", "x".repeat(10_241))),
      await status(app.sdk.trigger("a", "e", "x".repeat(10_240))),
      await status(app.sdk.trigger("a", "pusher:e", {})),
      await status(app.sdk.get({ path: "/channels/a/users" })),
      await status(app.sdk.get({ path: "/channels", params: { info: "user_count" } })),
      await status(app.sdk.get({ path: "/nothing" })),
    ],
    [401, 401, 401, 404, 413, 200, 400, 400, 400, 404],
  );
});
