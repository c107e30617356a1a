// `EventSource` of npm, on replies of a real worker: every event once, also over a line that breaks.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open } from "./doors/events.mjs";
import { LIMIT, line, Person, SCRIPTS } from "./doors.mjs";
import { until } from "./legato.mjs";

async function reads(name, end) {
  const person = await Person.start();
  const [message, text] = SCRIPTS[name];
  const id = await person.send(message);
  const page = await open(person, id);
  await page.ends(end);
  assert.equal(page.text, text);
  assert.equal(page.text, (await person.stored(id)).text);
  return page;
}

test("a plain reply", LIMIT, async () => {
  const page = await reads("plain", "stream.completed");
  assert.deepEqual(page.names.slice(0, 2), ["stream.started", "token.received"]);
});

test("reasoning", LIMIT, async () => {
  const page = await reads("reasoning", "stream.completed");
  assert.equal(page.names.filter((name) => name === "reasoning.received").length, 3);
});

test("a tool", LIMIT, async () => {
  const page = await reads("tool", "stream.completed");
  const result = page.heard.find(([name]) => name === "tool.result")[1];
  assert.deepEqual(result.output, { city: "Oslo", temperature: 7 });
});

test("a reply that fails in the middle", LIMIT, async () => {
  const page = await reads("failing", "stream.failed");
  assert.equal(page.heard.at(-1)[1].partial, true);
});

test("cancelled from elsewhere; a page that joins late gets the same", LIMIT, async () => {
  const person = await Person.start();
  const id = await person.send(SCRIPTS.endless[0]);
  const page = await open(person, id);
  await until("some text", () => page.ids.length > 3);
  await person.cancel(id);
  await page.ends("stream.cancelled");
  const late = await open(person, id);
  await late.ends("stream.cancelled");
  assert.deepEqual(late.heard, page.heard);
});

test("over a line that breaks again and again", LIMIT, async () => {
  const person = await Person.start();
  const broken = await line();
  try {
    const id = await person.send("#script rate=100 tokens=50000");
    const page = await open(person, id, broken.url);
    for (let cut = 1; cut <= 3; cut += 1) {
      const had = page.ids.length;
      await until("more events", () => page.ids.length > had + 10);
      broken.cut();
    }
    await person.cancel(id);
    await page.ends("stream.cancelled");
    assert.equal(page.text, (await person.stored(id)).text);
  } finally {
    broken.close();
  }
});
