// `HttpAgent` of @ag-ui/client on replies of a real worker.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { ignoreRejections, Thread } from "./doors/ag-ui.mjs";
import { LIMIT, line, SCRIPTS } from "./doors.mjs";
import { until, words } from "./legato.mjs";

const warn = console.warn;
let warnings;

beforeEach(() => {
  warnings = [];
  console.warn = (...told) => warnings.push(told);
});

afterEach(() => {
  console.warn = warn;
  assert.deepEqual(warnings, []);
});

async function runs(name) {
  const [message, text] = SCRIPTS[name];
  const thread = await Thread.start(message);
  await thread.run();
  assert.equal(thread.text, text);
  await thread.hasStored();
  return thread;
}

test("a plain reply", LIMIT, async () => {
  const { outcome } = await runs("plain");
  assert.deepEqual(outcome, { type: "success" });
});

test("reasoning", LIMIT, async () => {
  const thread = await runs("reasoning");
  assert.equal(thread.of("reasoning")[0].content, "r0 r1 r2 ");
});

test("a tool that the worker runs", LIMIT, async () => {
  const thread = await runs("tool");
  const [{ toolCalls }] = thread.of("assistant");
  assert.deepEqual(
    [toolCalls[0].function.name, JSON.parse(toolCalls[0].function.arguments)],
    ["weather", { city: "Oslo" }],
  );
  assert.deepEqual(JSON.parse(thread.of("tool")[0].content), { city: "Oslo", temperature: 7 });
});

test("a reply that fails in the middle keeps its text", LIMIT, async () => {
  const { error } = await runs("failing");
  assert.equal(error.message, "Response unavailable. Please try again.");
});

test("cancelled from elsewhere", LIMIT, async () => {
  const thread = await Thread.start(SCRIPTS.endless[0]);
  const running = thread.run();
  await until("some text", () => thread.text.includes("w2 "));
  await thread.person.cancel(thread.id);
  await running;
  assert.deepEqual(thread.outcome, { type: "cancelled" });
  await thread.hasStored();
});

test("abortRun() cancels the reply", LIMIT, async () => {
  const thread = await Thread.start(SCRIPTS.endless[0]);
  const running = thread.run();
  await until("some text", () => thread.text.includes("w2 "));
  thread.agent.abortRun();
  await running.catch(() => {});
  assert.equal((await thread.person.stored(thread.id)).status, "cancelled");
});

test(
  "a run goes on when it is asked for again, by the same page and by one that is loaded",
  LIMIT,
  async () => {
    const broken = await line();
    try {
      const thread = await Thread.start(SCRIPTS.endless[0], { url: broken.url });
      const running = thread.run();
      await until("some text", () => thread.text.includes("w2 "));
      ignoreRejections();
      broken.cut();
      await assert.rejects(running);
      const before = thread.text;
      const again = thread.run();
      await until("more text", () => thread.text.length > before.length + 10);
      const reloaded = thread.reload();
      const third = reloaded.run();
      await until("all of the text", () => reloaded.text.length > before.length + 10);
      await thread.person.cancel(thread.id);
      await Promise.all([again, third]);
      assert.deepEqual([reloaded.id, reloaded.text], [thread.id, thread.text]);
      await thread.hasStored();
    } finally {
      broken.close();
    }
  },
);

test("a tool that needs an approval interrupts the run, and goes on after it", LIMIT, async () => {
  const thread = await Thread.start(
    '#script rate=200 tokens=2 tool=send_mail:{"to":"ann"} tokens=2',
  );
  await thread.run();
  const { type, interrupts } = thread.outcome;
  assert.deepEqual([type, interrupts.length], ["interrupt", 1]);
  const resume = [
    { interruptId: interrupts[0].id, status: "resolved", payload: { approve: true } },
  ];
  await thread.run({ runId: crypto.randomUUID(), resume });
  assert.deepEqual(thread.outcome, { type: "success" });
  assert.equal(thread.of("tool")[0].content, "sent to ann");
  assert.equal(thread.text, words(0, 4).join(""));
});

test("a refusal rejects the run", LIMIT, async () => {
  const thread = await Thread.start(" ");
  await assert.rejects(thread.run(), /HTTP 422/);
});
