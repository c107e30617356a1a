import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { createApi } from "../src/api.js";
import { legatoAlpine, type AlpineOptions, type ChatComponent } from "../src/alpine.js";
import { answerTo, decide } from "../src/approvals.js";
import type { Answer, Reply } from "../src/reducer.js";
import { fresh, type Host } from "../src/reply.js";
import { ChatServer, until } from "./server.js";

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

/** A chat with a reply m1 whose call c1 waits. */
async function openWaiting(options: Partial<AlpineOptions> = {}): Promise<ChatComponent> {
  const defaults = { echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url };
  const chat = legatoAlpine({ storage: null, ...defaults, ...options });
  opened.push(chat);
  chat.init();
  await until("live", () => chat.subscribed);
  chat.send("hello");
  await until("id", () => replyOf(chat).messageId);
  part("tool.called", 0, { call: "c1", name: "send_mail", input: { to: "ann" } });
  part("tool.approval_requested", 1, { call: "c1", name: "send_mail", expiresAt: 2e9 });
  await until("waiting", () => replyOf(chat).status === "waiting");
  return chat;
}

function replyOf(chat: ChatComponent): Reply {
  const turn = chat.turns.at(-1);
  assert.ok(turn?.role === "assistant");
  return turn;
}

const part = (event: string, offset: number, data: object): void => {
  server.emit(event, { messageId: "m1", offset, tokenIndex: 0, ...data });
};

const answered = (chat: ChatComponent, state: Answer["state"]): Promise<Answer> =>
  until(state, () => {
    const answer = answerTo(replyOf(chat), "c1");
    return answer?.state === state && answer;
  }) as Promise<Answer>;

const decisions = (): unknown[] =>
  server.seen("POST", "/api/chat/m1/tools/c1").map((seen) => seen.body);

test("a call is approved with a note, and the reply goes on", async () => {
  const chat = await openWaiting();
  assert.match(chat.announcement, /^send_mail: .*approval/);
  chat.approve("m1", "c1", "Go.");
  await answered(chat, "sent");
  assert.deepEqual(decisions(), [{ approve: true, note: "Go." }]);
  assert.equal(replyOf(chat).status, "streaming");
  assert.equal(chat.announcement, "send_mail: Approved, running.");
  part("tool.approval_decided", 2, { call: "c1", approve: true, note: "Go." });
  part("tool.finished", 3, { call: "c1", name: "send_mail", ok: true, output: "sent" });
  server.tokens(0, 1);
  server.completed(1);
  await until("complete", () => replyOf(chat).status === "complete");
  const [tool] = replyOf(chat).parts;
  assert.deepEqual(tool?.type === "tool" && [tool.state, tool.output], ["finished", "sent"]);
});

test("a call is refused, without a note", async () => {
  const chat = await openWaiting();
  chat.deny("m1", "c1");
  await answered(chat, "sent");
  assert.deepEqual(decisions(), [{ approve: false }]);
});

test("a decision under way or made is not made again", async () => {
  const chat = await openWaiting();
  let release = (): void => undefined;
  server.decide = () =>
    new Promise((resolve) => {
      release = () => {
        resolve({ body: {} });
      };
    });
  chat.approve("m1", "c1");
  chat.deny("m1", "c1");
  await until("a request", () => decisions().length);
  chat.deny("m1", "c1");
  release();
  await answered(chat, "sent");
  chat.deny("m1", "c1");
  chat.approve("unknown", "c1");
  assert.deepEqual(decisions(), [{ approve: true }]);
});

test("a decision that did not arrive can be made again", async () => {
  const chat = await openWaiting();
  server.decide = () => ({ status: 500, body: { message: "Try later." } });
  chat.approve("m1", "c1");
  assert.equal((await answered(chat, "failed")).error, "Try later.");
  assert.deepEqual([replyOf(chat).status, chat.announcement], ["waiting", "send_mail: Try later."]);
  server.decide = () => ({ body: {} });
  chat.deny("m1", "c1");
  await answered(chat, "sent");
  assert.deepEqual(decisions(), [{ approve: true }, { approve: false }]);
});

for (const [status, error] of [
  [404, "There is no such request for approval any more."],
  [409, "This was decided already."],
] as const) {
  test(`a decision that comes too late, ${String(status)}, says so and reads what happened`, async () => {
    const chat = await openWaiting({ silenceMs: 100_000 }); // it is not the silence that makes it read
    server.decide = () => ({ status, body: { message: "x" } });
    server.read = () => ({
      body: { text: "", tokens: [], nextIndex: 0, attempt: 1, status: "cancelled" },
    });
    chat.approve("m1", "c1");
    assert.equal((await answered(chat, "taken")).error, error);
    await until("cancelled", () => replyOf(chat).status === "cancelled");
  });
}

