// A stock Laravel Echo in Node against `legato broadcaster`, with both of its Pusher broadcasters.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { Application, fresh, info, NOTIFICATION } from "./application.mjs";
import { until } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };

let app;
let echoes = [];

before(async () => {
  app = await Application.start();
});

afterEach(() => echoes.splice(0).forEach((echo) => echo.disconnect()));

after(() => app.stop());

/** An Echo as an application configures it. */
function connect(broadcaster, user, options = {}) {
  const { wsHost, wsPort, forceTLS } = app.options(user);
  const echo = new Echo({
    broadcaster,
    Pusher, // in a browser Echo finds it on the window
    key: app.key,
    wsHost,
    wsPort,
    wssPort: wsPort,
    forceTLS,
    enabledTransports: ["ws", "wss"],
    authEndpoint: `${app.url}/broadcasting/auth`,
    // Echo's own default is one object for all instances, and so one user's token for all.
    auth: { headers: {} },
    userAuthentication: { endpoint: `${app.url}/broadcasting/user-auth`, headers: {} },
    bearerToken: user,
    ...(broadcaster === "pusher" && { cluster: "any" }),
    ...options,
  });
  echoes.push(echo);
  return echo;
}

/** The channel, as soon as it is subscribed to. */
const isSubscribed = (channel) =>
  new Promise((resolve, reject) => channel.subscribed(() => resolve(channel)).error(reject));

/** All that a channel's listeners are told from now on, in order. */
function listenToAll(channel) {
  const heard = [];
  channel.listenToAll((event, data) => heard.push([event, data]));
  return heard;
}

/** Wait for a sentinel: what came before it on that channel, without it. */
async function heardUntilNow(heard, channel) {
  const sentinel = fresh("sentinel-");
  await app.sdk.trigger(channel.name, sentinel, {});
  const isHeard = () => heard.findIndex(([event]) => event.endsWith(sentinel));
  await until("the sentinel", () => isHeard() >= 0);
  return heard.slice(0, isHeard());
}

