// A stock pusher-js that knows of tokens and ends alone, while the server's connection to Redis breaks again and
// again: nothing is missing, nothing comes twice, nothing comes late.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import Pusher from "pusher-js";

import { getToken, LEGATO_URL, newUser, until, words } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };
const HEARD = new Set(["token.received", "stream.completed", "stream.failed", "stream.cancelled"]);

const readers = [];

after(() => readers.forEach((reader) => reader.pusher.disconnect()));

/** A user with one connection, which stays. */
class Reader {
  heard = [];
  connections = 0;

  static async start() {
    const reader = new Reader();
    readers.push(reader);
    const { hostname, port } = new URL(LEGATO_URL);
    const user = newUser();
    reader.headers = { Authorization: `Bearer ${await getToken(user)}` };
    reader.pusher = new Pusher("app-key", {
      wsHost: hostname,
      wsPort: Number(port),
      forceTLS: false,
      enabledTransports: ["ws"],
      cluster: "",
      channelAuthorization: {
        endpoint: `${LEGATO_URL}/broadcasting/auth`,
        transport: "ajax",
        headers: reader.headers,
      },
    });
    reader.pusher.connection.bind("connected", () => (reader.connections += 1));
    const channel = reader.pusher.subscribe(`private-ai-chat.${user}`);
    channel.bind_global((event, data) => HEARD.has(event) && reader.heard.push({ event, data }));
    await until("a subscription", () => channel.subscribed, 60);
    return reader;
  }

  async send(message) {
    const response = await fetch(`${LEGATO_URL}/api/chat/send`, {
      method: "POST",
      headers: { ...this.headers, "Content-Type": "application/json" },
      body: JSON.stringify({ message, history: [] }),
    });
    assert.equal(response.status, 200);
    return (await response.json()).message_id;
  }

  of(id) {
    return this.heard.filter(({ data }) => data.messageId === id);
  }

  /** The whole reply: every index once, in order, then one end. */
  async hearsAll(id, count, end = "stream.completed") {
    await until(`the end of ${id}`, () => this.of(id).some(({ event }) => event === end), 60);
    const heard = this.of(id);
    assert.deepEqual(
      heard.slice(0, -1).map(({ event, data }) => [event, data.tokenIndex, data.token]),
      words(0, count).map((word, index) => ["token.received", index, word]),
    );
    assert.equal(heard.at(-1).event, end);
  }
}

test("long replies are whole", LIMIT, async () => {
  const people = await Promise.all(Array.from({ length: 6 }, () => Reader.start()));
  const ids = await Promise.all(people.map((one) => one.send("#script tokens=500 rate=100")));
  await Promise.all(people.map((one, number) => one.hearsAll(ids[number], 500)));
  assert.deepEqual(
    people.map((one) => one.connections),
    people.map(() => 1),
  );
});

test("short replies, which begin and end between two breaths, are whole", LIMIT, async () => {
  const people = await Promise.all(Array.from({ length: 4 }, () => Reader.start()));
  for (let round = 0; round < 12; round += 1) {
    const ids = await Promise.all(people.map((one) => one.send("#script tokens=4 rate=1000")));
    await Promise.all(people.map((one, number) => one.hearsAll(ids[number], 4)));
  }
  for (const one of people) assert.equal(one.heard.length, 12 * 5);
});
