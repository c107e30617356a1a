// A stock pusher-js in Node against `legato broadcaster`: everything that the protocol offers it.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import Pusher from "pusher-js";

import { Application, APPS, fresh, info, messages } from "./application.mjs";
import { until } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };
const { subscribed, present, added, removed, count, cacheMiss, signedIn, watched } = messages;

let app;

before(async () => {
  app = await Application.start();
});

afterEach(() => app.disconnect());

after(() => app.stop());

/** What the callbacks of a channel get, encrypted channels' data in clear. */
function listen(channel) {
  const events = [];
  channel.bind_global((event, data) => {
    if (!event.startsWith("pusher:")) events.push([event, data]);
  });
  return events;
}

const KINDS = [
  "",
  "cache-",
  "private-",
  "private-cache-",
  "private-encrypted-",
  "private-encrypted-cache-",
  "presence-",
  "presence-cache-",
];

for (const kind of KINDS) {
  test(`a channel of the kind "${kind}" carries events until it is left`, LIMIT, async () => {
    const name = fresh(`${kind}every=kind@a,b.c;d_`);
    const ann = await app.connect("7");
    const channel = await ann.subscribe(name);
    const events = listen(channel);
    const succeeded = kind.startsWith("presence-") ? present(name, "7") : subscribed(name);
    await ann.hears(succeeded, ...(kind.includes("cache-") ? [cacheMiss(name)] : []));

    const data = { text: 'é "quoted" \\ \u2028 👋', list: [1, 2.5, null, true, {}] };
    await app.sdk.trigger(name, "App\\Events\\Order.shipped", data);
    await app.sdk.trigger(name, "second", "just text");
    await until("two events", () => events.length >= 2);
    await ann.settle();
    assert.deepEqual(events, [
      ["App\\Events\\Order.shipped", data],
      ["second", "just text"],
    ]);
    const [first, second, ...more] = ann.heard.splice(0);
    assert.deepEqual(
      [first.slice(0, 2), second.slice(0, 2), more],
      [["App\\Events\\Order.shipped", name], ["second", name], []],
    );
    const keys = kind.includes("encrypted-") ? ["nonce", "ciphertext"] : Object.keys(data);
    assert.deepEqual(Object.keys(first[2]), keys);

    ann.pusher.unsubscribe(name);
    await ann.settle();
    await app.sdk.trigger(name, "unheard", {});
    await ann.hears();
  });
}

test("subscribing again after unsubscribing hears again, and only then", LIMIT, async () => {
  const name = fresh("private-again-");
  const ann = await app.connect();
  await ann.subscribe(name);
  ann.pusher.unsubscribe(name);
  await ann.settle();
  await app.sdk.trigger(name, "between", {});
  await ann.settle();
  await ann.subscribe(name);
  await app.sdk.trigger(name, "later", 1);
  await ann.hears(subscribed(name), subscribed(name), ["later", name, 1]);
});

test("a subscription that is given up while it is pending ends", LIMIT, async () => {
  const name = fresh("pending-");
  const ann = await app.connect();
  ann.pusher.subscribe(name);
  ann.pusher.unsubscribe(name);
  await until("no channel", () => !ann.pusher.channel(name));
  await ann.settle();
  await app.sdk.trigger(name, "unheard", {});
  await ann.hears(subscribed(name));
});

test("an event can leave one connection out", LIMIT, async () => {
  const [name, other] = [fresh("a-"), fresh("private-b-")];
  const [ann, ben] = [await app.connect(), await app.connect()];
  for (const person of [ann, ben]) {
    for (const channel of [name, other]) await person.subscribe(channel);
  }
  await app.sdk.trigger([name, other], "e", { a: 1 }, { socket_id: ann.socketId });
  await ann.hears(subscribed(name), subscribed(other));
  await ben.hears(
    subscribed(name),
    subscribed(other),
    ["e", name, { a: 1 }],
    ["e", other, { a: 1 }],
  );
});

