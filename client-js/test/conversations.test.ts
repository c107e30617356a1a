/** A chat whose conversation the server keeps. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { createChat, type Chat, type ChatOptions } from "../src/chat.js";
import { serverConversations } from "../src/conversations.js";
import type { Keeper } from "../src/conversation.js";
import { parts } from "../src/part-rules.js";
import type { Reply, Turn } from "../src/reducer.js";
import { keepIn } from "../src/storage.js";
import { blocks } from "../src/view.js";
import { Archive } from "./archive.js";
import { ChatServer, logOf, until, type Seen } from "./server.js";

let server: ChatServer;
let archive: Archive;
let chats: Chat[];

beforeEach(async () => {
  server = new ChatServer();
  archive = new Archive(server);
  chats = [];
  await server.start();
});

afterEach(async () => {
  for (const chat of chats) chat.close();
  await server.stop();
});

function open(more: Partial<ChatOptions> = {}): Chat {
  const chat = createChat({
    ...{ echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url },
    conversations: serverConversations(),
    ...more,
  });
  chat.subscribe(() => undefined);
  chats.push(chat);
  return chat;
}

async function openLive(more: Partial<ChatOptions> = {}): Promise<Chat> {
  const chat = open(more);
  await until("live", () => chat.getSnapshot().connection === "live");
  return chat;
}

/** What outlives a page. */
function keeper(): Keeper {
  const items = new Map<string, string>();
  return keepIn({
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  });
}

const turnsOf = (chat: Chat): readonly Turn[] => chat.getSnapshot().turns;
const texts = (chat: Chat): string[] => turnsOf(chat).map((turn) => turn.text);
const bodies = (): Seen["body"][] => server.seen("POST", "/api/chat/send").map(({ body }) => body);

/** Such as `2/3`, for each turn that has siblings. */
const branches = (chat: Chat): string[] =>
  turnsOf(chat).map(({ branch }) =>
    branch ? `${String(branch.index)}/${String(branch.count)}` : "",
  );

function lastReply(chat: Chat): Reply {
  const turn = turnsOf(chat).at(-1);
  assert.ok(turn?.role === "assistant", "no reply");
  return turn;
}

const shows = (chat: Chat, ...all: string[]): Promise<boolean> =>
  until(
    `${all.join(", ")}, not ${texts(chat).join(", ")}`,
    () => texts(chat).join() === all.join(),
  );

/** Send, wait for the id, and let the reply end. */
async function talk(chat: Chat, text: string, reply: string): Promise<void> {
  await until("room", () => chat.getSnapshot().canSend);
  assert.ok(chat.send(text));
  await finish(chat, reply);
}

const idOf = (chat: Chat): Promise<string> => until("id", () => lastReply(chat).messageId ?? "");

async function finish(chat: Chat, reply: string): Promise<void> {
  const id = await idOf(chat);
  archive.finish(id, reply);
  await until("end", () => lastReply(chat).endedAt);
}

