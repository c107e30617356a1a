// A stock Laravel Echo in Chromium, loaded by script tags, against `legato broadcaster`: with both of
// its Pusher broadcasters, and with pusher-js's build that decrypts.

import assert from "node:assert/strict";
import { test } from "node:test";

import { fresh, HOST, info, NOTIFICATION, PORT } from "./application.mjs";
import { until } from "./legato.mjs";
import { event, share, Visitor } from "./visitor.mjs";

const LIMIT = { timeout: 180_000 };
const scripts = (build) => [
  { path: `node_modules/pusher-js/dist/web/${build}.js` },
  { path: "node_modules/laravel-echo/dist/echo.iife.js" },
  { path: "node_modules/axios/dist/axios.min.js" }, // Echo gives it the socket id
];

let app;
let browser;

share((...shared) => ([app, browser] = shared));

/** An Echo as Laravel's documents configure it; where to authorise is left to its defaults. */
function visit(broadcaster, user, build = "pusher") {
  return Visitor.open(browser, app, {
    scripts: scripts(build),
    configure: (options) => {
      window.echo = new Echo.default(options);
      window.pusher = echo.connector.pusher;
    },
    options: {
      broadcaster,
      key: app.key,
      wsHost: HOST,
      wsPort: PORT,
      wssPort: PORT,
      forceTLS: false,
      enabledTransports: ["ws", "wss"],
      bearerToken: user,
      ...(broadcaster === "pusher" && { cluster: "any" }),
    },
  });
}

/** The members that the application knows of a presence channel. */
async function members(room) {
  const { users } = await app.get(`/channels/presence-${room}/users`);
  return users.map(({ id }) => id).toSorted();
}