for (const broadcaster of ["reverb", "pusher"]) {
  test(
    `${broadcaster}: events come by Laravel's names, on each kind of channel`,
    LIMIT,
    async () => {
      const echo = connect(broadcaster, "7");
      const name = fresh("orders.");
      const kinds = {
        "": "channel",
        "private-": "private",
        "presence-": "join",
        "private-encrypted-": "encryptedPrivate",
      };
      for (const [prefix, kind] of Object.entries(kinds)) {
        const channel = await isSubscribed(echo[kind](name));
        assert.equal(channel.name, prefix + name);
        const heard = [];
        for (const event of ["OrderShipped", ".order.shipped", "Sub.Event", "\\Full\\Name"]) {
          channel.listen(event, (data) => heard.push([event, data]));
        }
        const all = listenToAll(channel);
        const sent = ["App\\Events\\OrderShipped", "order.shipped", "App\\Events\\Sub\\Event"];
        for (const [n, event] of [...sent, "Full\\Name", "OrderShipped"].entries()) {
          await app.sdk.trigger(channel.name, event, { n });
        }
        assert.deepEqual(await heardUntilNow(all, channel), [
          ["OrderShipped", { n: 0 }],
          [".order.shipped", { n: 1 }],
          ["Sub\\Event", { n: 2 }],
          [".Full\\Name", { n: 3 }],
          [".OrderShipped", { n: 4 }],
        ]);
        assert.deepEqual(heard, [
          ["OrderShipped", { n: 0 }],
          [".order.shipped", { n: 1 }],
          ["Sub.Event", { n: 2 }],
          ["\\Full\\Name", { n: 3 }],
        ]);
      }
    },
  );

  test(`${broadcaster}: another namespace, and none`, LIMIT, async () => {
    const name = fresh("names.");
    for (const [namespace, event] of [
      ["My.Own", "My\\Own\\Done"],
      [false, "Done"],
    ]) {
      const echo = connect(broadcaster, "7", { namespace });
      const channel = await isSubscribed(echo.channel(name));
      const heard = [];
      channel.listen("Done", (data) => heard.push(data));
      const all = listenToAll(channel);
      await app.sdk.trigger(name, "App\\Events\\Done", { of: "the default" });
      await app.sdk.trigger(name, event, { of: event });
      assert.equal((await heardUntilNow(all, channel)).length, 2);
      assert.deepEqual(heard, [{ of: event }]);
    }
  });

  test(`${broadcaster}: who is here, who joins, who leaves`, LIMIT, async () => {
    const name = fresh("room.");
    const told = [];
    const watch = (who, room) =>
      room
        .here((users) => told.push([who, "here", users]))
        .joining((user) => told.push([who, "joining", user]))
        .leaving((user) => told.push([who, "leaving", user]));
    const isTold = (count) => until(`${count} calls`, () => told.length >= count);

    const [ann, ben] = [connect(broadcaster, "ann"), connect(broadcaster, "ben")];
    const room = watch("ann", ann.join(name));
    await isTold(1);
    watch("ben", ben.join(name));
    await isTold(3);
    ben.leave(name);
    await isTold(4);
    const all = listenToAll(room);
    assert.deepEqual(await heardUntilNow(all, room), []);
    // Ben's own answer and Ann's news of him come in either order.
    const [first, ...more] = told;
    assert.deepEqual(first, ["ann", "here", [info("ann")]]);
    assert.deepEqual(
      more.filter(([who]) => who === "ann"),
      [
        ["ann", "joining", info("ben")],
        ["ann", "leaving", info("ben")],
      ],
    );
    assert.deepEqual(
      more.filter(([who]) => who === "ben"),
      [["ben", "here", [info("ann"), info("ben")]]],
    );
  });

  test(`${broadcaster}: whispers reach the others`, LIMIT, async () => {
    const name = fresh("whispers.");
    const [ann, ben] = [connect(broadcaster, "ann"), connect(broadcaster, "ben")];
    for (const kind of ["private", "join"]) {
      const [mine, theirs] = [
        await isSubscribed(ann[kind](name)),
        await isSubscribed(ben[kind](name)),
      ];
      const [own, heard] = [listenToAll(mine), []];
      const all = listenToAll(theirs);
      theirs.listenForWhisper("typing", (data) => heard.push(data));
      mine.listenForWhisper("typing", () => assert.fail("a whisper came back"));
      mine.whisper("typing", { name: "Ann" }).whisper("typing", "text").whisper("stopped", {});
      await until("the whispers", () => all.length >= 3);
      assert.deepEqual(await heardUntilNow(all, theirs), [
        [".client-typing", { name: "Ann" }],
        [".client-typing", "text"],
        [".client-stopped", {}],
      ]);
      assert.deepEqual(heard, [{ name: "Ann" }, "text"]);
      await heardUntilNow(own, mine);
      assert.deepEqual(
        own.filter(([event]) => event.startsWith(".client-")),
        [],
      );
    }
  });

  test(`${broadcaster}: a notification`, LIMIT, async () => {
    const channel = await isSubscribed(
      connect(broadcaster, "7").private(fresh("App.Models.User.")),
    );
    const heard = [];
    const all = listenToAll(channel);
    channel.notification((data) => heard.push(data));
    const notification = { id: "1", type: "App\\Notifications\\Paid", amount: 10 };
    await app.sdk.trigger(channel.name, NOTIFICATION, notification);
    assert.equal((await heardUntilNow(all, channel)).length, 1);
    assert.deepEqual(heard, [notification]);
  });

  test(`${broadcaster}: toOthers leaves out who asked`, LIMIT, async () => {
    const name = fresh("others.");
    const [ann, ben] = [connect(broadcaster, "ann"), connect(broadcaster, "ben")];
    const [mine, theirs] = [
      await isSubscribed(ann.private(name)),
      await isSubscribed(ben.private(name)),
    ];
    const [own, all] = [listenToAll(mine), listenToAll(theirs)];
    assert.match(ann.socketId(), /^\d+\.\d+$/);
    const response = await fetch(`${app.url}/messages`, {
      method: "POST",
      headers: { "X-Socket-ID": ann.socketId() }, // as Echo's interceptors set it
      body: JSON.stringify({ channel: mine.name, event: "said", data: { text: "hi" } }),
    });
    assert.equal(response.status, 200);
    assert.deepEqual(await heardUntilNow(all, theirs), [[".said", { text: "hi" }]]);
    await heardUntilNow(own, mine);
    assert.equal(own.filter(([event]) => event === ".said").length, 0);
  });

  test(`${broadcaster}: error() is told of a refusal`, LIMIT, async () => {
    const echo = connect(broadcaster, "7");
    for (const [word, status] of [
      ["forbidden.", 403], // the application's
      ["forged.", 401], // Legato's
    ]) {
      for (const kind of ["private", "join"]) {
        const error = await isSubscribed(echo[kind](fresh(word))).then(
          () => assert.fail("a subscription that must be refused"),
          (reason) => reason,
        );
        assert.deepEqual([error.type, error.status], ["AuthError", status]);
      }
    }
    await isSubscribed(echo.private(fresh("open.")));
  });

  test(`${broadcaster}: what was left is silent, and can be joined again`, LIMIT, async () => {
    const echo = connect(broadcaster, "7");
    const name = fresh("left.");
    const [open, secret] = [
      await isSubscribed(echo.channel(name)),
      await isSubscribed(echo.private(name)),
    ];
    const gone = [listenToAll(open), listenToAll(secret)];
    echo.leave(name);
    const other = await isSubscribed(echo.channel(fresh("other."))); // the server has read it all
    await app.sdk.trigger([open.name, secret.name], "unheard", {});
    await heardUntilNow(listenToAll(other), other);
    const again = await isSubscribed(echo.private(name));
    const all = listenToAll(again);
    await app.sdk.trigger(again.name, "heard", {});
    assert.deepEqual(await heardUntilNow(all, again), [[".heard", {}]]);
    assert.deepEqual(gone, [[], []]);
  });

  test(`${broadcaster}: a user who signs in is reached`, LIMIT, async () => {
    const user = fresh("user-");
    const echo = connect(broadcaster, user);
    const { pusher } = echo.connector;
    const heard = [];
    pusher.user.bind_global((event, data) => heard.push([event, data]));
    await until("a connection", () => pusher.connection.state === "connected");
    echo.connector.signin();
    await until("a sign-in", () => pusher.user.serverToUserChannel?.subscribed);
    await app.sdk.sendToUser(user, "hello", { n: 1 });
    await app.sdk.sendToUser(user, "sentinel", {});
    await until("the sentinel", () => heard.some(([event]) => event === "sentinel"));
    assert.deepEqual(heard, [
      ["hello", { n: 1 }],
      ["sentinel", {}],
    ]);
  });
}