describe("a conversation on the server", () => {
  test("goes along as its name and the turn before, without a history", async () => {
    const chat = await openLive();
    assert.equal(chat.getSnapshot().conversation?.id, null);
    await talk(chat, "one", "A");
    await talk(chat, "two", "B");
    const id = chat.getSnapshot().conversation?.id;
    assert.deepEqual(bodies(), [
      { message: "one", conversation_id: id, parent_id: "" },
      { message: "two", conversation_id: id, parent_id: "m1" },
    ]);
    assert.deepEqual(
      server.seen("POST", "/api/chat/send").map(({ socketId }) => socketId),
      ["1.1", "1.1"],
    );
    assert.deepEqual(texts(chat), ["one", "A", "two", "B"]);
  });

  test("is opened by its id, newest page first, and the older ones are read when they are wanted", async () => {
    archive.page = 2;
    archive.add("c", ["a", "user", "", "one"], ["a", "assistant", "a", "A"]);
    archive.add("c", ["b", "user", "a", "two"], ["b", "assistant", "b", "B"]);
    const chat = await openLive();
    chat.open("c");
    await shows(chat, "two", "B");
    assert.equal(chat.getSnapshot().conversation?.hasEarlier, true);
    const [two] = turnsOf(chat);
    await chat.loadEarlier();
    assert.deepEqual(texts(chat), ["one", "A", "two", "B"]);
    assert.equal(turnsOf(chat)[2], two, "what did not change is the same object");
    assert.equal(chat.getSnapshot().conversation?.hasEarlier, false);
    await talk(chat, "three", "C");
    assert.equal(bodies()[0]?.parent_id, "b");
  });

  test("that is left goes on, and is whole when it is opened again", async () => {
    const chat = await openLive();
    chat.send("one");
    const id = await idOf(chat);
    const conversation = chat.getSnapshot().conversation?.id ?? "";
    chat.clear();
    assert.deepEqual([texts(chat), chat.getSnapshot().conversation?.id], [[], null]);
    archive.finish(id, "A");
    await talk(chat, "other", "B");
    chat.open(conversation);
    await shows(chat, "one", "A");
    assert.deepEqual(server.seen("POST", "/api/chat/m1/cancel"), []);
  });

  test("survives a reload with its open branch, in the middle of a reply", async () => {
    const keep = keeper();
    const before = await openLive({ keep });
    await talk(before, "one", "A");
    before.regenerate(lastReply(before).key);
    await finish(before, "A2");
    before.switchBranch(lastReply(before).key, -1);
    before.send("two");
    await until("id", () => lastReply(before).messageId);
    before.close();
    server.read = (seen) => logOf(seen, 2, "streaming");
    const after = await openLive({ keep });
    await shows(after, "one", "A", "two", "w0 w1 ");
    assert.deepEqual(branches(after), ["", "1/2", "", ""]);
    assert.equal(lastReply(after).status, "streaming");
  });

  test("that begins in one tab is opened in another, which was new at the same time", async () => {
    const keep = keeper();
    (await openLive({ keep })).close();
    const [one, other] = [await openLive({ keep }), await openLive({ keep })];
    await talk(one, "one", "A");
    other.open(one.getSnapshot().conversation?.id ?? "");
    await shows(other, "one", "A");
  });

  test("that is not there with what was unsent in it is sent all the same", async () => {
    const keep = keeper();
    const before = open({ keep });
    before.send("offline");
    before.close();
    const after = await openLive({ keep });
    await finish(after, "A");
    assert.deepEqual(
      bodies().map(({ message, parent_id }) => [message, parent_id]),
      [["offline", ""]],
    );
    assert.deepEqual(texts(after), ["offline", "A"]);
  });

  test("takes messages written before it is known at its end", async () => {
    archive.add("c", ["a", "user", "", "one"], ["a", "assistant", "a", "A"]);
    const keep = keeper();
    const before = await openLive({ keep });
    before.open("c");
    await shows(before, "one", "A");
    before.close();
    const after = open({ keep });
    assert.ok(after.send("two"));
    await until("id", () => lastReply(after).messageId);
    assert.deepEqual(texts(after), ["one", "A", "two", ""]);
    assert.equal(bodies()[0]?.parent_id, "a");
  });

  test("is gone when it is deleted, and the next message begins another one", async () => {
    archive.add("c", ["a", "user", "", "one"], ["a", "assistant", "a", "A"]);
    const chat = await openLive();
    chat.open("c");
    await shows(chat, "one", "A");
    server.emit("conversation.changed", { conversationId: "c", updatedAt: "", deleted: true });
    await until("gone", () => chat.getSnapshot().conversation?.isGone);
    assert.deepEqual(texts(chat), []);
    await talk(chat, "two", "B");
    assert.notEqual(bodies()[0]?.conversation_id, "c");
    assert.equal(chat.getSnapshot().conversation?.isGone, false);
  });

  test("that never was is gone as well", async () => {
    const chat = await openLive();
    chat.open("nothing");
    await until("gone", () => chat.getSnapshot().conversation?.isGone);
  });

  test("is followed only by what has ended: the next message waits", async () => {
    const chat = await openLive({ maxStreams: 2 });
    chat.send("one");
    chat.send("two");
    await until("id", () => turnsOf(chat)[1]?.messageId);
    assert.equal(bodies().length, 1);
    archive.finish("m1", "A");
    await until("second", () => bodies().length === 2);
    assert.deepEqual(bodies()[1]?.parent_id, "m1");
  });
});