test("presence knows who is here, by user and not by connection", LIMIT, async () => {
  const name = fresh("presence-room-");
  const [ann, ben, tab] = [
    await app.connect("ann"),
    await app.connect("ben"),
    await app.connect("ben"),
  ];
  const room = await ann.subscribe(name);
  await ann.hears(present(name, "ann"));
  assert.deepEqual(room.members.me, { id: "ann", info: info("ann") });

  const told = [];
  for (const event of ["pusher:member_added", "pusher:member_removed"]) {
    room.bind(event, (member) => told.push([event, member]));
  }
  const rooms = [await ben.subscribe(name), await tab.subscribe(name)];
  await ben.hears(present(name, "ann", "ben"));
  await tab.hears(present(name, "ann", "ben"));
  for (const { members } of rooms) {
    assert.deepEqual([members.count, members.myID], [2, "ben"]);
    assert.deepEqual(members.me, { id: "ben", info: info("ben") });
    assert.deepEqual(members.members, { ann: info("ann"), ben: info("ben") });
  }
  await ann.hears(added(name, "ben"));
  assert.equal(room.members.count, 2);

  ben.pusher.unsubscribe(name); // his other connection stays
  await ben.settle();
  await ann.hears();
  assert.equal(room.members.count, 2);
  tab.pusher.disconnect();
  await ann.hears(removed(name, "ben"));
  assert.equal(room.members.count, 1);
  assert.deepEqual(told, [
    ["pusher:member_added", { id: "ben", info: info("ben") }],
    ["pusher:member_removed", { id: "ben", info: info("ben") }],
  ]);
  await ben.hears();
});

test(
  "client events reach everybody else, with who sent them on presence channels",
  LIMIT,
  async () => {
    const [secret, room] = [fresh("private-whisper-"), fresh("presence-whisper-")];
    const [ann, ben] = [await app.connect("ann"), await app.connect("ben")];
    for (const person of [ann, ben]) await person.subscribe(secret);
    await ann.subscribe(room);
    await ben.subscribe(room);
    const events = [];
    ben.pusher.channel(room).bind("client-typing", (...of) => events.push(of));
    for (const data of [{ x: [1, "é"] }, "text", 1.5, null]) {
      ann.pusher.channel(secret).trigger("client-typing", data);
    }
    ann.pusher.channel(room).trigger("client-typing", { x: 1 });
    await ben.hears(
      subscribed(secret),
      present(room, "ann", "ben"),
      ["client-typing", secret, { x: [1, "é"] }],
      ["client-typing", secret, "text"],
      ["client-typing", secret, 1.5],
      ["client-typing", secret, null],
      ["client-typing", room, { x: 1 }, "ann"],
    );
    assert.deepEqual(events, [[{ x: 1 }, { user_id: "ann" }]]);
    await ann.hears(subscribed(secret), present(room, "ann"), added(room, "ben"));
  },
);

test("client events on public channels and too many of them are refused", LIMIT, async () => {
  const [open, secret] = [fresh("open-"), fresh("private-flood-")];
  const [ann, ben] = [await app.connect(), await app.connect()];
  for (const person of [ann, ben]) {
    for (const channel of [open, secret]) await person.subscribe(channel);
    await person.hears(subscribed(open), subscribed(secret));
  }
  ann.pusher.channel(open).trigger("client-no", {});
  await ann.settle();
  const [[event, channel, { code }], ...more] = ann.heard.splice(0);
  assert.deepEqual([event, channel, code, more], ["pusher:error", open, null, []]);
  await ben.hears();

  const sent = 40;
  for (let n = 0; n < sent; n += 1) ann.pusher.channel(secret).trigger("client-n", n);
  await ann.settle();
  const refused = ann.heard.splice(0);
  assert.ok(refused.length > 0 && sent - refused.length >= 10, `${refused.length} were refused`);
  for (const [name, where, data] of refused) {
    assert.deepEqual([name, where, data.code], ["pusher:error", secret, 4301]);
  }
  await until("the rest", () => ben.heard.length >= sent - refused.length);
  await ben.settle();
  const numbers = ben.heard.splice(0).map(([, , n]) => n);
  assert.equal(numbers.length, sent - refused.length);
  assert.deepEqual(
    numbers,
    numbers.toSorted((a, b) => a - b),
  );
  assert.equal(ann.pusher.connection.state, "connected");
});