test("another tab's decision is seen, and none is left to make", async () => {
  const chat = await openWaiting();
  const [tool] = replyOf(chat).parts;
  assert.ok(tool?.type === "tool" && chat.isUndecided(replyOf(chat), tool));
  part("tool.approval_decided", 2, { call: "c1", approve: false });
  await until("decided", () => replyOf(chat).status === "streaming");
  const [after] = replyOf(chat).parts;
  assert.ok(after?.type === "tool" && !chat.isUndecided(replyOf(chat), after));
  assert.equal(chat.toolWords(replyOf(chat), after), "Denied");
});

/** What the server says while nothing is known to be wrong; a reply that is queued is never given up. */
const logWith = (status: string): object => ({ text: "", tokens: [], nextIndex: 0, status });

test("a reply that waits is not given up, however long it takes", async () => {
  server.read = () => ({ body: logWith("waiting") });
  const chat = await openWaiting({ silenceMs: 20, maxSilences: 30 });
  const before = server.seen("GET", "/api/chat/m1").length;
  await until("many reads", () => server.seen("GET", "/api/chat/m1").length > before + 35);
  assert.equal(replyOf(chat).status, "waiting");
});

test("a tool may work for longer than a model may be silent", async () => {
  server.read = () => ({ body: logWith("queued") });
  const chat = await openWaiting({ silenceMs: 20, maxSilences: 30 });
  part("tool.approval_decided", 2, { call: "c1", approve: true });
  await until("the decision", () => replyOf(chat).status === "streaming");
  server.read = () => ({ body: logWith("streaming") });
  const before = server.seen("GET", "/api/chat/m1").length;
  await until("many reads", () => server.seen("GET", "/api/chat/m1").length > before + 35);
  assert.equal(replyOf(chat).status, "streaming");
  part("tool.finished", 3, { call: "c1", name: "send_mail", ok: true });
  await until("the end", () => replyOf(chat).status === "failed");
});

test("the time does not run while a reply waits", async () => {
  const chat = await openWaiting();
  const { now } = chat;
  let ticks = 0;
  const clock = setInterval(() => (ticks += 1), 100); // one like its own
  await until("ticks", () => ticks > 2);
  clearInterval(clock);
  assert.equal(chat.now, now);
});

test("a snapshot's parts amid its text get their places from the log", async () => {
  const chat = await openWaiting();
  const called = { event: "tool.called", call: "c2", name: "weather" };
  const parts = [{ ...called, offset: 1, tokenIndex: 1 }];
  const whole = { text: "ab cd", nextIndex: 2, status: "streaming", offset: 3, parts };
  server.read = () => ({ body: { ...whole, tokens: ["ab ", "cd"] } });
  server.emit("stream.snapshot", { messageId: "m1", ...whole });
  await until("places", () => chat.blocks(replyOf(chat)).length === 3);
  const texts = chat
    .blocks(replyOf(chat))
    .map(({ content }) =>
      content.type === "text" ? content.runs.map((run) => run.key) : content.type,
    );
  assert.deepEqual(texts, [["t0"], "tool", ["t3"]]);
});

test("what a snapshot leaves out while the log is read is read afterwards", async () => {
  const chat = await openWaiting({ silenceMs: 100_000 });
  let release = (): void => undefined;
  const first = { text: "", tokens: [], nextIndex: 0, status: "streaming" };
  server.read = () =>
    new Promise((resolve) => {
      release = () => {
        resolve({ body: first });
      };
    });
  server.emit("token.received", { userId: 7, messageId: "m1", token: "z", tokenIndex: 9 }); // a gap
  await until("a read", () => server.seen("GET", "/api/chat/m1").length);
  const parts = [{ event: "tool.called", call: "c2", name: "weather", offset: 1, tokenIndex: 1 }];
  const whole = { text: "ab cd", nextIndex: 2, status: "streaming", offset: 3, parts };
  server.emit("stream.snapshot", { messageId: "m1", ...whole });
  await until("the snapshot", () => replyOf(chat).nextIndex === 2);
  server.read = () => ({ body: { ...whole, tokens: ["ab ", "cd"] } });
  release();
  await until("places", () => chat.blocks(replyOf(chat)).length === 3);
});

test("the ids are escaped, and a decision that comes too late says so", async () => {
  const said: Answer[] = [];
  const read: string[] = [];
  const host: Host = {
    api: createApi({ baseUrl: server.url, token: "jwt" }),
    find: () => ({ ...fresh("k", { id: "r", history: [] }, 0), messageId: "m/1" }),
    answered: (_messageId, _call, answer) => said.push(answer),
    refetch: (key) => {
      read.push(key);
      return Promise.resolve();
    },
  };
  await decide(host, "m/1", "c 1", true, "");
  assert.equal(server.requests.at(-1)?.path, "/api/chat/m%2F1/tools/c%201");
  server.decide = () => ({ status: 409, body: {} });
  await decide(host, "m/1", "c 1", true, "");
  assert.deepEqual(said, [
    { approve: true, state: "sending", error: "" },
    { approve: true, state: "sent", error: "" },
    { approve: true, state: "sending", error: "" },
    { approve: true, state: "taken", error: "This was decided already." },
  ]);
  assert.deepEqual(read, ["k"]);
});
