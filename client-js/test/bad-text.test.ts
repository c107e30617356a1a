/** Whatever people paste, and whatever a reply holds, the next message is taken. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import fc from "fast-check";

import { createChat, type Chat } from "../src/chat.js";
import type { Keeper } from "../src/conversation.js";
import { MAX_HISTORY, MAX_HISTORY_CHARACTERS, MAX_MESSAGE } from "../src/limits.js";
import type { Reply, Turn } from "../src/reducer.js";
import { keepIn } from "../src/storage.js";
import { ChatServer, until, type Answer, type Seen } from "./server.js";

let server: ChatServer;
let echo: ReturnType<ChatServer["echo"]>;
let sent = 0;

beforeEach(async () => {
  server = new ChatServer();
  await server.start();
  server.send = admit;
  echo = server.echo();
});

afterEach(() => server.stop());

const MAX_BODY = 2 ** 20;
const lengthOf = (text: string): number => Array.from(text).length;
const isWhole = (text: string): boolean => !/\p{Surrogate}/u.test(text);

/** Answers as the server does: what breaks a rule of `docs/chat.md` is refused. */
function admit({ body }: Seen): Answer {
  const all = [body.message, ...body.history.map((item) => item.content)];
  const size = new TextEncoder().encode(JSON.stringify(body)).length;
  const characters = body.history.reduce((sum, item) => sum + lengthOf(item.content), 0);
  if (size > MAX_BODY) return { status: 413, body: {} };
  const isFine =
    all.every((text) => text !== "" && isWhole(text)) &&
    lengthOf(body.message) <= MAX_MESSAGE &&
    body.history.length <= MAX_HISTORY &&
    characters <= MAX_HISTORY_CHARACTERS &&
    body.history[0]?.role !== "assistant";
  if (!isFine) return { status: 422, body: { message: "no" } };
  return { body: { message_id: `m${String((sent += 1))}` } };
}

const repeated = (unit: string, length: number): string =>
  unit.repeat(Math.ceil(length / unit.length)).slice(0, length);

const UNITS = [
  "a",
  " ",
  "\u0000",
  "\uD83D",
  "\uDE00",
  "\u{1F600}",
  "\u202E",
  "\u05D0",
  "e\u0301",
  "\uFEFF",
  "\u2028",
  "\uFFFF",
  "漢",
  '"\\',
];

const badText = fc.oneof(
  fc.array(fc.constantFrom(...UNITS), { maxLength: 30 }).map((parts) => parts.join("")),
  // Not fc.string({ unit: "binary" }): that makes a table of all characters first, in two seconds.
  fc
    .array(fc.integer({ min: 0, max: 0x10ffff }), { maxLength: 50 })
    .map((points) => String.fromCodePoint(...points)),
  fc
    .tuple(fc.constantFrom(...UNITS), fc.constantFrom(MAX_MESSAGE - 1, MAX_MESSAGE, 2 ** 20))
    .map(([unit, length]) => repeated(unit, length)),
);

const turn = fc.record({
  said: badText,
  replied: badText,
  options: fc.option(fc.record({ metadata: fc.record({ note: badText }) }), { nil: undefined }),
});

const last = (chat: Chat): Reply | undefined => {
  const found: Turn | undefined = chat.getSnapshot().turns.at(-1);
  return found?.role === "assistant" ? found : undefined;
};

/** A conversation that a refresh brings back, in the middle of it. */
function keeper(): Keeper {
  const items = new Map<string, string>();
  return keepIn({
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  });
}

async function open(keep: Keeper): Promise<Chat> {
  const chat = createChat({ echo, userId: 7, token: "jwt", baseUrl: server.url, keep });
  chat.subscribe(() => undefined);
  await until("live", () => chat.getSnapshot().connection === "live");
  return chat;
}

async function say(chat: Chat, said: string, replied: string, options?: object): Promise<boolean> {
  if (!chat.send(said, options as Record<string, unknown>)) return false;
  await until("an answer", () => last(chat)?.messageId ?? last(chat)?.endedAt);
  const messageId = last(chat)?.messageId;
  if (messageId) {
    const text = replied.slice(0, 200_000);
    server.emit("token.received", { messageId, token: text, tokenIndex: 0 });
    server.emit("stream.completed", { messageId, totalTokens: 1 });
    await until("the end", () => last(chat)?.endedAt);
  }
  return true;
}

test("bad text anywhere never breaks a later message, also over a refresh", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(turn, { minLength: 1, maxLength: 4 }), async (turns) => {
      const keep = keeper();
      let chat = await open(keep);
      for (const { said, replied, options } of turns) {
        await say(chat, said, replied, options);
        chat.close();
        chat = await open(keep);
      }
      assert.ok(await say(chat, "hello", "fine"), "not taken");
      assert.deepEqual([last(chat)?.status, last(chat)?.text], ["complete", "fine"]);
      chat.close();
    }),
    { numRuns: 25 },
  );
});

test("a message of the largest characters fits beside a full history of them", async () => {
  const chat = await open(keeper());
  const worst = repeated("\u0000", 20_000);
  for (const said of ["a", "b", "c", "d"]) assert.ok(await say(chat, said, `${said}${worst}`));
  assert.ok(await say(chat, `x${repeated("\u0000", MAX_MESSAGE - 2)}x`, "fine"));
  assert.equal(last(chat)?.status, "complete");
  const sizes = server
    .seen("POST", "/api/chat/send")
    .map(({ body }) => body.history.reduce((sum, item) => sum + item.content.length, 0));
  assert.ok((sizes.at(-1) ?? 0) > 50_000, "much of it is there all the same");
  chat.close();
});
