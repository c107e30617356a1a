// Many readers in one process: each a stock pusher-js, with the habits of a good application around it.
// It reads a reply up over HTTP when it sees a hole, after a reconnection, and when nothing moves.
//
// Standard input: a line of settings, then commands, each a line of JSON. Standard output: what was reached.
// What the readers see goes to the file `log`, a line of JSON for each thing, in the order of its arrival.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

const ENDS = new Set(["complete", "failed", "cancelled"]);
const AFTER_SUBSCRIBING_MS = 300;
const SILENCE_MS = 5000;
const SETTLING_MS = 400;
const READ_TIMEOUT_MS = 4000;

const say = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);

/** What a reader knows of one reply: enough to know when to read it up. */
class Reply {
  next = 0;
  held = new Set();
  total = null;
  movedAt = Date.now();
  reading = false;

  get done() {
    return this.total !== null && this.next >= this.total;
  }

  get hasHole() {
    return this.held.size > 0 || (this.total ?? 0) > this.next;
  }

  advance(next) {
    this.next = Math.max(this.next, next);
    for (const index of this.held) if (index < this.next) this.held.delete(index);
    while (this.held.delete(this.next)) this.next += 1;
    this.movedAt = Date.now();
  }

  token(index) {
    if (index > this.next) this.held.add(index);
    else this.advance(index + 1);
  }
}

/** A stock client on some channels, one of them the presence channel. */
class Client {
  on = new Set();

  constructor(settings, { name, user, token, port }, channels) {
    Object.assign(this, { log: settings.log, name, user });
    this.url = `http://127.0.0.1:${port}`;
    this.headers = { Authorization: `Bearer ${token}` };
    this.channels = [...channels, settings.room];
    this.pusher = new settings.Pusher(settings.key, {
      wsHost: "127.0.0.1",
      wsPort: port,
      forceTLS: false,
      enabledTransports: ["ws"],
      cluster: "",
      activityTimeout: 10_000,
      pongTimeout: 5_000,
      unavailableTimeout: 3_000,
      channelAuthorization: {
        endpoint: `${this.url}/broadcasting/auth`,
        transport: "ajax",
        headers: this.headers,
      },
    });
    this.pusher.connection.bind("message", (message) => this.hear(message));
    this.pusher.connection.bind("state_change", ({ previous, current }) => {
      if (previous === "connected") this.lost();
      if (current === "connected") for (const channel of this.channels) this.note("asked", { channel });
    });
    for (const name of this.channels) this.#follow(this.pusher.subscribe(name));
  }

  get subscribed() {
    return this.channels.every((name) => this.on.has(name));
  }

  #follow(channel) {
    channel.bind("pusher:subscription_error", () => this.#subscribeLater(channel.name));
    if (!channel.name.startsWith("presence-")) return;
    const note = () => this.note("members", { ids: Object.keys(channel.members.members) });
    for (const event of ["subscription_succeeded", "member_added", "member_removed"])
      channel.bind(`pusher:${event}`, note);
  }

  note(kind, fact = {}) {
    fs.writeSync(this.log, `${JSON.stringify({ reader: this.name, at: Date.now() / 1000, kind, ...fact })}\n`);
  }

  lost() {
    for (const channel of this.on) this.note("went", { channel });
    this.on.clear();
  }

  /** pusher-js gives up when its request to authorise fails; an application tries again. */
  #subscribeLater(name) {
    this.note("subscription error", { channel: name });
    setTimeout(() => {
      if (!this.pusher.channel(name)) return;
      this.note("asked", { channel: name });
      this.pusher.subscribe(name);
    }, 500);
  }

  hear({ event, channel }) {
    if (event !== "pusher_internal:subscription_succeeded" || this.on.has(channel)) return;
    this.on.add(channel);
    this.note("came", { channel });
  }

  leave(unsubscribes) {
    if (unsubscribes) {
      this.lost();
      for (const name of this.channels) this.pusher.unsubscribe(name);
    }
    // Told to disconnect while it fails to connect, pusher-js goes on trying, and is there again.
    this.pusher.connection.bind("connected", () => this.pusher.disconnect());
    this.pusher.disconnect();
  }
}

