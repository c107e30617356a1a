// The stock client of Durable Streams on replies of a real worker, by long-poll and by server-sent events.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Reading } from "./doors/streams.mjs";
import { LIMIT, line, Person, SCRIPTS } from "./doors.mjs";
import { until } from "./legato.mjs";

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
    const reading = Reading.follow(person, id, { url: broken.url });
    for (let cut = 1; cut <= 3; cut += 1) {
      const had = reading.messages.length;
      await until("more messages", () => reading.messages.length > had + 10);
      broken.cut();
    }
    await person.cancel(id);
    await reading.isOver;
    await reading.ends(person, id, "cancelled");
  } finally {
    broken.close();
  }
});
