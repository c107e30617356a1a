import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { legatoAlpine, type AlpineOptions, type ChatComponent } from "../src/alpine.js";
import { createApi } from "../src/api.js";
import { serverConversations } from "../src/conversations.js";
import { converse } from "../src/conversation.js";
import type { Gap } from "../src/exchange.js";
import type { Reply, Status, Turn } from "../src/reducer.js";
import { keepIn, type TextStorage } from "../src/storage.js";
import { ChatServer, logOf, until, type Answer } from "./server.js";

let server: ChatServer;
let opened: ChatComponent[];

beforeEach(async () => {
  server = new ChatServer();
  opened = [];
  await server.start();
});

afterEach(async () => {
  for (const chat of opened) chat.destroy();
  await server.stop();
});

/** A browser's storage, which outlives a page. */
class Memory implements TextStorage {
  readonly items = new Map<string, string>();
  getItem = (name: string): string | null => this.items.get(name) ?? null;
  setItem = (name: string, value: string): void => void this.items.set(name, value);
  removeItem = (name: string): void => void this.items.delete(name);
}

function open(options: Partial<AlpineOptions> = {}): ChatComponent {
  const defaults = { echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url };
  const chat = legatoAlpine({ storage: null, ...defaults, ...options });
  opened.push(chat);
  chat.init();
  return chat;
}

async function openLive(options: Partial<AlpineOptions> = {}): Promise<ChatComponent> {
  const chat = open(options);
  await until("live", () => chat.subscribed);
  return chat;
}

const isReply = (turn: Turn | undefined): turn is Reply => turn?.role === "assistant";

function lastReply(chat: ChatComponent): Reply {
  const turn = chat.turns.at(-1);
  assert.ok(isReply(turn), "no reply");
  return turn;
}

function replyOf(chat: ChatComponent, key: string): Reply {
  const turn = chat.turns.filter(isReply).find((reply) => reply.key === key);
  assert.ok(turn, "no such reply");
  return turn;
}

const isNow = (chat: ChatComponent, status: Status): Promise<Reply | false> =>
  until(status, () => lastReply(chat).status === status && lastReply(chat));

const hasTokens = (chat: ChatComponent, count: number): Promise<boolean> =>
  until(`${String(count)} tokens`, () => lastReply(chat).nextIndex === count);

/** Send and wait for the id. */
async function sendAndAccept(chat: ChatComponent, text = "hello"): Promise<void> {
  chat.send(text);
  await until("id", () => lastReply(chat).messageId);
}

/** An answer that waits until it is released. */
function held(answer: Answer): { wait: () => Promise<Answer>; release: () => void } {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { wait: () => released.then(() => answer), release };
}

describe("what the server cannot take", () => {
  test("is not in the conversation of the messages behind it", async () => {
    const chat = await openLive();
    server.send = () => ({ status: 422, body: { message: "Too long." } });
    chat.send("refused");
    await isNow(chat, "failed");
    server.send = () => ({ body: { message_id: "m1" } });
    await sendAndAccept(chat, "good");
    assert.deepEqual(server.requests.at(-1)?.body.history, []);
  });

  test("is not sent: half a character is U+FFFD, also in what an earlier version kept", async () => {
    const api = createApi({ baseUrl: server.url, token: "jwt" });
    const history = [{ role: "user", content: "\uD83D" }] as const;
    await api.send({ message: "\uDE00 nice \u{1F600}", history, session_id: "s" }, "k");
    const { message, history: sent } = server.requests[0]?.body ?? {};
    assert.deepEqual(
      [message, sent],
      ["\uFFFD nice \u{1F600}", [{ role: "user", content: "\uFFFD" }]],
    );
  });
});