test("the parts of a stored reply are read from its log, as long as there is one", async () => {
  archive.add("c", ["a", "user", "", "one"], ["a", "assistant", "a", "w0 w1 "]);
  for (const turn of archive.kept.get("c")?.turns ?? [])
    Object.assign(turn, { created_at: new Date().toISOString() });
  const place = { tokenIndex: 1, offset: 1 };
  const cited = { event: "citation.received", ...place, url: "https://x.example/", title: "X" };
  server.read = () => ({
    body: {
      ...{ text: "w0 w1 ", tokens: ["w0 ", "w1 "], nextIndex: 2, status: "complete" },
      ...{ offset: 3, parts: [cited] },
    },
  });
  const chat = await openLive({ parts });
  chat.open("c");
  await until("parts", () => (turnsOf(chat)[1] as Reply | undefined)?.parts.length);
  const reply = lastReply(chat);
  assert.deepEqual([reply.text, reply.nextIndex, reply.status], ["w0 w1 ", 2, "complete"]);
  const [block] = blocks(reply);
  const runs = block?.content.type === "text" ? block.content.runs : [];
  assert.deepEqual(
    runs.map((run) => (run.type === "text" ? run.text : "[1]")),
    ["w0 ", "[1]", "w1 "],
  );
  assert.equal(server.seen("GET", "/api/chat/a").length, 1);
});

describe("branches", () => {
  test("are made by regenerate and edit, which keep what was there", async () => {
    const chat = await openLive();
    await talk(chat, "one", "A");
    const [user, reply] = turnsOf(chat);
    chat.regenerate(reply?.key ?? "");
    await finish(chat, "A2");
    assert.deepEqual(branches(chat), ["", "2/2"]);
    assert.ok(chat.edit(user?.key ?? "", "uno"));
    await finish(chat, "B");
    assert.deepEqual(
      [texts(chat), branches(chat)],
      [
        ["uno", "B"],
        ["2/2", ""],
      ],
    );
    const id = chat.getSnapshot().conversation?.id;
    assert.deepEqual(bodies().slice(1), [
      { conversation_id: id, regenerate: true, parent_id: "m1" },
      { message: "uno", conversation_id: id, parent_id: "" },
    ]);
    chat.switchBranch(turnsOf(chat)[0]?.key ?? "", -1);
    assert.deepEqual(
      [texts(chat), branches(chat)],
      [
        ["one", "A2"],
        ["1/2", "2/2"],
      ],
    );
    chat.switchBranch(turnsOf(chat)[1]?.key ?? "", -1);
    assert.deepEqual(
      [texts(chat), branches(chat)],
      [
        ["one", "A"],
        ["1/2", "1/2"],
      ],
    );
    chat.switchBranch(turnsOf(chat)[1]?.key ?? "", -1); // there is none
    assert.deepEqual(texts(chat), ["one", "A"]);
    await talk(chat, "two", "C");
    assert.equal(bodies().at(-1)?.parent_id, "m1");
  });

  test("show their newest leaf", async () => {
    archive.add("c", ["a", "user", "", "one"], ["a", "assistant", "a", "A"]);
    archive.add("c", ["b", "user", "a", "two"], ["b", "assistant", "b", "B"]);
    archive.add("c", ["x", "user", "", "other"], ["x", "assistant", "x", "X"]);
    const chat = await openLive();
    chat.open("c");
    await shows(chat, "other", "X");
    chat.switchBranch(turnsOf(chat)[0]?.key ?? "", -1);
    assert.deepEqual(texts(chat), ["one", "A", "two", "B"]);
  });

  test("go on from the last reply that the server has, though one was refused", async () => {
    const chat = await openLive();
    await talk(chat, "one", "A");
    const { send } = server;
    server.send = () => ({ status: 422, body: { message: "no" } });
    chat.send("refused");
    await until("failed", () => lastReply(chat).status === "failed");
    server.send = send;
    await talk(chat, "two", "B");
    assert.equal(bodies().at(-1)?.parent_id, "m1");
    assert.deepEqual(texts(chat), ["one", "A", "refused", "", "two", "B"]);
  });

  test("a reply that failed is made anew beside it", async () => {
    const chat = await openLive();
    chat.send("one");
    const id = await idOf(chat);
    server.emit("stream.failed", { messageId: id, error: "No." });
    await until("failed", () => lastReply(chat).status === "failed");
    chat.retry(lastReply(chat).key);
    await finish(chat, "A");
    assert.deepEqual(branches(chat), ["", "2/2"]);
    assert.equal(bodies().at(-1)?.regenerate, true);
  });
});

