// A stock Echo that listens to the events of Laravel's AI SDK, as its documents show it.

import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { echoOptions, getToken, LEGATO_URL, newUser, until, words } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };
const EVENTS = [
  ...["stream_start", "text_start", "text_delta", "text_end", "stream_end", "stream_failed"],
  ...["reasoning_start", "reasoning_delta", "reasoning_end", "tool_call", "tool_result"],
  ...["stream_snapshot", "token.received", "stream.started", "stream.completed"],
];

let user;
const echoes = [];

async function signIn(id) {
  const bearerToken = await getToken(id);
  const echo = new Echo({ Pusher, ...echoOptions(bearerToken) });
  echoes.push(echo);
  const heard = [];
  const page = { id, heard, text: "", token: bearerToken };
  const channel = echo.private(`ai-chat.${id}`);
  for (const event of EVENTS) channel.listen(`.${event}`, (data) => heard.push({ event, data }));
  channel.listen(".text_delta", ({ delta }) => (page.text += delta)); // what front ends do
  await new Promise((resolve, reject) => channel.subscribed(resolve).error(reject));
  return page;
}

async function call(path, body) {
  const headers = { Authorization: `Bearer ${user.token}`, "Content-Type": "application/json" };
  const url = `${LEGATO_URL}/api/chat/${path}`;
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  assert.equal(response.status, 200);
  return response.json();
}

const send = async (message) => (await call("send", { message, dialect: "laravel-ai" })).message_id;
const ended = (page, ...names) =>
  until("the end", () => page.heard.find(({ event }) => names.includes(event)));

/** Each event came once and in order, and no other than these. */
function assertWhole(page, messageId, ...kinds) {
  const names = page.heard.map(({ event }) => event);
  assert.deepEqual(
    names.filter((name, at) => name !== names[at - 1]),
    kinds,
  );
  page.heard.forEach(({ event, data }, index) => {
    assert.deepEqual([data.index, data.id], [index, `${messageId}-e${index + 1}`]);
    assert.deepEqual([data.type, data.invocation_id], [event, messageId]);
  });
}

beforeEach(async () => {
  user = await signIn(newUser());
});

after(() => echoes.forEach((echo) => echo.disconnect()));

test("a reply is told in these events alone", LIMIT, async () => {
  const id = await send("#script tokens=100 rate=300");
  const { data } = await ended(user, "stream_end");
  assert.equal(user.text, words(0, 100).join(""));
  assertWhole(user, id, "stream_start", "text_start", "text_delta", "text_end", "stream_end");
  assert.equal(data.reason, "stop");
  assert.ok(Object.values(data.usage).every(Number.isInteger));
});

test("reasoning and a tool", LIMIT, async () => {
  const id = await send('#script rate=200 reason=3 tokens=2 tool=weather:{"city":"Oslo"} tokens=2');
  await ended(user, "stream_end");
  assertWhole(
    user,
    id,
    ...["stream_start", "reasoning_start", "reasoning_delta", "reasoning_end"],
    ...["text_start", "text_delta", "text_end", "tool_call", "tool_result"],
    ...["stream_start", "text_start", "text_delta", "text_end", "stream_end"],
  );
  const { data } = user.heard.find(({ event }) => event === "tool_result");
  assert.deepEqual(
    [data.tool_name, data.successful, data.result],
    ["weather", true, { city: "Oslo", temperature: 7 }],
  );
});

test("a page that comes late gets a snapshot, and what follows", LIMIT, async () => {
  const id = await send("#script tokens=2000 rate=40");
  await until("some text", () => user.text.length > 10);
  const late = await signIn(user.id);
  const { data: snapshot } = await ended(late, "stream_snapshot");
  await until("more text", () => late.text.length > 10);
  await call(`${id}/cancel`);
  await Promise.all([ended(user, "stream_end"), ended(late, "stream_end")]);
  assert.equal(snapshot.status, "streaming");
  const rest = late.heard.filter(
    ({ event, data }) => event === "text_delta" && data.index >= snapshot.index,
  );
  assert.equal(snapshot.text + rest.map(({ data }) => data.delta).join(""), user.text);
});

test("cancel ends a reply, and a failure is one event", LIMIT, async () => {
  const id = await send("#script tokens=2000 rate=50");
  await until("some text", () => user.text.length > 10);
  await call(`${id}/cancel`);
  assert.equal((await ended(user, "stream_end")).data.reason, "cancelled");
  assertWhole(user, id, "stream_start", "text_start", "text_delta", "text_end", "stream_end");

  user = await signIn(newUser());
  const failed = await send("#script tokens=20 rate=100 fail=refusal@5");
  const { data } = await ended(user, "stream_failed");
  assert.equal(data.message, "Response unavailable. Please try again.");
  assert.equal(user.text, words(0, 5).join(""));
  assertWhole(
    user,
    failed,
    "stream_start",
    "text_start",
    "text_delta",
    "text_end",
    "stream_failed",
  );
});