describe("a message that is too long", () => {
  test("is not sent, stays in the draft, and says so", async () => {
    const chat = await openLive({ maxMessage: 5 });
    chat.draft = "  123456 ";
    assert.match(chat.tooLong, /6 of at most 5 characters/);
    chat.send();
    assert.deepEqual([chat.draft, chat.turns.length], ["  123456 ", 0]);
    assert.equal(chat.announcement, chat.tooLong);
    chat.send("1234567");
    assert.match(chat.announcement, /7 of at most 5 characters/);
    chat.draft = " 12345 ";
    assert.equal(chat.tooLong, "");
    chat.send();
    await until("id", () => lastReply(chat).messageId);
    assert.deepEqual(
      server.seen("POST", "/api/chat/send").map((seen) => seen.body.message),
      ["12345"],
    );
  });

  test("is refused by the conversation itself, too", () => {
    let shown: readonly Turn[] = [];
    const conversation = converse({
      ...{ api: createApi({ baseUrl: server.url, token: "jwt" }), name: "k" },
      ...{ maxMessage: 5, onChange: (turns: readonly Turn[]) => void (shown = turns) },
    });
    conversation.open();
    assert.throws(() => {
      conversation.send("123456");
    }, RangeError);
    assert.deepEqual([shown.length, server.requests.length], [0, 0]);
    conversation.close();
  });
});

describe("a message", () => {
  test("is posted with the token, and its reply streams to the end", async () => {
    const chat = await openLive();
    chat.draft = "  hello  ";
    chat.send();
    assert.deepEqual([chat.draft, lastReply(chat).status], ["", "thinking"]);
    await until("id", () => lastReply(chat).messageId);
    server.tokens(0, 3);
    await isNow(chat, "streaming");
    server.completed(3);
    await isNow(chat, "complete");
    assert.equal(lastReply(chat).text, "w0 w1 w2 ");
    const [seen] = server.seen("POST", "/api/chat/send");
    assert.deepEqual([seen?.authorization, seen?.body.message], ["Bearer jwt", "hello"]);
  });

  test("carries the history from before its own turn, of whole replies only", async () => {
    const chat = await openLive();
    let id = 0;
    server.send = () => ({ body: { message_id: `m${String((id += 1))}` } });
    await sendAndAccept(chat, "first");
    server.tokens(0, 1, "m1");
    server.completed(1, "m1");
    await isNow(chat, "complete");
    await sendAndAccept(chat, "second");
    server.tokens(0, 1, "m2");
    await hasTokens(chat, 1);
    chat.stop();
    await sendAndAccept(chat, "third");
    const sent = server.seen("POST", "/api/chat/send").map((seen) => seen.body);
    assert.deepEqual(
      sent.map((body) => body.history.map((item) => item.content)),
      [[], ["first", "w0 "], ["first", "w0 ", "second"]],
    );
    assert.equal(new Set(sent.map((body) => body.session_id)).size, 1);
    assert.match(sent[0]?.session_id ?? "", /^[A-Za-z0-9_-]{1,64}$/);
  });

  test("that is blank is not sent, nor a second one while the first is answered", async () => {
    const chat = await openLive();
    chat.send("   ");
    await sendAndAccept(chat);
    chat.send("again");
    assert.equal(chat.turns.length, 2);
    server.completed(0);
    await isNow(chat, "complete");
    assert.equal(server.seen("POST", "/api/chat/send").length, 1);
  });

  test("gets the current token when the token is a function", async () => {
    const chat = await openLive({ token: () => Promise.resolve("fresh") });
    await sendAndAccept(chat);
    assert.equal(server.seen("POST", "/api/chat/send")[0]?.authorization, "Bearer fresh");
  });
});

