import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import Pusher from "pusher-js";

import { channelAuth } from "../src/auth.js";
import { createChat, type Chat, type ChatOptions } from "../src/chat.js";
import type { Keeper } from "../src/conversation.js";
import type { Gap } from "../src/exchange.js";
import { parts } from "../src/part-rules.js";
import type { Reply, Turn } from "../src/reducer.js";
import type { Saved } from "../src/thread.js";
import { ChatServer, logOf, until, type Answer } from "./server.js";

let server: ChatServer;
let chats: Chat[];
let browser: EventTarget;

/** What a browser has of its window and Node has not. */
type BrowserGlobal = Pick<EventTarget, "addEventListener" | "removeEventListener">;

beforeEach(async () => {
  browser = new EventTarget();
  const place = globalThis as Partial<BrowserGlobal>;
  place.addEventListener = browser.addEventListener.bind(browser);
  place.removeEventListener = browser.removeEventListener.bind(browser);
  server = new ChatServer();
  chats = [];
  await server.start();
});

afterEach(async () => {
  for (const chat of chats) chat.close();
  await server.stop();
  const place = globalThis as Partial<BrowserGlobal>;
  delete place.addEventListener;
  delete place.removeEventListener;
});

function make(options: Partial<ChatOptions> = {}): Chat {
  const defaults = { echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url };
  const chat = createChat({ ...defaults, ...options });
  chats.push(chat);
  return chat;
}

async function makeLive(options: Partial<ChatOptions> = {}): Promise<Chat> {
  const chat = make(options);
  chat.subscribe(() => undefined);
  await until("live", () => chat.getSnapshot().connection === "live");
  return chat;
}

const replies = (chat: Chat): Reply[] =>
  chat.getSnapshot().turns.filter((turn: Turn): turn is Reply => turn.role === "assistant");

const statuses = (chat: Chat): string[] => replies(chat).map((reply) => reply.status);

const sent = () => server.seen("POST", "/api/chat/send");

/** Each message gets an id of its own, in order. */
function countIds(): void {
  let id = 0;
  server.send = () => ({ body: { message_id: `m${String((id += 1))}` } });
}

/** The whole reply, as the server sends it. */
function finish(messageId: string, count = 1): void {
  server.tokens(0, count, messageId);
  server.completed(count, messageId);
}

const networkIs = (event: "online" | "offline"): void => {
  browser.dispatchEvent(new Event(event));
};

/** Where conversations are kept, without a storage. */
class Memory implements Keeper {
  saved: Saved | null = null;
  load = (): Saved | null => this.saved;
  save = (_name: string, saved: Saved): void => {
    this.saved = saved;
  };
}

