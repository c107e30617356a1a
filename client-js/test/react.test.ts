import "./dom.mjs";

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { createElement, StrictMode, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";

import { createChat, type Chat, type ChatOptions } from "../src/chat.js";
import { useChat } from "../src/react.js";
import { ChatServer, logOf, until } from "./server.js";

let server: ChatServer;
let roots: Root[];

beforeEach(async () => {
  server = new ChatServer();
  roots = [];
  await server.start();
});

afterEach(async () => {
  for (const root of roots) root.unmount();
  await new Promise(setImmediate);
  await server.stop();
});

/** What an app writes. */
function Conversation({ given }: { readonly given: Chat | ChatOptions }): ReactNode {
  const { turns, connection, canSend, send, stop, activeStreams } = useChat(given);
  const act = (): void => {
    if (activeStreams.length > 0) stop();
    else send("hello");
  };
  return createElement(
    "main",
    { "data-connection": connection, "data-can-send": canSend },
    ...turns.map((turn) => createElement("p", { key: turn.key }, turn.text)),
    createElement("button", { onClick: act }, "Send"),
  );
}

const options = (more: Partial<ChatOptions> = {}): ChatOptions => ({
  ...{ echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url },
  ...more,
});

function show(element: ReactNode): { place: HTMLElement; root: Root } {
  const place = document.createElement("div");
  const root = createRoot(place);
  roots.push(root);
  root.render(element);
  return { place, root };
}

const strict = (given: Chat | ChatOptions): ReactNode =>
  createElement(StrictMode, null, createElement(Conversation, { given }));

const main = (place: HTMLElement): HTMLElement | null => place.querySelector("main");
const texts = (place: HTMLElement): (string | null)[] =>
  [...place.querySelectorAll("p")].map((node) => node.textContent);
const click = (place: HTMLElement): void => place.querySelector("button")?.click();
const isLive = (place: HTMLElement) =>
  until("live", () => main(place)?.dataset["connection"] === "live");

test("in StrictMode a reply streams into the page, over one subscription, each token once", async () => {
  const echo = server.echo();
  const { place } = show(strict(options({ echo })));
  await isLive(place);
  click(place);
  await until("request", () => server.seen("POST", "/api/chat/send").length);
  server.tokens(0, 3);
  await until("text", () => texts(place)[1] === "w0 w1 w2 ");
  server.completed(3);
  await until("ready", () => main(place)?.dataset["canSend"] === "true");
  assert.deepEqual(texts(place), ["hello", "w0 w1 w2 "]);
  assert.equal(server.seen("POST", "/broadcasting/auth").length, 1);
  assert.equal(server.seen("POST", "/api/chat/send").length, 1);
  assert.equal(listenersOf(echo), 1);
});

/** How many listen for tokens. */
function listenersOf(echo: ReturnType<ChatServer["echo"]>): number {
  const channel = echo.connector.pusher.channel("private-ai-chat.7") as unknown as {
    global_callbacks: unknown[];
  };
  return channel.global_callbacks.length;
}

test("after the component has gone nobody listens, and nothing is left on the channel", async () => {
  const echo = server.echo();
  const { place, root } = show(strict(options({ echo })));
  await isLive(place);
  root.unmount();
  await until("silence", () => listenersOf(echo) === 0);
});

test("components share a chat, which stops with the last of them", async () => {
  const echo = server.echo();
  const chat = createChat(options({ echo }));
  const [one, two] = [show(strict(chat)), show(strict(chat))];
  await isLive(one.place);
  await isLive(two.place);
  assert.equal(listenersOf(echo), 1);
  click(one.place);
  await until("both", () => [one, two].every(({ place }) => texts(place).length === 2));
  one.root.unmount();
  server.tokens(0, 1);
  await until("text", () => texts(two.place)[1] === "w0 ");
  two.root.unmount();
  await until("silence", () => listenersOf(echo) === 0);
});

test("a component that comes back goes on with the shared chat from the server's log", async () => {
  const chat = createChat(options());
  const before = show(strict(chat));
  await isLive(before.place);
  click(before.place);
  await until(
    "id",
    () => (chat.getSnapshot().turns[1] as { messageId?: string } | undefined)?.messageId,
  );
  before.root.unmount();
  await new Promise(setImmediate);
  server.read = (seen) => logOf(seen, 2, "complete");
  const after = show(strict(chat));
  await until("text", () => texts(after.place)[1] === "w0 w1 ");
});

test("the functions stay the same over renders, and another user is another chat", async () => {
  const seen: ReturnType<typeof useChat>[] = [];
  const Probe = ({ userId }: { readonly userId: number }): ReactNode => {
    seen.push(useChat(options({ userId, echo })));
    return null;
  };
  const echo = server.echo();
  const { root } = show(createElement(Probe, { userId: 7 }));
  await until("live", () => seen.at(-1)?.connection === "live");
  const first = seen[0];
  assert.equal(seen.at(-1)?.send, first?.send);
  root.render(createElement(Probe, { userId: 8 }));
  await until("another", () => seen.at(-1)?.send !== first?.send);
});

test("on a server it renders an empty conversation and opens nothing", () => {
  const echo = (): never => {
    throw new Error("opened");
  };
  assert.match(renderToString(strict(options({ echo }))), /^<main data-connection="connecting"/);
});