test("a cache channel replays its last event to who comes later", LIMIT, async () => {
  for (const kind of ["cache-", "private-cache-", "presence-cache-"]) {
    const name = fresh(kind);
    const ann = await app.connect("ann");
    const missed = [];
    ann.pusher.subscribe(name).bind("pusher:cache_miss", () => missed.push(name));
    await ann.isSubscribed(name);
    await until("a miss", () => missed.length > 0);
    await app.sdk.trigger(name, "first", { n: 1 });
    await app.sdk.trigger(name, "last", { n: 2 }, { socket_id: ann.socketId });
    if (kind !== "cache-") ann.pusher.channel(name).trigger("client-uncached", {});
    await ann.settle();
    const presence = kind.startsWith("presence-");
    const ben = await app.connect("ben");
    await ben.subscribe(name);
    await ben.hears(presence ? present(name, "ann", "ben") : subscribed(name), [
      "last",
      name,
      { n: 2 },
    ]);
    await ann.hears(
      presence ? present(name, "ann") : subscribed(name),
      cacheMiss(name),
      ["first", name, { n: 1 }],
      ...(presence ? [added(name, "ben")] : []),
    );
    assert.deepEqual(missed, [name]);
  }
});

test("an encrypted cache channel replays what can be read", LIMIT, async () => {
  const name = fresh("private-encrypted-cache-");
  await app.sdk.trigger(name, "kept", { secret: 1 });
  const ann = await app.connect();
  const events = listen(ann.pusher.subscribe(name));
  await until("the event", () => events.length > 0);
  await ann.settle();
  assert.deepEqual(events, [["kept", { secret: 1 }]]);
});

test(
  "who signs in gets their events once on each connection, and is seen by watchers",
  LIMIT,
  async () => {
    const [ann, ben, eve] = [fresh("ann-"), fresh("ben-"), fresh("eve-")];
    app.watchlists.set(ann, [ben, eve]);
    const watcher = await app.connect(ann);
    const seen = [];
    for (const name of ["online", "offline"]) {
      watcher.pusher.user.watchlist.bind(name, (event) => seen.push([name, event.user_ids]));
    }
    const isSignedIn = (person) =>
      until("a sign-in", () => person.pusher.user.serverToUserChannel?.subscribed);
    watcher.pusher.signin();
    await isSignedIn(watcher);
    // The snapshot is gathered while the client goes on.
    const snapshot = watched(["offline", ben, eve]);
    await until("the snapshot", () => watcher.heard.some(([event]) => event === snapshot[0]));
    assert.deepEqual(
      watcher.heard.filter(([event]) => event === snapshot[0]),
      [snapshot],
    );
    watcher.heard = watcher.heard.filter(([event]) => event !== snapshot[0]);
    await watcher.hears(
      signedIn(ann, { watchlist: [ben, eve] }),
      subscribed(`#server-to-user-${ann}`),
    );

    const tabs = [await app.connect(ben), await app.connect(ben)];
    const greeted = [];
    for (const tab of tabs) {
      tab.pusher.user.bind("hello", (data) => greeted.push(data));
      tab.pusher.signin();
      await isSignedIn(tab);
      await tab.hears(signedIn(ben), subscribed(`#server-to-user-${ben}`));
    }
    await watcher.hears(watched(["online", ben]));
    await app.sdk.sendToUser(ben, "hello", { to: ben });
    for (const tab of tabs) await tab.hears(["hello", `#server-to-user-${ben}`, { to: ben }]);
    assert.deepEqual(greeted, [{ to: ben }, { to: ben }]);
    await watcher.hears();

    tabs[0].pusher.disconnect();
    await app.sdk.sendToUser(ben, "hello", 2);
    await tabs[1].hears(["hello", `#server-to-user-${ben}`, 2]);
    await watcher.hears(); // one is left
    tabs[1].pusher.disconnect();
    await watcher.hears(watched(["offline", ben]));
    assert.deepEqual(seen, [
      ["offline", [ben, eve]],
      ["online", [ben]],
      ["offline", [ben]],
    ]);
  },
);