describe("the store", () => {
  test("does nothing before somebody subscribes, and stops when nobody is", async () => {
    const echo = server.echo();
    const chat = make({ echo });
    assert.equal(chat.send("hello"), false);
    assert.deepEqual(
      [chat.getSnapshot().connection, Object.keys(echo.connector.channels)],
      ["connecting", []],
    );
    const stop = chat.subscribe(() => undefined);
    await until("live", () => chat.getSnapshot().connection === "live");
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    stop();
    stop();
    await new Promise(setImmediate);
    const before = chat.getSnapshot();
    let heard = false;
    echo.private("ai-chat.7").listen(".token.received", () => (heard = true));
    server.tokens(0, 1);
    await until("the token", () => heard);
    assert.equal(chat.getSnapshot(), before);
  });

  test("goes on from the server's log when somebody subscribes again", async () => {
    const chat = make();
    const stop = chat.subscribe(() => undefined);
    await until("live", () => chat.getSnapshot().connection === "live");
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    stop();
    await new Promise(setImmediate);
    server.tokens(0, 2); // nobody hears these
    server.read = (seen) => logOf(seen, 2, "complete");
    chat.subscribe(() => undefined);
    await until("complete", () => replies(chat)[0]?.status === "complete");
    assert.equal(replies(chat)[0]?.text, "w0 w1 ");
  });

  test("keeps its channel when one subscriber replaces another in the same moment", async () => {
    const chat = make();
    let calls = 0;
    const first = chat.subscribe(() => undefined);
    first();
    chat.subscribe(() => (calls += 1));
    await until("live", () => chat.getSnapshot().connection === "live");
    assert.equal(server.seen("POST", "/broadcasting/auth").length, 1);
    const before = calls;
    chat.send("hello");
    server.emit("stream.started", { messageId: "m1", attempt: 1, model: "x" });
    await until("the model", () => replies(chat)[0]?.model);
    assert.ok(calls > before);
  });

  test("never changes a snapshot, and keeps what did not change", async () => {
    const chat = await makeLive();
    const empty = chat.getSnapshot();
    assert.equal(chat.getSnapshot(), empty);
    chat.send("hello");
    const { turns } = chat.getSnapshot();
    assert.deepEqual(empty.turns, []);
    await until("id", () => replies(chat)[0]?.messageId);
    server.tokens(0, 1);
    await until("token", () => replies(chat)[0]?.text);
    assert.equal(chat.getSnapshot().turns[0], turns[0]);
    assert.notEqual(chat.getSnapshot().turns[1], turns[1]);
    assert.equal((turns[1] as Reply).text, "");
  });

  test("takes a pusher-js instance as well", async () => {
    const pusher = new Pusher("app-key", {
      ...{ cluster: "", wsHost: "127.0.0.1", wsPort: Number(new URL(server.url).port) },
      ...{ forceTLS: false, enabledTransports: ["ws"] },
      ...channelAuth({ baseUrl: server.url, token: "jwt" }),
    });
    const chat = await makeLive({ echo: pusher });
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    finish("m1");
    await until("complete", () => replies(chat)[0]?.status === "complete");
    chat.close();
    pusher.disconnect();
  });

  test("without the rules for parts takes the text of a reply that has parts", async () => {
    const plain = await makeLive();
    const whole = await makeLive({ parts });
    for (const chat of [plain, whole]) chat.send("hello");
    await until("ids", () => [plain, whole].every((chat) => replies(chat)[0]?.messageId));
    server.emit("reasoning.received", { messageId: "m1", offset: 0, tokenIndex: 0, delta: "Hm." });
    finish("m1");
    await until("both", () => [plain, whole].every((chat) => statuses(chat)[0] === "complete"));
    assert.deepEqual(
      [plain, whole].map((chat) => [replies(chat)[0]?.text, replies(chat)[0]?.parts.length]),
      [
        ["w0 ", 0],
        ["w0 ", 1],
      ],
    );
  });

  test("reports a gap with the message's id", async () => {
    const gaps: Gap[] = [];
    server.read = (seen) => logOf(seen, 3, "streaming");
    const chat = await makeLive({ onGap: (gap) => gaps.push(gap) });
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    server.tokens(2, 3);
    await until("whole", () => replies(chat)[0]?.text === "w0 w1 w2 ");
    assert.deepEqual(gaps, [{ messageId: "m1", from: 0 }]);
  });
});

describe("the connection", () => {
  test("is offline at once when the browser says so, and live when the socket has proved it", async () => {
    const chat = await makeLive();
    networkIs("offline");
    assert.equal(chat.getSnapshot().connection, "offline");
    networkIs("online");
    assert.equal(chat.getSnapshot().connection, "connecting");
    await until("live", () => chat.getSnapshot().connection === "live");
  });

  test("reads what was missed while it was offline", async () => {
    const chat = await makeLive();
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    networkIs("offline");
    server.read = (seen) => logOf(seen, 2, "complete");
    networkIs("online");
    await until("complete", () => replies(chat)[0]?.status === "complete");
    assert.equal(replies(chat)[0]?.text, "w0 w1 ");
  });

  test("is asked for again when the authorisation fails for a moment", async () => {
    server.authorize = () => ({ status: 503, body: {} });
    const chat = make();
    chat.subscribe(() => undefined);
    await until("a refusal", () => server.seen("POST", "/broadcasting/auth").length);
    server.authorize = () => ({ body: { auth: "app-key:signature" } });
    await until("live", () => chat.getSnapshot().connection === "live");
  });

  test("refused says so, for people, and takes no message", async () => {
    server.subscription = "refuse";
    for (const more of [{}, channelAuth({ baseUrl: server.url, token: "jwt" })]) {
      const chat = make({ echo: server.echo(more) });
      chat.subscribe(() => undefined);
      await until("refused", () => chat.getSnapshot().connection === "refused");
      assert.equal(chat.getSnapshot().error?.kind, "denied");
      assert.equal(chat.send("hello"), false);
    }
    server.subscription = "confirm";
    server.dropSockets();
    await until("live", () => chats.every((chat) => chat.getSnapshot().connection === "live"));
    assert.deepEqual(
      chats.map((chat) => chat.getSnapshot().error),
      [null, null],
    );
  });
});

