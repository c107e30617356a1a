// A stock Laravel Echo in Node, used exactly as an app would: nothing of client-js is here.

import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { echoOptions, getToken, LEGATO_URL, newUser, until, words } from "./legato.mjs";

const LIMIT = { timeout: 180_000 };
const EVENTS = ["token.received", "stream.completed", "stream.failed", "stream.cancelled"];

/** A signed-in user of an app: an Echo, what it heard, and the app's HTTP calls. */
class User {
  heard = [];

  constructor(id, token) {
    this.id = id;
    this.token = token;
    this.echo = new Echo({ Pusher, ...echoOptions(token) });
  }

  static async signIn(id) {
    return new User(id, await getToken(id));
  }

  /** Listen on a user's channel; resolves when the subscription is confirmed, rejects when it is refused. */
  listen(id = this.id) {
    return new Promise((resolve, reject) => {
      const channel = this.echo.private(`ai-chat.${id}`);
      for (const event of EVENTS) {
        channel.listen(`.${event}`, (data) => this.heard.push({ event, data }));
      }
      channel.subscribed(resolve).error(reject);
    });
  }

  call(method, path, body, headers = {}) {
    return fetch(`${LEGATO_URL}/api/chat/${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        "Content-Type": "application/json",
        ...headers,
      },
      ...(body && { body: JSON.stringify(body) }),
    });
  }

  async send(message, history = []) {
    const response = await this.call("POST", "send", { message, history });
    assert.equal(response.status, 200);
    const answer = await response.json();
    assert.deepEqual(Object.keys(answer), ["message_id"]);
    return answer.message_id;
  }

  of(messageId, event) {
    return this.heard.filter((seen) => seen.event === event && seen.data.messageId === messageId);
  }

  tokens(messageId) {
    return this.of(messageId, "token.received").map((seen) => seen.data);
  }

  /** The terminal events of a message, as soon as there is one. */
  ended(messageId) {
    return until(`the end of ${messageId}`, () => {
      const ends = this.heard.filter(
        (seen) => seen.event !== "token.received" && seen.data.messageId === messageId,
      );
      return ends.length > 0 && ends;
    });
  }
}

const users = [];
let user;

async function signIn(id) {
  const someone = await User.signIn(id);
  users.push(someone);
  return someone;
}

beforeEach(async () => {
  user = await signIn(newUser());
  await user.listen();
});

after(() => users.forEach((someone) => someone.echo.disconnect()));

test("user 7 hears every index once and in order, and then the end", LIMIT, async () => {
  const seven = await signIn(7);
  await seven.listen();
  const id = await seven.send("#script tokens=300 rate=300");
  const [end, ...more] = await seven.ended(id);
  assert.deepEqual([end.event, more], ["stream.completed", []]);
  assert.deepEqual([end.data.userId, end.data.totalTokens], [7, 300]);
  assert.deepEqual(
    seven.tokens(id),
    words(0, 300).map((token, tokenIndex) => ({ userId: 7, messageId: id, token, tokenIndex })),
  );
});

test(
  "the channel of another user is refused, its messages cannot be heard or stopped",
  LIMIT,
  async () => {
    const other = await signIn(newUser());
    await other.listen();
    const refusal = await other.listen(user.id).then(
      () => null,
      (error) => error,
    );
    assert.equal(refusal?.status, 403);
    const id = await user.send("#script tokens=40 rate=40");
    await until("a token", () => user.tokens(id).length > 0);
    assert.equal((await other.call("POST", `${id}/cancel`)).status, 404);
    assert.equal((await other.call("GET", id)).status, 404);
    const [end] = await user.ended(id);
    assert.equal(end.event, "stream.completed");
    assert.deepEqual(other.heard, []);
  },
);

test("cancel ends a reply once, with a part of its tokens", LIMIT, async () => {
  const id = await user.send("#script tokens=2000 rate=50");
  await until("some tokens", () => user.tokens(id).length > 5);
  const response = await user.call("POST", `${id}/cancel`);
  assert.deepEqual([response.status, await response.json()], [200, { cancelled: true }]);
  const [end] = await user.ended(id);
  assert.equal(end.event, "stream.cancelled");
  assert.equal(end.data.totalTokens, user.tokens(id).length);
  const read = await (await user.call("GET", id)).json();
  assert.deepEqual([read.status, read.nextIndex], ["cancelled", end.data.totalTokens]);
  assert.equal(user.of(id, "stream.completed").length, 0);
});

test("a failure is one event with text for people", LIMIT, async () => {
  const id = await user.send("#script tokens=20 rate=100 fail=overloaded@5/always");
  const [end, ...more] = await user.ended(id);
  assert.deepEqual([end.event, more], ["stream.failed", []]);
  assert.equal(end.data.error, "Response unavailable. Please try again.");
  assert.equal(end.data.partial, true);
  assert.deepEqual(
    user.tokens(id).map((data) => data.token),
    words(0, 5),
  );
});

test("what was missed is read over HTTP, from any index", LIMIT, async () => {
  const id = await user.send("#script tokens=25 rate=0");
  await user.ended(id);
  const read = await (await user.call("GET", `${id}?after=19`)).json();
  assert.deepEqual(
    [read.status, read.nextIndex, read.tokens, read.text],
    ["complete", 25, words(20, 25), words(0, 25).join("")],
  );
});

test("two replies of one user at a time do not mix", LIMIT, async () => {
  const ids = await Promise.all([
    user.send("#script tokens=80 rate=100"),
    user.send("#script tokens=90 rate=100"),
  ]);
  await Promise.all(ids.map((id) => user.ended(id)));
  assert.deepEqual(
    ids.map((id) => user.tokens(id).map((data) => data.token)),
    [words(0, 80), words(0, 90)],
  );
});

test("a request that is repeated under its key makes one message", LIMIT, async () => {
  const body = { message: "#script tokens=1 rate=0", history: [] };
  const headers = { "Idempotency-Key": `key-${user.id}` };
  const answers = [];
  for (const _ of [1, 2]) answers.push(await user.call("POST", "send", body, headers));
  const ids = await Promise.all(answers.map(async (answer) => (await answer.json()).message_id));
  assert.equal(ids[0], ids[1]);
  const other = await user.call("POST", "send", { ...body, message: "other" }, headers);
  assert.equal(other.status, 409);
});

test("what cannot be a request is refused with a reason", LIMIT, async () => {
  const refused = [
    [{ message: "" }, "message"],
    [{ message: "x".repeat(100_001) }, "message"],
    [{ message: "x", history: [{ role: "system", content: "x" }] }, "history.0.role"],
    [{ message: "x", history: Array(1001).fill({ role: "user", content: "x" }) }, "history"],
  ];
  for (const [body, field] of refused) {
    const response = await user.call("POST", "send", body);
    const answer = await response.json();
    assert.equal(response.status, 422);
    assert.equal(typeof answer.message, "string");
    assert.ok(field in answer.errors, `${field} is not in ${Object.keys(answer.errors)}`);
  }
  const unsigned = await fetch(`${LEGATO_URL}/api/chat/send`, { method: "POST", body: "{}" });
  assert.equal(unsigned.status, 401);
});