test("who is signed in is a member without being named again", LIMIT, async () => {
  const [name, ann] = [fresh("presence-signed-"), fresh("ann-")];
  const person = await app.connect(ann);
  person.pusher.signin();
  await until("a sign-in", () => person.pusher.user.serverToUserChannel?.subscribed);
  person.heard.length = 0;
  const signed = app.sdk.authorizeChannel(person.socketId, name);
  person.pusher.config.channelAuthorizer = (_params, callback) => callback(null, signed);
  const room = await person.subscribe(name);
  await person.hears(present(name, ann));
  assert.deepEqual(room.members.me, { id: ann, info: info(ann) });
});

test("the application can end a user's connections, for good", LIMIT, async () => {
  const [ann, ben] = [await app.connect(fresh("ann-")), await app.connect(fresh("ben-"))];
  for (const person of [ann, ben]) {
    person.pusher.signin();
    await until("a sign-in", () => person.pusher.user.serverToUserChannel?.subscribed);
    person.heard.length = 0;
  }
  await app.sdk.terminateUserConnections(ann.id);
  await until("the end", () => ann.pusher.connection.state === "disconnected");
  assert.deepEqual(
    ann.heard.map(([event, , data]) => [event, data.code]),
    [["pusher:error", 4009]],
  );
  await ben.hears();
  assert.equal(ben.pusher.connection.state, "connected");
});

test("the application can have a user's connections come back", LIMIT, async () => {
  const [ann, ben] = [await app.connect(fresh("ann-")), await app.connect(fresh("ben-"))];
  ann.pusher.signin();
  await until("a sign-in", () => ann.pusher.user.serverToUserChannel?.subscribed);
  const before = ann.socketId;
  ann.heard.length = 0;
  await app.sdk.post({ path: `/users/${ann.id}/reconnect_connections`, body: {} });
  await until("another connection", () => ann.socketId !== before && ann.socketId);
  assert.deepEqual(
    ann.heard.filter(([event]) => event === "pusher:error").map(([, , data]) => data.code),
    [4200],
  );
  await ann.isSubscribed(ann.own);
  await ben.hears();
});

test("merged tokens are asked for with send_event, on a channel that is subscribed", LIMIT, async () => {
  const [name, other] = [fresh("private-merged-"), fresh("private-other-")];
  const ann = await app.connect();
  await ann.subscribe(name);
  assert.ok(ann.pusher.send_event("legato:merge_tokens", {}, name));
  await ann.hears(subscribed(name));
  ann.pusher.send_event("legato:merge_tokens", {}, other);
  await ann.settle();
  const [[event, channel, { code }], ...more] = ann.heard.splice(0);
  assert.deepEqual([event, channel, code, more], ["pusher:error", other, null, []]);
  await app.sdk.trigger(name, "token.received", { token: "a", tokenIndex: 0 });
  await ann.hears(["token.received", name, { token: "a", tokenIndex: 0 }]);
  assert.equal(ann.pusher.connection.state, "connected");
});