for (const broadcaster of ["reverb", "pusher"]) {
  test(`${broadcaster} in Chromium: events come by Laravel's names`, LIMIT, async () => {
    const name = fresh("orders.");
    const ann = await visit(broadcaster, "ann");
    await ann.run((name) => {
      for (const [prefix, kind] of Object.entries({ "": "channel", "private-": "private" })) {
        echo[kind](name)
          .listen("OrderShipped", hear(prefix + "short"))
          .listen(".order.shipped", hear(prefix + "dotted"))
          .listenToAll(hear(prefix + "all"));
      }
    }, name);
    for (const prefix of ["", "private-"]) {
      await ann.isSubscribed(prefix + name);
      const data = { text: 'é "quoted" \\ \u2028 👋', list: [1, 2.5, null, true, {}] };
      await app.sdk.trigger(prefix + name, "App\\Events\\OrderShipped", data);
      await app.sdk.trigger(prefix + name, "order.shipped", { n: 1 });
      await app.sdk.trigger(prefix + name, "OrderShipped", "of no namespace");
      await ann.hears({
        [`${prefix}short`]: [event(data)],
        [`${prefix}dotted`]: [event({ n: 1 })],
        [`${prefix}all`]: [
          ["OrderShipped", data],
          [".order.shipped", { n: 1 }],
          [".OrderShipped", "of no namespace"],
        ],
      });
    }
  });

  test(`${broadcaster} in Chromium: who is here, who joins, who leaves`, LIMIT, async () => {
    const name = fresh("room.");
    const enter = async (user) => {
      const visitor = await visit(broadcaster, user);
      await visitor.run((name) => {
        echo
          .join(name)
          .here(hear("room", "here"))
          .joining(hear("room", "joining"))
          .leaving(hear("room", "leaving"));
      }, name);
      await visitor.isSubscribed(`presence-${name}`);
      return visitor;
    };
    const ann = await enter("ann");
    await ann.hears({ room: [["here", [info("ann")]]] });
    const ben = await enter("ben");
    await ben.hears({ room: [["here", [info("ann"), info("ben")]]] });
    const tab = await enter("ben");
    await tab.hears({ room: [["here", [info("ann"), info("ben")]]] });
    await ann.hears({ room: [["joining", info("ben")]] });
    assert.deepEqual(await members(name), ["ann", "ben"]);

    await ben.run((name) => echo.leave(name), name);
    await ben.settle();
    await ann.hears({}); // Ben's other tab is still there
    await tab.close();
    await ann.hears({ room: [["leaving", info("ben")]] });
    assert.deepEqual(await members(name), ["ann"]);
    await ben.hears({});
  });

  test(`${broadcaster} in Chromium: whispers reach the others`, LIMIT, async () => {
    const name = fresh("whispers.");
    const [ann, ben] = [await visit(broadcaster, "ann"), await visit(broadcaster, "ben")];
    const kinds = { "private-": "private", "presence-": "join" };
    for (const visitor of [ann, ben]) {
      await visitor.run(
        ([name, kinds]) => {
          for (const kind of kinds) {
            echo[kind](name)
              .listenForWhisper("typing", hear(`${kind} typing`))
              .listenForWhisper("stopped", hear(`${kind} stopped`));
          }
        },
        [name, Object.values(kinds)],
      );
      await visitor.isSubscribed(...Object.keys(kinds).map((prefix) => prefix + name));
    }
    await ann.run((name) => {
      echo.private(name).whisper("typing", { name: "Ann" }).whisper("typing", "text");
      echo.join(name).whisper("typing", { name: "Ann" }).whisper("stopped", {});
    }, name);
    await ben.hears({
      "private typing": [event({ name: "Ann" }), event("text")],
      "join typing": [event({ name: "Ann" }, "ann")],
      "join stopped": [event({}, "ann")],
    });
    await ann.hears({});
  });

  test(`${broadcaster} in Chromium: a notification`, LIMIT, async () => {
    const name = fresh("App.Models.User.");
    const ann = await visit(broadcaster, "ann");
    await ann.run((name) => void echo.private(name).notification(hear("notification")), name);
    await ann.isSubscribed(`private-${name}`);
    const notification = { id: "1", type: "App\\Notifications\\Paid", amount: 10 };
    await app.sdk.trigger(`private-${name}`, "App\\Events\\Other", {});
    await app.sdk.trigger(`private-${name}`, NOTIFICATION, notification);
    await ann.hears({ notification: [event(notification)] });
  });

  test(`${broadcaster} in Chromium: toOthers leaves out who asked`, LIMIT, async () => {
    const name = fresh("others.");
    const [ann, ben] = [await visit(broadcaster, "ann"), await visit(broadcaster, "ben")];
    for (const visitor of [ann, ben]) {
      await visitor.run((name) => void echo.private(name).listen(".said", hear("said")), name);
      await visitor.isSubscribed(`private-${name}`);
    }
    const said = { channel: `private-${name}`, event: "said", data: { text: "hi" } };
    await ann.run((said) => axios.post("/messages", said).then(() => {}), said);
    await ben.hears({ said: [event({ text: "hi" })] });
    await ann.hears({});
  });

  test(`${broadcaster} in Chromium: error() is told of a refusal`, LIMIT, async () => {
    const [forbidden, forged, open] = [fresh("forbidden."), fresh("forged."), fresh("open.")];
    const ann = await visit(broadcaster, "ann");
    await ann.run(
      (names) => {
        for (const name of names) {
          for (const kind of ["private", "join"]) {
            echo[kind](name)
              .subscribed(hear(kind, "subscribed"))
              .error(({ type, status }) => hear(`${kind}-${name}`)(type, status))
              .listen(".e", hear(kind, "event"));
          }
        }
      },
      [forbidden, forged],
    );
    const byApplication = [["AuthError", 403]];
    const byLegato = [["AuthError", 401]];
    await ann.hears({
      [`private-${forbidden}`]: byApplication,
      [`private-${forged}`]: byLegato,
      [`join-${forbidden}`]: byApplication,
      [`join-${forged}`]: byLegato,
    });
    ann.failed(/status of 403/, /status of 403/);

    await app.sdk.trigger([`private-${forbidden}`, `presence-${forged}`], "e", "secret");
    await ann.run((name) => void echo.private(name).listen(".e", hear("open")), open);
    await ann.isSubscribed(`private-${open}`);
    await app.sdk.trigger(`private-${open}`, "e", 1);
    await ann.hears({ open: [event(1)] });
  });

  test(
    `${broadcaster} in Chromium: what was left is silent until joined again`,
    LIMIT,
    async () => {
      const name = fresh("left.");
      const kinds = [name, `private-${name}`, `presence-${name}`];
      const ann = await visit(broadcaster, "ann");
      const listen = (name) => {
        for (const kind of ["channel", "private", "join"]) {
          echo[kind](name).listen(".e", hear(kind));
        }
      };
      const trigger = () => app.sdk.trigger(kinds, "e", 1);
      await ann.run(listen, name);
      await ann.isSubscribed(...kinds);
      await trigger();
      await ann.hears({ channel: [event(1)], private: [event(1)], join: [event(1)] });

      await ann.run((name) => echo.leaveChannel(`private-${name}`), name);
      await ann.settle();
      await trigger();
      await ann.hears({ channel: [event(1)], join: [event(1)] });

      await ann.run((name) => echo.leave(name), name);
      await ann.settle();
      assert.deepEqual(await ann.channels(), []);
      await app.areVacant(...kinds);
      await trigger();
      await ann.hears({});

      await ann.run(listen, name);
      await ann.isSubscribed(...kinds);
      await trigger();
      await ann.hears({ channel: [event(1)], private: [event(1)], join: [event(1)] });
    },
  );

  test(`${broadcaster} in Chromium: listeners outlive a lost connection`, LIMIT, async () => {
    const name = fresh("lost.");
    const user = fresh("user-");
    const ann = await visit(broadcaster, user);
    await ann.run((name) => {
      echo.private(name).listen(".e", hear("private"));
      echo.join(name).here(hear("here"));
      pusher.user.bind("e", hear("user"));
      echo.connector.signin();
    }, name);
    const isBack = async () => {
      await ann.isSubscribed(ann.own, `private-${name}`, `presence-${name}`);
      const isSignedIn = () => pusher.user.serverToUserChannel?.subscribed;
      await until("a sign-in", () => ann.run(isSignedIn));
    };
    await isBack();
    const before = await ann.run(() => echo.socketId());
    await ann.run(() => pusher.connection.connection.close()); // the network is gone
    const after = await until("another connection", () =>
      ann.run((before) => echo.socketId() !== before && echo.socketId(), before),
    );
    assert.notEqual(after, before);
    await isBack();
    await app.sdk.trigger(`private-${name}`, "e", 1);
    await app.sdk.sendToUser(user, "e", 2);
    await ann.hears({
      here: [[[info(user)]], [[info(user)]]],
      private: [event(1)],
      user: [[2]],
    });
  });

  test(`${broadcaster} in Chromium: encrypted events are read`, LIMIT, async () => {
    const name = fresh("secret.");
    const ann = await visit(broadcaster, "ann", "pusher-with-encryption");
    await ann.run((name) => {
      echo.encryptedPrivate(name).listen("Shipped", hear("clear")).listen(".text", hear("clear"));
    }, name);
    await ann.isSubscribed(`private-encrypted-${name}`);
    await app.sdk.trigger(`private-encrypted-${name}`, "App\\Events\\Shipped", { n: 1 });
    await app.sdk.trigger(`private-encrypted-${name}`, "text", "just text");
    await ann.hears({ clear: [[{ n: 1 }], ["just text"]] });
  });
}
