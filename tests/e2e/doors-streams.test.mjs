// The stock client of Durable Streams on replies of a real worker, by long-poll and by server-sent events.

import assert from "node:assert/strict";
import { test } from "node:test";
import { stream } from "@durable-streams/client";

import { LIMIT, line, Person, SCRIPTS } from "./doors.mjs";
import { LEGATO_URL, until } from "./legato.mjs";

class Reading {
  messages = [];

  static async start(person, id, { live = "long-poll", url = LEGATO_URL, ...more } = {}) {
    const reading = new Reading();
    reading.response = await stream({
      url: `${url}/api/streams/${id}`,
      headers: person.headers,
      live,
      ...more,
    });
    reading.response.subscribeJson((batch) => reading.messages.push(...batch.items));
    return reading;
  }

  get kinds() {
    return this.messages.map(({ type }) => type);
  }

  get text() {
    return this.messages
      .filter(({ type }) => type === "text")
      .map(({ delta }) => delta)
      .join("");
  }

  /** Wait until the stream is closed, and has all of the reply. */
  async ends(person, id, kind) {
    await this.response.closed;
    await until("the last message", () => this.kinds.at(-1) === kind);
    assert.equal(this.kinds[0], "started");
    assert.deepEqual(
      this.messages.map(({ i }) => i),
      this.messages.map((_, at) => at),
    );
    assert.equal(this.text, (await person.stored(id)).text);
  }
}

async function reads(name, kind, live) {
  const person = await Person.start();
  const [message, text] = SCRIPTS[name];
  const id = await person.send(message);
  const reading = await Reading.start(person, id, { live });
  await reading.ends(person, id, kind);
  assert.equal(reading.text, text);
  return reading;
}

for (const live of ["long-poll", "sse"]) {
  test(`a plain reply, by ${live}`, LIMIT, () => reads("plain", "completed", live));
}

test("reasoning and a tool", LIMIT, async () => {
  assert.equal((await reads("reasoning", "completed")).kinds.indexOf("reasoning"), 1);
  const result = (await reads("tool", "completed")).messages.find(
    ({ type }) => type === "tool_result",
  );
  assert.deepEqual(result.output, { city: "Oslo", temperature: 7 });
});

test("a reply that fails in the middle", LIMIT, async () => {
  const { messages } = await reads("failing", "failed", "sse");
  assert.equal(messages.at(-1).partial, true);
});

test("cancelled; a reader that comes later gets the same, from any offset", LIMIT, async () => {
  const person = await Person.start();
  const id = await person.send(SCRIPTS.endless[0]);
  const live = await Reading.start(person, id);
  await until("some text", () => live.text.includes("w2 "));
  await person.cancel(id);
  await live.ends(person, id, "cancelled");
  const late = await Reading.start(person, id, { live: false });
  await until("all messages", () => late.messages.length === live.messages.length);
  assert.deepEqual(late.messages, live.messages);
  const rest = await Reading.start(person, id, { live: false, offset: "0000000000000002" });
  await until("the rest", () => rest.messages.length === live.messages.length - 2);
  assert.deepEqual(rest.messages, live.messages.slice(2));
});

test("over a line that breaks again and again", LIMIT, async () => {
  const person = await Person.start();
  const broken = await line();
  try {
    const id = await person.send("#script rate=100 tokens=50000");
    const reading = await Reading.start(person, id, { url: broken.url });
    for (let cut = 1; cut <= 3; cut += 1) {
      const had = reading.messages.length;
      await until("more messages", () => reading.messages.length > had + 10);
      broken.cut();
    }
    await person.cancel(id);
    await reading.ends(person, id, "cancelled");
  } finally {
    broken.close();
  }
});