describe("unsent messages", () => {
  test("wait for the connection, go one after the other, and have the history of their time", async () => {
    countIds();
    const chat = await makeLive();
    networkIs("offline");
    assert.deepEqual([chat.send("one"), chat.send("two")], [true, true]);
    assert.deepEqual([statuses(chat), sent().length], [["unsent", "unsent"], 0]);
    assert.deepEqual(chat.getSnapshot().activeStreams, []);
    networkIs("online");
    await until("first", () => replies(chat)[0]?.messageId);
    assert.deepEqual(statuses(chat), ["thinking", "unsent"]);
    finish("m1");
    await until("second", () => replies(chat)[1]?.messageId);
    assert.deepEqual(
      sent().map(({ body }) => [body.message, body.history.map((item) => item.content)]),
      [
        ["one", []],
        ["two", ["one", "w0 "]],
      ],
    );
  });

  test("survive a refresh, and are sent once", async () => {
    const keep = new Memory();
    const before = await makeLive({ keep });
    networkIs("offline");
    before.send("later");
    before.close();
    networkIs("online");
    const after = await makeLive({ keep });
    await until("id", () => replies(after)[0]?.messageId);
    assert.deepEqual(
      sent().map(({ body }) => body.message),
      ["later"],
    );
  });

  test("that are stopped are never sent, nor part of the history", async () => {
    const chat = await makeLive();
    networkIs("offline");
    chat.send("never mind");
    chat.stop();
    networkIs("online");
    await until("live", () => chat.getSnapshot().canSend);
    chat.send("hello");
    await until("id", () => replies(chat)[1]?.messageId);
    assert.deepEqual(
      sent().map(({ body }) => [body.message, body.history]),
      [["hello", []]],
    );
  });

  test("are at most twenty, and none with `queue: false`", () => {
    const chat = make();
    chat.subscribe(() => undefined);
    networkIs("offline");
    const taken = Array.from({ length: 21 }, () => chat.send("x"));
    assert.deepEqual([taken.filter(Boolean).length, chat.getSnapshot().canSend], [20, false]);
    const without = make({ queue: false });
    without.subscribe(() => undefined);
    assert.equal(without.send("x"), false);
  });

  test("whose answer is lost are repeated as they were, with the same key", async () => {
    let calls = 0;
    server.send = () =>
      (calls += 1) < 3 ? { status: 504, body: {} } : { body: { message_id: "m1" } };
    const chat = await makeLive();
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    assert.deepEqual(
      [sent().length, new Set(sent().map((seen) => seen.idempotencyKey)).size],
      [3, 1],
    );
    assert.equal(new Set(sent().map(({ body }) => JSON.stringify(body))).size, 1);
  });

  test("whose answer is lost with the connection are repeated when it is back", async () => {
    let fail = (): void => undefined;
    server.send = () =>
      new Promise<Answer>((resolve) => {
        fail = () => {
          resolve({ status: 504, body: {} });
        };
      });
    const chat = await makeLive({ tries: 1 });
    chat.send("hello");
    await until("request", () => sent().length);
    networkIs("offline");
    const [first] = sent();
    fail();
    server.send = () => ({ body: { message_id: "m1" } });
    networkIs("online");
    await until("id", () => replies(chat)[0]?.messageId);
    assert.deepEqual(sent()[1], first);
  });
});

describe("several streams", () => {
  test("run at once up to `maxStreams`, each by its id", async () => {
    countIds();
    const chat = await makeLive({ maxStreams: 2 });
    assert.deepEqual([chat.send("a"), chat.send("b"), chat.send("c")], [true, true, false]);
    await until("ids", () => replies(chat).every((reply) => reply.messageId));
    server.tokens(0, 1, "m2");
    server.tokens(0, 2, "m1");
    server.completed(1, "m2");
    await until("one", () => chat.getSnapshot().activeStreams.length === 1);
    assert.deepEqual(
      replies(chat).map((reply) => reply.text),
      ["w0 w1 ", "w0 "],
    );
    assert.equal(chat.getSnapshot().canSend, true);
  });

  test("stop one by one, or all", async () => {
    countIds();
    const chat = await makeLive({ maxStreams: 3 });
    for (const text of ["a", "b", "c"]) chat.send(text);
    await until("ids", () => replies(chat).every((reply) => reply.messageId));
    chat.stop(replies(chat)[1]?.key);
    assert.deepEqual(statuses(chat), ["thinking", "cancelled", "thinking"]);
    chat.stop();
    assert.deepEqual(statuses(chat), ["cancelled", "cancelled", "cancelled"]);
    await until(
      "all told",
      () => server.requests.filter(({ path }) => path.endsWith("/cancel")).length === 3,
    );
  });

  test("that still run when the conversation is cleared are all stopped", async () => {
    countIds();
    const chat = await makeLive({ maxStreams: 2 });
    for (const text of ["a", "b"]) chat.send(text);
    await until("ids", () => replies(chat).every((reply) => reply.messageId));
    chat.clear();
    assert.deepEqual(chat.getSnapshot().turns, []);
    await until(
      "both told",
      () => server.requests.filter(({ path }) => path.endsWith("/cancel")).length === 2,
    );
  });
});