test("a refused authorisation is an error of that channel alone", LIMIT, async () => {
  const ann = await app.connect();
  for (const kind of ["private-", "private-cache-", "presence-", "private-encrypted-"]) {
    const refusals = [];
    for (const word of ["forbidden-", "forged-"]) {
      const name = fresh(kind + word);
      const channel = ann.pusher.subscribe(name);
      channel.bind("pusher:subscription_error", (error) =>
        refusals.push([error.type, error.status]),
      );
      channel.bind("pusher:subscription_succeeded", () => refusals.push("succeeded"));
      await until("a refusal", () => refusals.length > (word === "forged-" ? 1 : 0));
      if (!kind.includes("encrypted-")) await app.sdk.trigger(name, "unheard", {});
    }
    assert.deepEqual(refusals, [
      ["AuthError", 403], // the application's
      ["AuthError", 401], // Legato's
    ]);
    await ann.settle();
    const heard = ann.heard.splice(0).map(([event]) => event);
    assert.deepEqual(heard, ["pusher:subscription_error"]);
  }
  assert.equal(ann.pusher.connection.state, "connected");
});

test("a forged sign-in is refused and the connection goes on", LIMIT, async () => {
  const ann = await app.connect(fresh("forged-"));
  ann.pusher.signin();
  await until("a refusal", () => ann.heard.length > 0);
  await app.sdk.sendToUser(ann.id, "unheard", {});
  await ann.settle();
  assert.deepEqual(
    ann.heard.map(([event, , data]) => [event, data.code]),
    [["pusher:error", 4009]],
  );
});

test("an unknown application key is refused for good", LIMIT, async () => {
  const pusher = new Pusher("unknown-key", app.options("ann"));
  const errors = [];
  pusher.connection.bind("error", (error) => errors.push(error.error.data.code));
  await until("the end", () => pusher.connection.state === "disconnected");
  assert.deepEqual(errors, [4001]);
});

test("after a lost connection everything is as before", LIMIT, async () => {
  const [name, room] = [fresh("private-lost-"), fresh("presence-lost-")];
  const [ann, ben] = [await app.connect(fresh("ann-")), await app.connect("ben")];
  await ben.subscribe(room);
  ann.pusher.signin();
  await until("a sign-in", () => ann.pusher.user.serverToUserChannel?.subscribed);
  await ann.subscribe(name);
  await ann.subscribe(room);
  await ben.hears(present(room, "ben"), added(room, ann.id));
  const before = ann.socketId;
  ann.heard.length = 0;
  ann.pusher.connection.connection.close(); // as if the network had gone
  await until("another connection", () => ann.socketId !== before && ann.socketId);
  for (const channel of [ann.own, name, room]) await ann.isSubscribed(channel);
  await until("a sign-in", () => ann.pusher.user.serverToUserChannel?.subscribed);
  await ben.hears(removed(room, ann.id), added(room, ann.id));
  await ann.settle();
  ann.heard.length = 0;
  await app.sdk.trigger(name, "e", 1);
  await app.sdk.sendToUser(ann.id, "e", 2);
  await ann.hears(["e", name, 1], ["e", `#server-to-user-${ann.id}`, 2]);
});

test("subscribers are told how many they are, where the application wants it", LIMIT, async (t) => {
  const counted = await Application.start(APPS.counted);
  t.after(() => counted.stop());
  const [name, room] = [fresh("private-counted-"), fresh("presence-counted-")];
  const [ann, ben] = [await counted.connect(), await counted.connect()];
  const counts = [];
  const channel = ann.pusher.subscribe(name);
  channel.bind("pusher:subscription_count", (data) => counts.push(data.subscription_count));
  await ann.isSubscribed(name);
  await ann.hears(subscribed(name), count(name, 1));
  await ben.subscribe(name);
  await ben.hears(subscribed(name), count(name, 2));
  await ann.hears(count(name, 2));
  assert.equal(channel.subscriptionCount, 2);
  ben.pusher.unsubscribe(name);
  await ann.hears(count(name, 1));
  await ben.hears();
  assert.deepEqual(counts, [1, 2, 1]);
  await ann.subscribe(room);
  await ann.hears(present(room, ann.id)); // never on presence channels
});
