import "./dom.mjs";

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { createApp, createSSRApp, defineComponent, effectScope, h, type App } from "vue";
import { renderToString } from "vue/server-renderer";

import { createChat, type Chat, type ChatOptions } from "../src/chat.js";
import { useChat } from "../src/vue.js";
import { ChatServer, until } from "./server.js";

let server: ChatServer;
let apps: App[];

beforeEach(async () => {
  server = new ChatServer();
  apps = [];
  await server.start();
});

afterEach(async () => {
  for (const app of apps) app.unmount();
  await new Promise(setImmediate);
  await server.stop();
});

/** What an app writes. */
const conversation = (given: Chat | ChatOptions) =>
  defineComponent({
    setup() {
      const { turns, connection, canSend, send } = useChat(given);
      return () =>
        h("main", { "data-connection": connection.value, "data-can-send": canSend.value }, [
          ...turns.value.map((turn) => h("p", { key: turn.key }, turn.text)),
          h("button", { onClick: () => send("hello") }, "Send"),
        ]);
    },
  });

const options = (more: Partial<ChatOptions> = {}): ChatOptions => ({
  ...{ echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url },
  ...more,
});

function show(given: Chat | ChatOptions): { place: HTMLElement; app: App } {
  const place = document.createElement("div");
  const app = createApp(conversation(given));
  apps.push(app);
  app.mount(place);
  return { place, app };
}

function listenersOf(echo: ReturnType<ChatServer["echo"]>): number {
  const channel = echo.connector.pusher.channel("private-ai-chat.7") as unknown as {
    global_callbacks: unknown[];
  };
  return channel.global_callbacks.length;
}

const main = (place: HTMLElement): HTMLElement | null => place.querySelector("main");
const texts = (place: HTMLElement): (string | null)[] =>
  [...place.querySelectorAll("p")].map((node) => node.textContent);
const isLive = (place: HTMLElement) =>
  until("live", () => main(place)?.dataset["connection"] === "live");

test("a reply streams into the page, each token once", async () => {
  const { place } = show(options());
  await isLive(place);
  place.querySelector("button")?.click();
  await until("request", () => server.seen("POST", "/api/chat/send").length);
  server.tokens(0, 3);
  server.completed(3);
  await until("ready", () => main(place)?.dataset["canSend"] === "true" && texts(place)[1] !== "");
  assert.deepEqual(texts(place), ["hello", "w0 w1 w2 "]);
});

test("after the component has gone nobody listens", async () => {
  const echo = server.echo();
  const { place, app } = show(options({ echo }));
  await isLive(place);
  assert.equal(listenersOf(echo), 1);
  app.unmount();
  apps = [];
  await until("silence", () => listenersOf(echo) === 0);
});

test("components share a chat", async () => {
  const echo = server.echo();
  const chat = createChat(options({ echo }));
  const [one, two] = [show(chat), show(chat)];
  await isLive(one.place);
  await isLive(two.place);
  assert.equal(listenersOf(echo), 1);
  chat.send("hello");
  await until("both", () => [one, two].every(({ place }) => texts(place).length === 2));
});

test("outside of a component it lives as long as its scope", async () => {
  const echo = server.echo();
  const scope = effectScope();
  const chat = scope.run(() => useChat(options({ echo })));
  await until("live", () => chat?.connection.value === "live");
  scope.stop();
  await until("silence", () => listenersOf(echo) === 0);
});

test("on a server it renders an empty conversation and opens nothing", async () => {
  const echo = (): never => {
    throw new Error("opened");
  };
  const html = await renderToString(createSSRApp(conversation(options({ echo }))));
  assert.match(html, /^<main data-connection="connecting"/);
});
