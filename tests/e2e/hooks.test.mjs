// The hooks of @laravel/echo-vue and @laravel/echo-react in Chromium, bundled as Vite bundles a Laravel
// application, against `legato broadcaster`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

import { fresh, HOST, info, NOTIFICATION, PORT } from "./application.mjs";
import { until } from "./legato.mjs";
import { event, share, Visitor } from "./visitor.mjs";

const LIMIT = { timeout: 180_000 };

/**
 * Name -> the page's script, and the mode that it is built for. What `make proof` adds differs in the packages'
 * own code alone.
 */
const FRAMEWORKS = {
  "echo-vue": ["vue", "production"],
  "echo-react in development, under StrictMode": ["react", "development"],
  ...(process.env.LEGATO_PROOF && {
    "echo-vue in development": ["vue", "development"],
    "echo-react": ["react", "production"],
  }),
};

/** Every hook that the packages have: a scenario below says so when a new one needs a place in it. */
const HOOKS = [
  "useChannel",
  "useConnectionStatus",
  "useEcho",
  "useEchoModel",
  "useEchoNotification",
  "useEchoPresence",
  "useEchoPublic",
  "usePresenceChannel",
  "usePublicChannel",
  "useSocketId",
];

let app;
let browser;

share((...shared) => ([app, browser] = shared));

/** The page's script, with the variables that Vite takes from a Laravel application's `.env`. */
async function bundle(script, mode) {
  const variables = {
    VITE_REVERB_APP_KEY: app.key,
    VITE_REVERB_HOST: HOST,
    VITE_REVERB_PORT: String(PORT),
    VITE_REVERB_SCHEME: "http",
  };
  const { outputFiles } = await build({
    entryPoints: [`hooks/${script}.mjs`],
    bundle: true,
    write: false,
    format: "iife",
    define: {
      "process.env.NODE_ENV": JSON.stringify(mode),
      "import.meta.env": JSON.stringify(variables),
      __VUE_OPTIONS_API__: "true",
      __VUE_PROD_DEVTOOLS__: "false",
      __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
    },
  });
  return outputFiles[0].text;
}

