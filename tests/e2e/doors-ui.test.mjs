// `Chat` of @ai-sdk/react, which is behind `useChat`, with its default transport, on replies of a real worker: version 6 of
// the SDK, and the two beside it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { sdkOf, Talk } from "./doors/ui.mjs";
import { LIMIT, line, SCRIPTS } from "./doors.mjs";
import { until } from "./legato.mjs";

async function tells(name, sdk) {
  const talk = await Talk.start(undefined, undefined, undefined, sdk);
  const [message, text] = SCRIPTS[name];
  await talk.chat.sendMessage({ text: message });
  assert.equal(talk.text, text);
  await talk.hasStored();
  return talk;
}

test("a plain reply", LIMIT, async () => {
  const talk = await tells("plain");
  assert.equal(talk.chat.status, "ready");
  assert.equal(talk.finished[0].finishReason, "stop");
  assert.equal(talk.reply.metadata.model, "scripted");
  assert.ok(talk.reply.metadata.usage.outputTokens > 0);
});

test("reasoning", LIMIT, async () => {
  const { reply } = await tells("reasoning");
  assert.equal(reply.parts.find(({ type }) => type === "reasoning").text, "r0 r1 r2 ");
});

test("a tool that the worker runs", LIMIT, async () => {
  const { reply, chat } = await tells("tool");
  const tool = reply.parts.find(({ type }) => type === "dynamic-tool");
  assert.deepEqual(
    [tool.toolName, tool.state, tool.input, tool.output],
    ["weather", "output-available", { city: "Oslo" }, { city: "Oslo", temperature: 7 }],
  );
  assert.equal(reply.parts.filter(({ type }) => type === "step-start").length, 2);
  assert.equal(chat.messages.length, 2);
});

test("a reply that fails in the middle keeps its text", LIMIT, async () => {
  const { chat } = await tells("failing");
  assert.equal(chat.status, "error");
  assert.equal(chat.error.message, "Response unavailable. Please try again.");
});

test("stopped on the server, from elsewhere", LIMIT, async () => {
  const talk = await Talk.start();
  const sent = talk.chat.sendMessage({ text: SCRIPTS.endless[0] });
  await until("some text", () => talk.text.includes("w2 "));
  await talk.stopOnServer();
  await sent;
  assert.equal(talk.chat.status, "ready");
  await talk.hasStored();
});

test("a page that is loaded again in the middle has all of the reply", LIMIT, async () => {
  const before = await Talk.start();
  void before.chat.sendMessage({ text: SCRIPTS.endless[0] });
  await until("some text", () => before.text.includes("w2 "));
  await before.chat.stop();
  const after = await before.reload();
  const resumed = after.chat.resumeStream();
  await until("more text", () => after.text.includes("w9 "));
  await after.stopOnServer();
  await resumed;
  assert.equal(after.chat.status, "ready");
  assert.equal(after.reply.id, before.reply.id);
  await after.hasStored();

  const late = await before.reload();
  await late.chat.resumeStream();
  assert.deepEqual([late.chat.status, late.chat.messages], ["ready", []]);
});

test("a line that breaks is an error, and resuming has all of the reply", LIMIT, async () => {
  const broken = await line();
  try {
    const talk = await Talk.start(undefined, undefined, broken.url);
    const sent = talk.chat.sendMessage({ text: SCRIPTS.endless[0] });
    await until("some text", () => talk.text.includes("w2 "));
    broken.cut();
    await sent;
    assert.equal(talk.chat.status, "error");
    const before = talk.text;
    const resumed = talk.chat.resumeStream();
    await until("more text", () => talk.text.length > before.length + 10);
    await talk.stopOnServer();
    await resumed;
    assert.equal(talk.chat.status, "ready");
    assert.equal(talk.chat.messages.length, 2);
    await talk.hasStored();
  } finally {
    broken.close();
  }
});

test("another answer replaces the one before", LIMIT, async () => {
  const talk = await tells("plain");
  const first = talk.reply.id;
  await talk.chat.regenerate();
  assert.notEqual(talk.reply.id, first);
  assert.equal(talk.text, SCRIPTS.plain[1]);
});

test("a refusal is a sentence", LIMIT, async () => {
  const talk = await Talk.start();
  await talk.chat.sendMessage({ text: " " });
  assert.equal(talk.chat.error.message, "Expected text in the last message");
});

for (const version of [5, 7]) {
  test(`version ${version}: a tool, and a page that is loaded again`, LIMIT, async () => {
    const sdk = await sdkOf(version);
    const whole = await tells("tool", sdk);
    const tool = whole.reply.parts.find(({ type }) => type === "dynamic-tool");
    assert.deepEqual(tool.output, { city: "Oslo", temperature: 7 });
    assert.deepEqual([whole.chat.status, whole.chat.messages.length], ["ready", 2]);

    const before = await Talk.start(undefined, undefined, undefined, sdk);
    void before.chat.sendMessage({ text: SCRIPTS.endless[0] });
    await until("some text", () => before.text.includes("w2 "));
    await before.chat.stop();
    const after = await before.reload();
    const resumed = after.chat.resumeStream();
    await until("more text", () => after.text.includes("w9 "));
    await after.stopOnServer();
    await resumed;
    assert.equal(after.reply.id, before.reply.id);
    await after.hasStored();
  });
}