describe("what another tab does", () => {
  /** A tab with a conversation of one message. */
  async function begun(): Promise<[Chat, string]> {
    const chat = await openLive();
    await talk(chat, "one", "A");
    return [chat, chat.getSnapshot().conversation?.id ?? ""];
  }

  function created(conversationId: string, messageId: string, more: object): void {
    server.emit("message.created", { conversationId, messageId, ...more });
  }

  test("appears: the message, its reply, also if that came before", async () => {
    const [chat, id] = await begun();
    server.emit("token.received", { messageId: "x", token: "Y", tokenIndex: 0 });
    created(id, "x", { parentId: "m1", message: "there" });
    await shows(chat, "one", "A", "there", "Y");
    server.emit("stream.completed", { messageId: "x", totalTokens: 1 });
    await until("end", () => lastReply(chat).status === "complete");
  });

  test("elsewhere in the conversation is another branch", async () => {
    const [chat, id] = await begun();
    created(id, "x", { parentId: "", message: "there" });
    created(id, "y", { parentId: "m1", regenerate: true });
    created("another", "z", { parentId: "", message: "not here" });
    await until("branches", () => branches(chat).join() === "1/2,2/2");
    assert.deepEqual(texts(chat), ["one", ""]); // below what is open, so it is shown
  });

  test("is read if it is too long for an event", async () => {
    const [chat, id] = await begun();
    archive.create(id, "x", "m1", "long");
    created(id, "x", { parentId: "m1", truncated: true });
    await shows(chat, "one", "A", "long", "");
  });

  test("while there was no connection is read", async () => {
    const [chat, id] = await begun();
    server.dropSockets();
    archive.add(id, ["x", "user", "m1", "there"], ["x", "assistant", "x", "B"]);
    await shows(chat, "one", "A", "there", "B");
  });

  test("gives it a title", async () => {
    const [chat, id] = await begun();
    server.emit("conversation.changed", { conversationId: id, updatedAt: "", title: "One" });
    await until("title", () => chat.getSnapshot().conversation?.title === "One");
  });

  test("that it was this tab shows nothing twice, however late the answer is", async () => {
    const chat = await openLive();
    const { send } = server;
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    server.send = async (seen) => {
      const answer = await send(seen);
      await released;
      return answer;
    };
    chat.send("one");
    await until("sent", () => bodies().length);
    const id = bodies()[0]?.conversation_id ?? "";
    created(id, "m1", { parentId: "", message: "one" });
    server.emit("token.received", { messageId: "m1", token: "A", tokenIndex: 0 });
    await until("its twin", () => branches(chat)[0] === "1/2");
    release();
    await until("one", () => turnsOf(chat).length === 2 && branches(chat).join("") === "");
    assert.deepEqual(texts(chat), ["one", "A"]);
  });
});

describe("a server without a database", () => {
  const OFF = {
    status: 503,
    body: { message: "Conversations are off: this server has no database (chat.database_url)." },
  };

  test("leaves the conversation to the browser, with its history, also what was kept", async () => {
    server.conversations = () => OFF;
    const keep = keeper();
    const before = open({ keep });
    before.send("one");
    await finish(before, "A");
    assert.equal(before.getSnapshot().conversation?.isStored, false);
    before.close();
    const after = await openLive({ keep });
    await shows(after, "one", "A");
    await talk(after, "two", "B");
    const body = bodies().at(-1);
    assert.deepEqual([body?.conversation_id, body?.history.length], [undefined, 2]);
    after.regenerate(lastReply(after).key);
    await finish(after, "B2");
    assert.deepEqual([texts(after), branches(after).join("")], [["one", "A", "two", "B2"], ""]);
  });

  test("is not one whose database does not answer: that is asked again", async () => {
    const { conversations } = server;
    const down = { message: "The database of conversations does not answer." };
    server.conversations = () => ({ status: 503, body: down });
    const chat = await openLive();
    chat.send("one");
    await until("error", () => chat.getSnapshot().conversation?.error?.kind === "overload");
    assert.deepEqual(bodies(), []);
    server.conversations = conversations;
    await finish(chat, "A");
    assert.equal(chat.getSnapshot().conversation?.error, null);
    assert.ok(bodies()[0]?.conversation_id);
  });
});

test("merged tokens are asked for with each subscription, unless they are not wanted", async () => {
  const asked = (): number =>
    server.messages.filter(
      ({ event, channel }) => event === "legato:merge_tokens" && channel === "private-ai-chat.7",
    ).length;
  const chat = await openLive();
  await until("asked", () => asked() === 1);
  server.dropSockets();
  await until("asked again", () => asked() === 2);
  chat.close();
  const other = await openLive({ mergeTokens: false });
  server.emit("conversation.changed", {});
  other.close();
  assert.equal(asked(), 2);
});