for (const [framework, [script, mode]] of Object.entries(FRAMEWORKS)) {
  let content; // built once, when the first page needs it

  /** A user's page; the broadcaster's address comes from the variables. */
  async function visit(user) {
    content ??= await bundle(script, mode);
    return Visitor.open(browser, app, {
      scripts: [{ content }],
      configure: (options) => window.configure(options),
      options: { broadcaster: "reverb", bearerToken: user },
    });
  }

  const shows = (visitor, what, expected) =>
    until(what, async () => expected.test(await visitor.page.innerText("output")));

  test(`${framework}: each hook hears what is its own`, LIMIT, async () => {
    const names = {
      orders: fresh("orders."),
      news: fresh("news."),
      room: fresh("room."),
      model: fresh(""),
    };
    const ann = await visit("ann");
    const exported = await ann.run(() => Object.keys(hooks).filter((name) => /^use/.test(name)));
    assert.deepEqual(exported.toSorted(), HOOKS);
    await ann.run((names) => {
      window.unmount = mount(() => {
        const { orders, news, room, model } = names;
        hooks.useEcho(orders, ["OrderShipped", ".order.packed"], hear("useEcho"));
        hooks.useEcho(`encrypted-${orders}`, "OrderShipped", hear("useEcho, encrypted"));
        hooks.useEcho(orders, ".order.packed", hear("useEcho again"));
        hooks.useEchoPublic(news, ".published", hear("useEchoPublic"));
        hooks.useEchoPresence(room, ".said", hear("useEchoPresence"));
        hooks.useEchoNotification(orders, hear("useEchoNotification"));
        hooks.useEchoNotification(orders, hear("paid alone"), "App\\Notifications\\Paid");
        hooks.useEchoModel("App.Models.Post", model, ["PostUpdated"], hear("useEchoModel"));
        hooks.useChannel(`used.${orders}`);
        hooks.usePublicChannel(`used.${news}`);
        hooks.usePresenceChannel(`used.${room}`);
        return [hooks.useConnectionStatus(), hooks.useSocketId()];
      });
    }, names);
    const channels = [
      `presence-${names.room}`,
      `presence-used.${names.room}`,
      `private-App.Models.Post.${names.model}`,
      `private-encrypted-${names.orders}`,
      `private-${names.orders}`,
      `private-used.${names.orders}`,
      names.news,
      `used.${names.news}`,
    ].toSorted();
    await ann.isSubscribed(...channels);
    assert.deepEqual(await ann.channels(), channels);
    await shows(ann, "the status", /^connected \d+\.\d+$/);

    const [paid, failed] = ["Paid", "Failed"].map((name) => ({
      type: `App\\Notifications\\${name}`,
    }));
    for (const [channel, name, data] of [
      [`private-${names.orders}`, "App\\Events\\OrderShipped", { n: 1 }],
      [`private-${names.orders}`, "order.packed", { n: 2 }],
      [`private-${names.orders}`, "unheard", {}],
      [`private-${names.orders}`, NOTIFICATION, paid],
      [`private-${names.orders}`, NOTIFICATION, failed],
      [`private-encrypted-${names.orders}`, "App\\Events\\OrderShipped", { n: 3 }],
      [names.news, "published", { n: 4 }],
      [names.news, "said", {}],
      [`presence-${names.room}`, "said", { n: 5 }],
      [`private-App.Models.Post.${names.model}`, "PostUpdated", { model: { id: 6 } }],
    ]) {
      await app.sdk.trigger(channel, name, data);
    }
    await ann.hears({
      useEcho: [event({ n: 1 }), event({ n: 2 })],
      "useEcho, encrypted": [[{ n: 3 }]],
      "useEcho again": [event({ n: 2 })],
      useEchoPublic: [event({ n: 4 })],
      useEchoPresence: [event({ n: 5 })],
      useEchoNotification: [[paid], [failed]],
      "paid alone": [[paid]],
      useEchoModel: [event({ model: { id: 6 } })],
    });

    await ann.run(() => window.unmount());
    await ann.settle();
    assert.deepEqual(await ann.channels(), []);
    await app.areVacant(...channels);
  });

  test(`${framework}: a room of two, who leave and whisper`, LIMIT, async () => {
    const room = fresh("room.");
    const enter = async (user) => {
      const visitor = await visit(user);
      await visitor.run((room) => {
        window.unmount = mount(() => {
          window.room = hooks.useEchoPresence(room, ".said", hear("said"));
        });
      }, room);
      await visitor.isSubscribed(`presence-${room}`);
      await visitor.run(() => {
        window.room
          .channel()
          .joining(hear("joining"))
          .leaving(hear("leaving"))
          .listenForWhisper("typing", hear("typing"));
      });
      return visitor;
    };
    const ann = await enter("ann");
    const ben = await enter("ben");
    await ann.hears({ joining: [[info("ben")]] });
    await ben.run(() => void window.room.channel().whisper("typing", { n: 1 }));
    await ann.hears({ typing: [event({ n: 1 }, "ben")] });
    await ben.run(() => window.unmount());
    await ann.hears({ leaving: [[info("ben")]] });
    await app.sdk.trigger(`presence-${room}`, "said", 1);
    await ann.hears({ said: [event(1)] });
    await ben.hears({});
  });

  test(`${framework}: a channel lives as long as a component uses it`, LIMIT, async () => {
    const name = fresh("shared.");
    const channel = `private-${name}`;
    const ann = await visit("ann");
    await ann.run((name) => {
      window.unmount = ["one", "two"].map((one) =>
        mount(() => {
          window[one] = hooks.useEcho(name, ".e", hear(one));
        }),
      );
    }, name);
    await ann.isSubscribed(channel);
    await app.sdk.trigger(channel, "e", 1);
    await ann.hears({ one: [event(1)], two: [event(1)] });

    await ann.run(() => window.two.stopListening());
    await app.sdk.trigger(channel, "e", 2);
    await ann.hears({ one: [event(2)] });
    await ann.run(() => window.two.listen());
    await ann.run(() => window.unmount[0]());
    await app.sdk.trigger(channel, "e", 3);
    await ann.hears({ two: [event(3)] });

    await ann.run(() => window.unmount[1]());
    await ann.settle();
    await app.areVacant(channel);
    await ann.run((name) => void mount(() => void hooks.useEcho(name, ".e", hear("three"))), name);
    await ann.isSubscribed(channel);
    await app.sdk.trigger(channel, "e", 4);
    await ann.hears({ three: [event(4)] });
  });

  test(`${framework}: what a connection goes through is shown`, LIMIT, async () => {
    const name = fresh("lost.");
    const ann = await visit("ann");
    await ann.run((name) => {
      mount(() => {
        hooks.useEcho(name, ".e", hear("e"));
        return [hooks.useConnectionStatus(), hooks.useSocketId()];
      });
    }, name);
    await shows(ann, "the first connection", /^connected \d+\.\d+$/);
    const before = await ann.page.innerText("output");
    await ann.run(() => echo.disconnect());
    await shows(ann, "no connection", /^disconnected/);
    await ann.run(() => pusher.connect());
    await shows(ann, "another connection", /^connected \d+\.\d+$/);
    assert.notEqual(await ann.page.innerText("output"), before);
    await ann.isSubscribed(ann.own, `private-${name}`);
    await app.sdk.trigger(`private-${name}`, "e", 1);
    await ann.hears({ e: [event(1)] });
  });

  test(`${framework}: a refused channel leaves the others alone`, LIMIT, async () => {
    const [forged, open] = [fresh("forged."), fresh("open.")];
    const ann = await visit("ann");
    await ann.run(
      ([forged, open]) => {
        pusher.bind("pusher:subscription_error", ({ type, status }) => hear("error")(type, status));
        mount(() => {
          hooks.useEcho(forged, ".e", hear("refused"));
          hooks.useEcho(open, ".e", hear("open"));
        });
      },
      [forged, open],
    );
    await ann.isSubscribed(`private-${open}`);
    await app.sdk.trigger([`private-${forged}`, `private-${open}`], "e", 1);
    await ann.hears({ error: [["AuthError", 401]], open: [event(1)] });
  });
}
