/** `legato-client/core`: little of what `legato-client` has, and every reply whole all the same. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { createChat, type CoreChat, type CoreOptions } from "../src/core.js";
import type { Gap } from "../src/exchange.js";
import type { Reply } from "../src/reducer.js";
import { ChatServer, logOf, until, word, words } from "./server.js";

let server: ChatServer;
let chats: CoreChat[];

beforeEach(async () => {
  server = new ChatServer();
  chats = [];
  await server.start();
});

afterEach(async () => {
  for (const chat of chats) chat.close();
  await server.stop();
});

async function open(options: Partial<CoreOptions> = {}): Promise<CoreChat> {
  const defaults = { echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url };
  const chat = createChat({ ...defaults, ...options });
  chats.push(chat);
  assert.equal(chat.send("hello"), false); // nobody listens yet
  chat.subscribe(() => undefined);
  await until("live", () => chat.getSnapshot().connection === "live");
  return chat;
}

const last = (chat: CoreChat): Reply | undefined =>
  chat.getSnapshot().turns.at(-1) as Reply | undefined;

const whole = (count: number): string => words(0, count).join("");

const isAsked = (chat: CoreChat) => until("an id", () => last(chat)?.messageId);

test("holes, and tokens before the answer, are filled", async () => {
  const gaps: Gap[] = [];
  const chat = await open({ onGap: (gap) => gaps.push(gap) });
  server.send = () => {
    server.tokens(0, 2);
    return { body: { message_id: "m1" } };
  };
  server.read = (seen) => logOf(seen, 6, "streaming");
  assert.equal(chat.send(" hello "), true);
  await until("the first tokens", () => last(chat)?.text === whole(2));
  server.emit("token.received", { messageId: "m1", token: word(4), tokenIndex: 4 });
  server.emit("token.received", { messageId: "m1", token: word(4), tokenIndex: 4 });
  await until("the hole", () => last(chat)?.text === whole(6));
  assert.deepEqual(gaps, [{ messageId: "m1", from: 2 }]);
  server.completed(6);
  await until("complete", () => last(chat)?.status === "complete");
  assert.equal(last(chat)?.text, whole(6));

  assert.equal(chat.send("again"), true);
  await until("the second request", () => server.seen("POST", "/api/chat/send").length === 2);
  const [first, second] = server.seen("POST", "/api/chat/send").map(({ body }) => body);
  assert.equal(first?.session_id, second?.session_id);
  assert.deepEqual(second?.history, [
    { role: "user", content: "hello" },
    { role: "assistant", content: whole(6) },
  ]);
});

test("a lost connection and a lost ending are made up for", async () => {
  const chat = await open({ silenceMs: 30 });
  chat.send("hello");
  await isAsked(chat);
  server.tokens(0, 2);
  await until("tokens", () => last(chat)?.nextIndex === 2);
  server.read = (seen) => logOf(seen, 4, "streaming");
  server.dropSockets();
  await until("what was missed", () => last(chat)?.text === whole(4));
  server.read = (seen) => logOf(seen, 5, "complete");
  await until("the end that nobody told", () => last(chat)?.status === "complete");
  assert.equal(last(chat)?.text, whole(5));
});

test("a request whose answer is lost is repeated as it was", async () => {
  const chat = await open();
  server.send = () => {
    const isFirst = server.seen("POST", "/api/chat/send").length === 1;
    return isFirst ? { status: 504, body: {} } : { body: { message_id: "m1" } };
  };
  chat.send("hello");
  await isAsked(chat);
  const [first, second] = server.seen("POST", "/api/chat/send");
  assert.equal(first?.idempotencyKey, second?.idempotencyKey);
  assert.deepEqual(first?.body, second?.body);
});

test("one reply at a time, which may be stopped; what the server refuses is told", async () => {
  const chat = await open();
  chat.send("hello");
  assert.equal(chat.getSnapshot().canSend, false);
  assert.equal(chat.send("too early"), false);
  chat.stop(); // before the id is known
  await until("the cancel", () => server.seen("POST", "/api/chat/m1/cancel").length === 1);
  assert.deepEqual([last(chat)?.status, chat.getSnapshot().activeStreams], ["cancelled", []]);

  server.send = () => ({ status: 422, body: { message: "Too long." } });
  assert.equal(chat.send("x"), true);
  await until("the refusal", () => last(chat)?.status === "failed");
  assert.deepEqual([last(chat)?.errorKind, last(chat)?.error], ["refused", "Too long."]);
});