describe("the gate", () => {
  test("nothing is sent before the subscription is confirmed", async () => {
    server.subscription = "silent";
    const chat = open();
    await until("auth", () => server.seen("POST", "/broadcasting/auth").length);
    chat.send("too early");
    assert.deepEqual([chat.canSend, chat.turns], [false, []]);
    await until("gate", () => {
      server.confirm();
      return chat.canSend;
    });
    await sendAndAccept(chat);
    assert.deepEqual(
      server.seen("POST", "/api/chat/send").map((seen) => seen.body.message),
      ["hello"],
    );
  });

  test("closes on a lost connection and opens again with the next subscription", async () => {
    const chat = await openLive();
    server.dropSockets();
    // It may be open again within milliseconds: look in each turn of the event loop.
    for (let turns = 0; chat.subscribed; turns += 1) {
      assert.ok(turns < 1e6, "it does not close");
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.notEqual(chat.connection, "refused");
    await until("open again", () => chat.subscribed);
  });

  test("stays closed when the channel is refused", async () => {
    server.subscription = "refuse";
    const chat = open();
    await until("refused", () => chat.connection === "refused");
    assert.equal(chat.canSend, false);
  });

  test("is open at once on a channel that somebody subscribed before", async () => {
    const echo = server.echo();
    let confirmed = false;
    echo.private("ai-chat.7").subscribed(() => {
      confirmed = true;
    });
    await until("confirmed", () => confirmed);
    assert.equal(open({ echo }).connection, "live");
  });
});

test("tokens that beat the answer to send are shown when it comes", async () => {
  const answer = held({ body: { message_id: "m1" } });
  server.send = answer.wait;
  const chat = await openLive();
  chat.send("hello");
  await until("request", () => server.seen("POST", "/api/chat/send").length);
  server.tokens(0, 2);
  server.emit("stream.started", { messageId: "other", attempt: 1, model: "x" });
  answer.release();
  await isNow(chat, "streaming");
  server.tokens(2, 3);
  server.completed(3);
  await isNow(chat, "complete");
  assert.equal(lastReply(chat).text, "w0 w1 w2 ");
});

describe("stop", () => {
  test("is final: a later token does not flip the reply back", async () => {
    const chat = await openLive();
    await sendAndAccept(chat);
    server.tokens(0, 1);
    await isNow(chat, "streaming");
    chat.stop();
    assert.equal(lastReply(chat).status, "cancelled");
    await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
    server.tokens(1, 2);
    server.completed(2);
    // What comes behind shows that those were seen.
    server.send = () => ({ body: { message_id: "m2" } });
    const stopped = lastReply(chat);
    await sendAndAccept(chat);
    server.tokens(0, 1, "m2");
    await isNow(chat, "streaming");
    assert.equal(chat.turns[1], stopped);
    assert.deepEqual([stopped.status, stopped.text], ["cancelled", "w0 "]);
  });

  test("before the id is known, the server is told as soon as it is", async () => {
    const answer = held({ body: { message_id: "m1" } });
    server.send = answer.wait;
    const chat = await openLive();
    chat.send("hello");
    chat.stop();
    assert.equal(lastReply(chat).status, "cancelled");
    assert.equal(server.seen("POST", "/api/chat/m1/cancel").length, 0);
    answer.release();
    await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
    assert.equal(lastReply(chat).status, "cancelled");
  });

  const lost: [string, Answer | null][] = [
    ["is lost", null],
    ["is a gateway's", { status: 504, body: {} }],
    ["is cut", { body: null }],
  ];
  for (const [name, answer] of lost) {
    test(`before an answer that ${name}, the request is repeated to learn the id`, async () => {
      const first = held(answer ?? { body: {} });
      server.send = answer ? first.wait : () => new Promise<Answer>(() => undefined);
      const chat = await openLive({ timeoutMs: 300 });
      chat.send("hello");
      await until("request", () => server.seen("POST", "/api/chat/send").length);
      chat.stop();
      server.send = () => ({ body: { message_id: "m1" } });
      first.release();
      await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
      const [one, two] = server.seen("POST", "/api/chat/send");
      assert.deepEqual([one?.idempotencyKey, one?.body], [two?.idempotencyKey, two?.body]);
      assert.equal(lastReply(chat).status, "cancelled");
    });
  }

  test("before the answer, then a new chat: the request is repeated all the same", async () => {
    const first = held({ status: 504, body: {} });
    server.send = first.wait;
    const chat = await openLive();
    chat.send("hello");
    await until("request", () => server.seen("POST", "/api/chat/send").length);
    chat.clear();
    server.send = () => ({ body: { message_id: "m1" } });
    first.release();
    await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
    assert.deepEqual(chat.turns, []);
  });

  test("before an answer that refuses, nothing is repeated", async () => {
    const first = held({ status: 422, body: {} });
    server.send = first.wait;
    const chat = await openLive();
    chat.send("hello");
    await until("request", () => server.seen("POST", "/api/chat/send").length);
    chat.stop();
    first.release();
    await until("an end", () => lastReply(chat).request === null);
    server.send = () => ({ body: { message_id: "m2" } });
    await sendAndAccept(chat);
    assert.equal(server.seen("POST", "/api/chat/send").length, 2);
  });

  test("is told again if the server stumbled", async () => {
    let calls = 0;
    server.cancel = () => {
      calls += 1;
      return calls === 1 ? { status: 503, body: {} } : { body: {} };
    };
    const chat = await openLive();
    await sendAndAccept(chat);
    chat.stop();
    await until("second try", () => calls === 2);
  });
});

test("init twice, as under x-init, subscribes once", async () => {
  const echo = server.echo();
  let subscriptions = 0;
  const counted = {
    connector: echo.connector,
    connectionStatus: () => echo.connectionStatus(),
    private: (name: string) => {
      subscriptions += 1;
      return echo.private(name);
    },
  };
  const chat = open({ echo: counted });
  chat.init();
  await until("live", () => chat.subscribed);
  chat.init();
  assert.equal(subscriptions, 1);
});

describe("a gap", () => {
  test("is reported, refetched from the last known index, and closed", async () => {
    const gaps: Gap[] = [];
    server.read = (seen) => logOf(seen, 4, "streaming");
    const chat = await openLive({ onGap: (gap) => gaps.push(gap) });
    await sendAndAccept(chat);
    server.tokens(0, 2);
    server.tokens(3, 5);
    await hasTokens(chat, 5);
    assert.equal(lastReply(chat).text, "w0 w1 w2 w3 w4 ");
    assert.deepEqual(gaps, [{ messageId: "m1", from: 2 }]);
    assert.equal(server.seen("GET", "/api/chat/m1")[0]?.path, "/api/chat/m1?after=1");
  });

  test("a completed with more tokens than came is refetched before it shows", async () => {
    server.read = (seen) => logOf(seen, 3, "complete");
    const chat = await openLive();
    await sendAndAccept(chat);
    server.tokens(0, 1);
    server.completed(3);
    await isNow(chat, "complete");
    assert.equal(lastReply(chat).text, "w0 w1 w2 ");
  });

  test("that the server no longer has ends as failed, never as whole", async () => {
    server.read = () => ({ status: 410, body: { message: "gone" } });
    const chat = await openLive();
    await sendAndAccept(chat);
    server.completed(3);
    await isNow(chat, "failed");
  });
});

describe("a lost terminal event", () => {
  test("is found by the watchdog", async () => {
    server.read = (seen) => logOf(seen, 2, "complete");
    const chat = await openLive({ silenceMs: 30 });
    await sendAndAccept(chat);
    server.tokens(0, 2);
    await isNow(chat, "complete");
    assert.equal(lastReply(chat).text, "w0 w1 ");
  });

  test("that nobody knows of ends as failed, and can be retried", async () => {
    server.read = (seen) => logOf(seen, 0, "streaming");
    const chat = await openLive({ silenceMs: 80, maxSilences: 3 });
    await sendAndAccept(chat);
    const { key } = lastReply(chat);
    await isNow(chat, "failed");
    assert.equal(server.seen("GET", "/api/chat/m1").length, 3);
    await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
    server.send = () => ({ body: { message_id: "m2" } });
    chat.retry(key);
    await until("id", () => lastReply(chat).messageId);
    server.tokens(0, 1, "m2");
    server.completed(1, "m2");
    await isNow(chat, "complete");
    assert.deepEqual([lastReply(chat).key, chat.turns.length], [key, 2]);
  });

  test("is not suspected while the reply is queued", async () => {
    server.read = (seen) => logOf(seen, 0, "queued");
    const chat = await openLive({ silenceMs: 100, maxSilences: 20 });
    await sendAndAccept(chat);
    await until("patience", () => server.seen("GET", "/api/chat/m1").length >= 25);
    assert.equal(lastReply(chat).status, "thinking");
    server.read = (seen) => logOf(seen, 0, "streaming");
    await isNow(chat, "failed");
  });
});

describe("failure", () => {
  const answers: [string, Answer, string][] = [
    [
      "a refused field says why",
      { status: 422, body: { message: "no", errors: { message: ["Too long."] } } },
      "Too long.",
    ],
    [
      "a token that is not valid is said in words for people",
      { status: 401, body: { message: "The token has expired." } },
      "You are not signed in, or may not do this.",
    ],
    [
      "a full queue, too",
      { status: 503, body: { message: "Redis does not answer" } },
      "The service is busy. Try again in a moment.",
    ],
    [
      "too many messages, too",
      { status: 429, body: null },
      "Too many of your messages wait for a reply. Try again in a moment.",
    ],
    [
      "an error that has no words",
      { status: 500, body: null },
      "The server answered with an error (500).",
    ],
    ["an answer without an id", { body: {} }, "The server's answer was not understood."],
  ];
  for (const [name, answer, text] of answers) {
    test(name, async () => {
      server.send = () => answer;
      const chat = await openLive();
      chat.send("hello");
      await isNow(chat, "failed");
      assert.equal(lastReply(chat).error, text);
    });
  }

  test("a server that cannot be reached is named; the retry repeats the same request", async () => {
    const chat = await openLive({ timeoutMs: 1000, tries: 1 });
    server.send = () => new Promise<Answer>(() => undefined); // no answer, ever
    chat.send("hello");
    await isNow(chat, "failed");
    assert.equal(lastReply(chat).error, "The server cannot be reached.");
    server.send = () => ({ body: { message_id: "m1" } });
    chat.retry(lastReply(chat).key);
    await until("id", () => lastReply(chat).messageId);
    const keys = server.seen("POST", "/api/chat/send").map((seen) => seen.idempotencyKey);
    assert.equal(keys.length, 2);
    assert.equal(keys[0], keys[1]);
  });

  test("a repeated request is the same although an earlier reply came to its end meanwhile", async () => {
    const storage = new Memory();
    const first = await openLive({ storage, timeoutMs: 1000, tries: 1 });
    await sendAndAccept(first, "one");
    server.emit("stream.failed", { userId: 7, messageId: "m1", error: "Sorry.", partial: false });
    const { key } = await isNow(first, "failed").then(() => lastReply(first));
    server.send = () => new Promise<Answer>(() => undefined); // no answer, ever
    first.send("two");
    await isNow(first, "failed");
    const unanswered = lastReply(first).key;
    first.destroy();
    const chat = await openLive({ storage });
    server.send = () => ({ body: { message_id: "m2" } });
    chat.retry(key);
    await until("id", () => replyOf(chat, key).messageId);
    server.tokens(0, 1, "m2");
    server.completed(1, "m2");
    await until("complete", () => replyOf(chat, key).status === "complete");
    server.send = () => ({ body: { message_id: "m3" } });
    chat.retry(unanswered);
    await until("id", () => lastReply(chat).messageId);
    const sent = server
      .seen("POST", "/api/chat/send")
      .filter((seen) => seen.body.message === "two");
    assert.equal(sent.length, 2);
    assert.equal(sent[0]?.idempotencyKey, sent[1]?.idempotencyKey);
    assert.equal(JSON.stringify(sent[0]?.body), JSON.stringify(sent[1]?.body));
  });

  test("stream.failed shows its text, and a retry is another request with the same history", async () => {
    const chat = await openLive();
    await sendAndAccept(chat);
    server.emit("stream.failed", { userId: 7, messageId: "m1", error: "Sorry.", partial: false });
    await isNow(chat, "failed");
    assert.equal(lastReply(chat).error, "Sorry.");
    chat.retry(lastReply(chat).key);
    await until("id", () => lastReply(chat).messageId);
    const [first, second] = server.seen("POST", "/api/chat/send");
    assert.notEqual(first?.idempotencyKey, second?.idempotencyKey);
    assert.deepEqual(first?.body, second?.body);
  });
});

describe("a refresh", () => {
  test("while a reply streams goes on from the server's log", async () => {
    const storage = new Memory();
    const before = await openLive({ storage });
    await sendAndAccept(before, "question");
    server.tokens(0, 2);
    await hasTokens(before, 2);
    before.destroy();
    server.tokens(2, 4); // nobody hears these
    server.read = (seen) => logOf(seen, 4, "streaming");
    const after = open({ storage });
    assert.deepEqual(
      after.turns.map((turn) => turn.text),
      ["question", "w0 w1 "],
    );
    await hasTokens(after, 4);
    server.tokens(4, 5);
    server.completed(5);
    await isNow(after, "complete");
    assert.equal(lastReply(after).text, "w0 w1 w2 w3 w4 ");
  });

  test("goes on from a snapshot as well", async () => {
    const storage = new Memory();
    const before = await openLive({ storage });
    await sendAndAccept(before);
    before.destroy();
    server.read = () => ({ status: 503, body: {} });
    const after = await openLive({ storage });
    server.emit("stream.snapshot", {
      messageId: "m1",
      text: "w0 w1 ",
      nextIndex: 2,
      status: "streaming",
    });
    server.tokens(2, 3);
    server.completed(3);
    await isNow(after, "complete");
    assert.equal(lastReply(after).text, "w0 w1 w2 ");
  });

  test("before the answer to send repeats the same request", async () => {
    const storage = new Memory();
    server.send = () => new Promise<Answer>(() => undefined); // no answer, ever
    const before = await openLive({ storage });
    before.send("hello");
    await until("request", () => server.seen("POST", "/api/chat/send").length);
    before.destroy();
    server.send = () => ({ body: { message_id: "m1" } });
    const after = await openLive({ storage });
    await until("id", () => lastReply(after).messageId);
    const [first, second] = server.seen("POST", "/api/chat/send");
    assert.equal(first?.idempotencyKey, second?.idempotencyKey);
    assert.deepEqual(first?.body, second?.body);
  });

  test("after Stop, before the answer to send, still stops what the server began", async () => {
    const storage = new Memory();
    server.send = () => new Promise<Answer>(() => undefined); // no answer, ever
    const before = await openLive({ storage });
    before.send("hello");
    await until("request", () => server.seen("POST", "/api/chat/send").length);
    before.stop();
    before.destroy();
    server.send = () => ({ body: { message_id: "m1" } });
    const after = await openLive({ storage });
    await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
    const [first, second] = server.seen("POST", "/api/chat/send");
    assert.equal(first?.idempotencyKey, second?.idempotencyKey);
    assert.deepEqual(first?.body, second?.body);
    assert.deepEqual([lastReply(after).status, lastReply(after).messageId], ["cancelled", "m1"]);
  });

  test("finds nothing in a storage that is broken, or of another version", () => {
    const damaged = { version: 4, sessionId: "s", turns: [null, { role: "assistant" }] };
    for (const text of ["{", "null", '{"version":0,"turns":[{}]}', JSON.stringify(damaged)]) {
      const storage = new Memory();
      storage.setItem("legato-chat:7", text);
      assert.deepEqual(open({ storage }).turns, []);
    }
  });

  test("is not prepared, but nothing breaks, when the storage is full", async () => {
    const storage = new Memory();
    storage.setItem = () => {
      throw new Error("QuotaExceededError");
    };
    const chat = await openLive({ storage });
    await sendAndAccept(chat);
    assert.equal(lastReply(chat).messageId, "m1");
  });
});

test("after a lost connection the reply catches up over HTTP", async () => {
  const chat = await openLive();
  await sendAndAccept(chat);
  server.tokens(0, 1);
  await hasTokens(chat, 1);
  server.read = (seen) => logOf(seen, 3, "complete");
  server.dropSockets();
  await isNow(chat, "complete");
  assert.equal(lastReply(chat).text, "w0 w1 w2 ");
});

test("a new chat stops what runs and begins another session", async () => {
  const chat = await openLive();
  await sendAndAccept(chat);
  chat.clear();
  assert.deepEqual(chat.turns, []);
  await until("cancel", () => server.seen("POST", "/api/chat/m1/cancel").length);
  await sendAndAccept(chat);
  const sessions = server.seen("POST", "/api/chat/send").map((seen) => seen.body.session_id);
  assert.notEqual(sessions[0], sessions[1]);
});

/** Everything that a screen reader is told from now on. */
function announcements(chat: ChatComponent): string[] {
  const said: string[] = [];
  let text = chat.announcement;
  Object.defineProperty(chat, "announcement", {
    get: () => text,
    set: (value: string) => {
      if (value !== text) said.push(value);
      text = value;
    },
  });
  return said;
}

test("what a screen reader is told is about the reply that changed, wherever it stands", async () => {
  const chat = await openLive();
  await sendAndAccept(chat);
  server.emit("stream.failed", { userId: 7, messageId: "m1", error: "Sorry.", partial: false });
  await isNow(chat, "failed");
  const { key } = lastReply(chat);
  server.send = () => ({ body: { message_id: "m2" } });
  await sendAndAccept(chat);
  server.emit("token.received", { userId: 7, messageId: "m2", token: "last", tokenIndex: 0 });
  server.completed(1, "m2");
  await isNow(chat, "complete");
  const said = announcements(chat);
  server.send = () => ({ body: { message_id: "m3" } });
  chat.retry(key);
  await until("id", () => replyOf(chat, key).messageId);
  server.tokens(0, 2, "m3");
  server.completed(2, "m3");
  await until("complete", () => replyOf(chat, key).status === "complete");
  assert.deepEqual(said, [
    "Waiting for the reply.",
    "The reply is being written.",
    "Reply: w0 w1 ",
  ]);
});

test("what a screen reader is told is nothing after a refresh, and nothing after a new chat", async () => {
  const storage = new Memory();
  const before = await openLive({ storage });
  await sendAndAccept(before);
  server.completed(0);
  await isNow(before, "complete");
  assert.equal(before.announcement, "Reply: ");
  before.destroy();
  const after = await openLive({ storage });
  assert.equal(after.announcement, "");
  await sendAndAccept(after);
  assert.equal(after.announcement, "Waiting for the reply.");
  after.clear();
  assert.equal(after.announcement, "");
});

test("what a screen reader is told of a message that waits is why it waits", async () => {
  const first = held({ body: { conversations: [], next: null } });
  server.conversations = first.wait;
  const chat = await openLive({ conversations: serverConversations(), queue: true });
  const said = announcements(chat);
  chat.send("too early: the server has not said yet whether it keeps conversations");
  assert.equal(lastReply(chat).status, "unsent");
  first.release();
  await until("id", () => lastReply(chat).messageId);
  assert.deepEqual(said, ["The message waits to be sent.", "Waiting for the reply."]);
  const offline = open({ queue: true }); // not yet connected
  offline.send("later");
  assert.equal(offline.announcement, "Not connected. The message will be sent later.");
});

test("what a screen reader is told changes with the status, not with each token", async () => {
  const chat = await openLive();
  const said = announcements(chat);
  await sendAndAccept(chat);
  server.tokens(0, 5);
  await hasTokens(chat, 5);
  server.completed(5);
  await isNow(chat, "complete");
  assert.deepEqual(said, [
    "Waiting for the reply.",
    "The reply is being written.",
    "Reply: w0 w1 w2 w3 w4 ",
  ]);
});

test("the elapsed time moves while a reply is made, and stops with it", async () => {
  const chat = await openLive();
  await sendAndAccept(chat);
  await until("time", () => chat.elapsed(lastReply(chat)) >= "0.2 s");
  server.completed(0);
  await isNow(chat, "complete");
  const reply = { ...lastReply(chat), startedAt: 1000, endedAt: 4210 };
  assert.equal(chat.elapsed(reply), "3.2 s");
  assert.equal(chat.elapsed({ ...reply, endedAt: 60_000 }), "59.0 s");
  assert.equal(chat.elapsed({ ...reply, endedAt: 126_900 }), "2 min 5 s");
});

test("frames that are not what they should be change nothing", async () => {
  const chat = await openLive();
  await sendAndAccept(chat);
  server.emit("token.received", { messageId: "m1", token: 7, tokenIndex: 0 });
  server.emit("token.received", { messageId: "m1", token: "x", tokenIndex: -1 });
  server.emit("token.received", { messageId: "m1", token: "x", tokenIndex: "0" });
  server.emit("stream.completed", {});
  server.tokens(0, 1);
  await hasTokens(chat, 1);
  assert.equal(lastReply(chat).text, "w0 ");
});

test("after destroy nothing is heard, and another component may take over", async () => {
  const echo = server.echo();
  const first = await openLive({ echo });
  await sendAndAccept(first);
  first.destroy();
  const turns = first.turns;
  const second = await openLive({ echo });
  await sendAndAccept(second);
  server.tokens(0, 1);
  await hasTokens(second, 1);
  assert.equal(first.turns, turns);
});

test("an answer that comes after close changes nothing, in memory or in storage", async () => {
  const answer = held({ body: { message_id: "m1" } });
  server.send = answer.wait;
  const storage = new Memory();
  const api = createApi({ baseUrl: server.url, token: "jwt" });
  let sent: Promise<string> | undefined;
  const { send } = api;
  api.send = (body, id) => (sent = send(body, id));
  let shown: readonly Turn[] = [];
  const conversation = converse({
    api,
    keep: keepIn(storage),
    name: "chat",
    onChange: (turns) => (shown = turns),
  });
  conversation.open();
  conversation.setLive(true);
  conversation.send("hello");
  await until("request", () => server.requests.length);
  conversation.close();
  const turns = shown;
  const saved = storage.getItem("chat");
  answer.release();
  assert.equal(await sent, "m1");
  await new Promise(setImmediate);
  assert.deepEqual([shown, storage.getItem("chat")], [turns, saved]);
});