/** One that reads its user's replies. */
class Reader extends Client {
  replies = new Map();

  constructor(settings, person) {
    const channel = `private-ai-chat.${person.user}`;
    super(settings, person, [channel]);
    this.channel = channel;
  }

  lost() {
    super.lost();
    this.note("closed");
  }

  hear(message) {
    const { event, channel, data } = message;
    super.hear(message);
    if (channel !== this.channel) return;
    if (event === "pusher_internal:subscription_succeeded") {
      this.note("subscribed");
      setTimeout(() => this.catchUp(), AFTER_SUBSCRIBING_MS);
    } else {
      this.note("frame", { channel, event, data });
      this.#take(event, data ?? {});
    }
  }

  #take(event, data) {
    const reply = this.expect(data.messageId);
    if (event === "token.received") reply.token(data.tokenIndex);
    else if (event === "stream.snapshot") reply.advance(data.nextIndex);
    else if ("totalTokens" in data) reply.total = data.totalTokens;
    // Only the server knows how much there was of a reply that failed.
    if (event === "stream.failed" || reply.hasHole) void this.#read(data.messageId, reply);
  }

  expect(id) {
    if (!this.replies.has(id)) this.replies.set(id, new Reply());
    return this.replies.get(id);
  }

  catchUp() {
    for (const [id, reply] of this.unfinished()) void this.#read(id, reply);
  }

  watch(silence) {
    for (const [id, reply] of this.unfinished())
      if (Date.now() - reply.movedAt >= silence) void this.#read(id, reply);
  }

  unfinished() {
    return [...this.replies].filter(([, reply]) => !reply.done);
  }

  async #read(id, reply) {
    if (reply.reading) return;
    reply.reading = true;
    reply.movedAt = Date.now();
    try {
      const response = await fetch(`${this.url}/api/chat/${id}?after=${reply.next - 1}`, {
        headers: this.headers,
        signal: AbortSignal.timeout(READ_TIMEOUT_MS),
      });
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
      const body = await response.json();
      this.note("read", { id, body });
      reply.advance(body.nextIndex);
      if (ENDS.has(body.status)) reply.total = body.nextIndex;
    } catch (error) {
      this.note("read failed", { id, reason: String(error) });
    } finally {
      reply.reading = false;
    }
  }

  reconnect(seconds) {
    this.pusher.disconnect();
    setTimeout(() => this.pusher.connect(), seconds * 1000);
  }
}

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { modules, key, log, room, people, guests } = JSON.parse((await lines.next()).value);
const Pusher = createRequire(path.join(modules, "readers.js"))("pusher-js");
const settings = { Pusher, key, room, log: fs.openSync(log, "a") };
const readers = people.map((person) => new Reader(settings, person));
const inside = new Map();
let silence = SILENCE_MS;

const until = (reached, fact) => {
  if (reached()) say(fact);
  else setTimeout(until, 50, reached, fact);
};

const COMMANDS = {
  expect({ user, id }) {
    for (const reader of readers) if (reader.user === user) reader.expect(id);
  },
  reconnect({ reader, seconds }) {
    readers[reader].reconnect(seconds);
  },
  come({ guest, port }) {
    const { name } = guests[guest];
    inside.set(guest, new Client(settings, { ...guests[guest], port }, [`door-${name}`]));
  },
  go({ guest, unsubscribes }) {
    inside.get(guest).leave(unsubscribes);
    inside.delete(guest);
  },
  settle() {
    silence = SETTLING_MS;
    until(
      () =>
        [...readers, ...inside.values()].every((client) => client.subscribed) &&
        readers.every((reader) => reader.unfinished().length === 0),
      "settled",
    );
  },
};

setInterval(() => {
  for (const reader of readers) reader.watch(silence);
}, 200);
until(() => readers.every((reader) => reader.subscribed), "ready");
for await (const line of lines) {
  const { command, ...rest } = JSON.parse(line);
  COMMANDS[command](rest);
}
process.exit(0);
