/** The list of a user's conversations. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { createChat } from "../src/chat.js";
import {
  createConversations,
  serverConversations,
  type ConversationList,
  type ConversationsOptions,
} from "../src/conversations.js";
import { Archive } from "./archive.js";
import { ChatServer, until } from "./server.js";

let server: ChatServer;
let archive: Archive;
let lists: ConversationList[];

beforeEach(async () => {
  server = new ChatServer();
  archive = new Archive(server);
  lists = [];
  await server.start();
  for (const id of ["a", "b", "c"]) archive.add(id, [id, "user", "", `text of ${id}`]);
});

afterEach(async () => {
  for (const list of lists) list.close();
  await server.stop();
});

const options = (): ConversationsOptions => ({
  ...{ echo: server.echo(), userId: 7, token: "jwt", baseUrl: server.url },
});

const ids = (list: ConversationList): string =>
  list
    .getSnapshot()
    .items.map(({ id }) => id)
    .join("");

async function open(more: Partial<ConversationsOptions> = {}): Promise<ConversationList> {
  const list = createConversations({ ...options(), ...more });
  lists.push(list);
  list.subscribe(() => undefined);
  const isRead = (): boolean => server.seen("GET", "/api/conversations").length >= 2;
  await until("live", () => isRead() && !list.getSnapshot().isLoading);
  return list;
}

const shows = (list: ConversationList, wanted: string): Promise<boolean> =>
  until(`${wanted}, not ${ids(list)}`, () => ids(list) === wanted);

test("has the newest first, in pages", async () => {
  const list = await open({ limit: 2 });
  assert.deepEqual([ids(list), list.getSnapshot().hasMore], ["cb", true]);
  await list.loadMore();
  assert.deepEqual([ids(list), list.getSnapshot().hasMore], ["cba", false]);
});

test("moves with what other tabs do, and is read again after a time without connection", async () => {
  const list = await open();
  server.emit("message.created", { conversationId: "a", messageId: "m", message: "hi" });
  await shows(list, "acb");
  server.emit("message.created", {
    ...{ conversationId: "new", messageId: "n" },
    message: `The first  words\n${"and more ".repeat(20)}`,
  });
  await shows(list, "newacb");
  assert.match(list.getSnapshot().items[0]?.title ?? "", /^The first words and more .{20,50}…$/);
  const updatedAt = new Date().toISOString();
  server.emit("conversation.changed", { conversationId: "new", updatedAt, title: "New" });
  await until("title", () => list.getSnapshot().items[0]?.title === "New");
  server.emit("conversation.changed", { conversationId: "a", updatedAt, deleted: true });
  await shows(list, "newcb");
  archive.add("d", ["d", "user", "", "d"]);
  server.dropSockets();
  await shows(list, "dcba");
});

test("renames and removes at once, and undoes what has failed", async () => {
  const list = await open();
  const { conversations } = server;
  server.conversations = (seen) =>
    seen.method === "GET" ? conversations(seen) : { status: 500, body: { message: "No." } };
  const renamed = list.rename("b", " B  side ");
  assert.equal(list.getSnapshot().items[1]?.title, "B side");
  assert.equal(await renamed, false);
  assert.deepEqual(
    [list.getSnapshot().items[1]?.title, list.getSnapshot().error?.text],
    [null, "No."],
  );
  const removed = list.remove("b");
  assert.equal(ids(list), "ca");
  assert.equal(await removed, false);
  assert.equal(ids(list), "cba");
  server.conversations = conversations;
  assert.ok(await list.rename("b", "B"));
  assert.ok(await list.remove("c"));
  assert.deepEqual([...archive.kept.keys()], ["a", "b"]);
  assert.equal(archive.kept.get("b")?.title, "B");
  assert.equal(server.seen("DELETE", "/").at(-1)?.socketId, undefined, "nobody else tells");
});

test("searches; a later search overtakes an earlier one", async () => {
  const list = await open();
  for (const [id, kept] of archive.kept) kept.title = `title ${id}`;
  const { conversations } = server;
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  server.conversations = async (seen) => {
    if (seen.path.includes("q=slow")) await released;
    return conversations(seen);
  };
  const slow = list.search("slow");
  await list.search("title b");
  release();
  await slow;
  assert.deepEqual([ids(list), list.getSnapshot().query], ["b", "title b"]);
  await list.search("");
  assert.equal(ids(list), "cba");
});

test("and the chat of its tab tell each other what the server leaves out for the tab", async () => {
  const list = await open();
  const chat = createChat({ ...options(), conversations: serverConversations({ list }) });
  chat.subscribe(() => undefined);
  await until("live", () => chat.getSnapshot().connection === "live");
  chat.send("my words");
  await until("item", () => list.getSnapshot().items.length === 4);
  const { id } = chat.getSnapshot().conversation ?? {};
  assert.deepEqual(list.getSnapshot().items[0]?.id, id);
  assert.equal(list.getSnapshot().items[0]?.title, "my words");
  await list.rename(id ?? "", "Title");
  assert.equal(chat.getSnapshot().conversation?.title, "Title");
  await list.remove(id ?? "");
  assert.equal(chat.getSnapshot().conversation?.isGone, true);
  assert.equal(server.seen("DELETE", "/").at(-1)?.socketId, "1.1");
  chat.close();
});

test("is off where the server has no database", async () => {
  const message = "Conversations are off: this server has no database (chat.database_url).";
  server.conversations = () => ({ status: 503, body: { message } });
  const list = await open();
  assert.deepEqual([list.getSnapshot().isOff, list.getSnapshot().error], [true, null]);
});