describe("a reply that has ended", () => {
  test("is made anew in its place, with the history from before it", async () => {
    countIds();
    const chat = await makeLive();
    chat.send("one");
    await until("id", () => replies(chat)[0]?.messageId);
    finish("m1");
    await until("complete", () => statuses(chat)[0] === "complete");
    const key = replies(chat)[0]?.key ?? "";
    chat.retry(key); // is for what failed
    assert.equal(statuses(chat)[0], "complete");
    chat.regenerate(key);
    await until("another id", () => replies(chat)[0]?.messageId === "m2");
    finish("m2", 2);
    await until("complete", () => statuses(chat)[0] === "complete");
    assert.deepEqual([replies(chat)[0]?.key, replies(chat)[0]?.text], [key, "w0 w1 "]);
    const [first, second] = sent();
    assert.deepEqual(first?.body, second?.body);
    assert.notEqual(first?.idempotencyKey, second?.idempotencyKey);
  });

  test("goes, with all behind it, when what was asked is edited", async () => {
    countIds();
    const chat = await makeLive();
    for (const id of ["m1", "m2"]) {
      chat.send(`ask ${id}`);
      await until("id", () => replies(chat).at(-1)?.messageId === id);
      if (id === "m1") finish(id);
      await until("next", () => id === "m2" || chat.getSnapshot().canSend);
    }
    const [user] = chat.getSnapshot().turns;
    assert.equal(chat.edit(user?.key ?? "", "  "), false);
    assert.equal(chat.getSnapshot().turns.length, 4);
    assert.equal(chat.edit(user?.key ?? "", "better"), true);
    await until("id", () => replies(chat)[0]?.messageId === "m3");
    assert.deepEqual(
      chat.getSnapshot().turns.map((turn) => turn.text),
      ["better", ""],
    );
    await until("m2 is stopped", () => server.seen("POST", "/api/chat/m2/cancel").length);
    assert.deepEqual(sent().at(-1)?.body.history, []);
  });
});

test("nothing is forgotten for an edit that cannot be sent", async () => {
  const chat = await makeLive({ queue: false });
  chat.send("one");
  await until("id", () => replies(chat)[0]?.messageId);
  finish("m1");
  await until("complete", () => statuses(chat)[0] === "complete");
  networkIs("offline");
  const { turns } = chat.getSnapshot();
  assert.equal(chat.edit(turns[0]?.key ?? "", "better"), false);
  assert.equal(chat.getSnapshot().turns, turns);
});

describe("options of a message", () => {
  const attachments = [{ type: "image/png", data: "AA==" }];

  test("go with it, again when it is retried, and stand in the user's turn", async () => {
    server.send = () => ({ status: 503, body: {} });
    const chat = await makeLive();
    chat.send("look", { attachments, model: "m" });
    await until("failed", () => statuses(chat)[0] === "failed");
    assert.equal(replies(chat)[0]?.errorKind, "overload");
    countIds();
    chat.retry(replies(chat)[0]?.key ?? "");
    await until("id", () => replies(chat)[0]?.messageId);
    assert.deepEqual(
      sent().map(({ body }) => [body["attachments"], body["model"], body.message]),
      [
        [attachments, "m", "look"],
        [attachments, "m", "look"],
      ],
    );
    const [user] = chat.getSnapshot().turns;
    assert.deepEqual(user?.role === "user" && user.options, { attachments, model: "m" });
  });
});

describe("the token", () => {
  /** A source that gives t0 until that is refused. */
  function source(): { token: (refused?: string) => Promise<string>; refused: unknown[] } {
    const refused: unknown[] = [];
    let current = 0;
    const token = (old?: string): Promise<string> => {
      refused.push(old);
      if (old === `t${String(current)}`) current += 1;
      return Promise.resolve(`t${String(current)}`);
    };
    return { token, refused };
  }

  const onlyT1 = (answer: Answer) => (seen: { authorization: string }) =>
    seen.authorization === "Bearer t1" ? answer : { status: 401, body: {} };

  test("is asked for once more when a call is refused with 401", async () => {
    const { token, refused } = source();
    server.send = onlyT1({ body: { message_id: "m1" } });
    const chat = await makeLive({ token });
    chat.send("hello");
    await until("id", () => replies(chat)[0]?.messageId);
    assert.deepEqual(refused, [undefined, "t0"]);
    assert.equal(sent()[0]?.idempotencyKey, sent()[1]?.idempotencyKey);
  });

  test("that is refused twice is the end, in words", async () => {
    server.send = () => ({ status: 401, body: {} });
    const chat = await makeLive({ token: source().token });
    chat.send("hello");
    await until("failed", () => statuses(chat)[0] === "failed");
    assert.deepEqual([sent().length, replies(chat)[0]?.errorKind], [2, "denied"]);
  });

  test("that cannot be had counts as no connection", async () => {
    const chat = await makeLive({ token: () => Promise.reject(new Error("no")), tries: 1 });
    chat.send("hello");
    await until("failed", () => statuses(chat)[0] === "failed");
    assert.deepEqual([sent().length, replies(chat)[0]?.errorKind], [0, "offline"]);
  });

  test("is asked for at each subscription, and once more when that is refused", async () => {
    const { token } = source();
    server.authorize = onlyT1({ body: { auth: "app-key:signature" } });
    const echo = server.echo(channelAuth({ baseUrl: server.url, token }));
    const chat = await makeLive({ echo });
    const authorizations = () =>
      server.seen("POST", "/broadcasting/auth").map((seen) => seen.authorization);
    assert.deepEqual(authorizations(), ["Bearer t0", "Bearer t1"]);
    server.dropSockets();
    await until("authorised anew", () => authorizations().length === 3);
    await until("live", () => chat.getSnapshot().connection === "live");
    assert.deepEqual(authorizations(), ["Bearer t0", "Bearer t1", "Bearer t1"]);
  });
});

describe("an error has a kind and words for people:", () => {
  const cases: [number, string][] = [
    [401, "denied"],
    [403, "denied"],
    [413, "too_long"],
    [422, "refused"],
    [429, "rate_limit"],
    [500, "failed"],
    [503, "overload"],
  ];
  for (const [status, kind] of cases) {
    test(`${String(status)} is ${kind}`, async () => {
      server.send = () => ({ status, body: { message: "said by the server" } });
      const chat = await makeLive();
      chat.send("hello");
      await until("failed", () => statuses(chat)[0] === "failed");
      const { error, errorKind } = replies(chat)[0] ?? {};
      assert.equal(errorKind, kind);
      assert.equal(error === "said by the server", ["refused", "failed"].includes(kind));
    });
  }

  const codes: [string | undefined, string, RegExp][] = [
    ["refusal", "refused", /declined/],
    ["overloaded", "overload", /busy/],
    ["rate_limited", "overload", /busy/],
    ["context_window", "too_long", /too long/],
    ["timeout", "failed", /^Sorry\.$/],
    [undefined, "failed", /^Sorry\.$/],
    ["constructor", "failed", /^Sorry\.$/],
  ];
  for (const [code, kind, words] of codes) {
    test(`stream.failed with ${String(code)} is ${kind}`, async () => {
      const chat = await makeLive();
      chat.send("hello");
      await until("id", () => replies(chat)[0]?.messageId);
      server.emit("stream.failed", { messageId: "m1", error: "Sorry.", code });
      await until("failed", () => statuses(chat)[0] === "failed");
      assert.equal(replies(chat)[0]?.errorKind, kind);
      assert.match(replies(chat)[0]?.error ?? "", words);
    });
  }

  test("a message that is too long is not taken, and the next one clears that", async () => {
    const chat = await makeLive({ maxMessage: 5 });
    assert.equal(chat.send("123456"), false);
    assert.deepEqual(chat.getSnapshot().error?.kind, "too_long");
    assert.match(chat.getSnapshot().error?.text ?? "", /6 of at most 5/);
    assert.equal(chat.send("12345"), true);
    assert.equal(chat.getSnapshot().error, null);
  });
});
