import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";

import type { Frame, ServerStatus } from "../src/frames.js";
import {
  EMPTY,
  findReply,
  history,
  isActive,
  isStopOwed,
  MAX_HELD,
  MAX_STRAYS,
  MAX_TURNS,
  missingFrom,
  reduce,
  type Action,
  type ChatState,
  type Effect,
  type Reply,
  type Turn,
} from "../src/reducer.js";

const ID = "m1";

const isReply = (turn: Turn): turn is Reply => turn.role === "assistant";

/** Stands for "no reply": no property that a test looks at. */
const NONE = {} as Reply;

/** Run actions from `state`; all effects in order. */
function run(actions: readonly Action[], state: ChatState = EMPTY) {
  const effects: Effect[] = [];
  for (const action of actions) {
    const step = reduce(state, action);
    state = step.state;
    effects.push(...step.effects);
  }
  return { state, effects, reply: state.turns.find(isReply) ?? NONE };
}

const send = (key = "k", at = 100): Action => ({
  type: "send",
  key,
  userKey: `${key}-user`,
  requestId: `${key}-request`,
  text: "hello",
  at,
});

const accepted = (messageId = ID, key = "k"): Action => ({
  type: "send.accepted",
  key,
  messageId,
  at: 110,
});

const frame = (value: Frame, at = 200): Action => ({ type: "frame", frame: value, at });

const token = (tokenIndex: number, messageId = ID): Action =>
  frame({ type: "token.received", messageId, token: `w${String(tokenIndex)} `, tokenIndex });

/** The tokens from one index up to another, in one event. */
const merged = (from: number, to: number): Action =>
  frame({
    ...{ type: "token.received", messageId: ID, token: words(from, to) },
    ...{ tokenIndex: from, tokenCount: to - from },
  });

const completed = (totalTokens: number, at = 300): Action =>
  frame({ type: "stream.completed", messageId: ID, totalTokens }, at);

const failed = (): Action => frame({ type: "stream.failed", messageId: ID, error: "No." }, 300);

const snapshot = (count: number, status: ServerStatus = "streaming"): Action =>
  frame({
    type: "stream.snapshot",
    messageId: ID,
    text: words(0, count),
    nextIndex: count,
    status,
  });

const refetched = (after: number, count: number, status: ServerStatus = "streaming"): Action => ({
  type: "refetched",
  messageId: ID,
  log: { tokens: list(after + 1, count), nextIndex: count, status },
  at: 400,
});

const cancel: Action = { type: "cancel", key: "k", at: 250 };

const list = (from: number, to: number): string[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, offset) => `w${String(from + offset)} `);

const words = (from: number, to: number): string => list(from, to).join("");

describe("the way of a reply", () => {
  test("thinking, streaming, complete, with its times", () => {
    const thinking = run([send(), accepted()]);
    assert.deepEqual(
      [thinking.reply.status, thinking.reply.messageId, thinking.reply.startedAt],
      ["thinking", ID, 100],
    );
    const streaming = run([token(0), token(1)], thinking.state);
    assert.deepEqual(
      [streaming.reply.status, streaming.reply.text, streaming.reply.endedAt],
      ["streaming", "w0 w1 ", null],
    );
    const { reply, effects } = run([completed(2)], streaming.state);
    assert.deepEqual(
      [reply.status, reply.text, reply.nextIndex, reply.endedAt],
      ["complete", "w0 w1 ", 2, 300],
    );
    assert.deepEqual(effects, []);
  });

  test("the user's turn comes before the reply, each under its own key", () => {
    const { state } = run([send()]);
    assert.deepEqual(
      state.turns.map((turn) => [turn.role, turn.key]),
      [
        ["user", "k-user"],
        ["assistant", "k"],
      ],
    );
  });

  test("stream.started names the model and does not end the thinking", () => {
    const { reply } = run([
      send(),
      accepted(),
      frame({ type: "stream.started", messageId: ID, model: "claude" }),
    ]);
    assert.deepEqual([reply.status, reply.model], ["thinking", "claude"]);
  });

  test("a failure keeps the text so far and the server's words", () => {
    const { reply } = run([send(), accepted(), token(0), failed()]);
    assert.deepEqual(
      [reply.status, reply.text, reply.error, reply.endedAt],
      ["failed", "w0 ", "No.", 300],
    );
  });

  test("stream.cancelled, from another tab, ends it", () => {
    const { reply } = run([
      send(),
      accepted(),
      token(0),
      frame({ type: "stream.cancelled", messageId: ID }),
    ]);
    assert.deepEqual([reply.status, reply.endedAt], ["cancelled", 200]);
  });

  test("a reply without tokens can be complete", () => {
    assert.equal(run([send(), accepted(), completed(0)]).reply.status, "complete");
  });

  test("a conversation is bounded, and the oldest turns go first", () => {
    const sends = Array.from({ length: MAX_TURNS }, (_, n) => send(`k${String(n)}`));
    const { state } = run(sends);
    assert.equal(state.turns.length, MAX_TURNS);
    assert.equal(state.turns.at(-1)?.key, `k${String(MAX_TURNS - 1)}`);
    assert.equal(state.turns[0]?.role, "user");
  });
});

describe("tokens that beat the answer to send", () => {
  test("are kept, and adopted when the id becomes known", () => {
    const early = run([send(), token(0), token(1)]);
    assert.deepEqual([early.reply.status, early.state.strays.length], ["thinking", 2]);
    const { reply, state, effects } = run([accepted()], early.state);
    assert.deepEqual([reply.status, reply.text], ["streaming", "w0 w1 "]);
    assert.deepEqual([state.strays, effects], [[], []]);
  });

  test("a whole reply may have come before", () => {
    const { reply } = run([send(), token(0), completed(1), accepted()]);
    assert.deepEqual([reply.status, reply.text], ["complete", "w0 "]);
  });

  test("an end among them is final", () => {
    const { reply } = run([send(), token(0), completed(1), failed(), accepted()]);
    assert.deepEqual([reply.status, reply.error], ["complete", null]);
  });

  test("only frames of that id are adopted", () => {
    const { reply } = run([send(), token(0, "other"), token(0), accepted()]);
    assert.deepEqual([reply.text, reply.nextIndex], ["w0 ", 1]);
  });

  test("are bounded; what was dropped is refetched", () => {
    const tokens = Array.from({ length: MAX_STRAYS + 1 }, (_, index) => token(index));
    const early = run([send(), ...tokens]);
    assert.equal(early.state.strays.length, MAX_STRAYS);
    const { effects } = run([accepted()], early.state);
    assert.deepEqual(effects, [{ type: "gap", messageId: ID, from: 0 }]);
  });

  test("are not kept while no id is awaited", () => {
    assert.deepEqual(run([token(0)]).state.strays, []);
    assert.deepEqual(run([send(), accepted(), token(0, "other")]).state.strays, []);
    const refused: Action = {
      type: "send.failed",
      key: "k",
      kind: "failed",
      error: "no",
      answered: true,
      at: 1,
    };
    assert.deepEqual(run([send(), token(0), refused]).state.strays, []);
  });
});

describe("indexes", () => {
  test("one that it has is ignored", () => {
    const { reply } = run([send(), accepted(), token(0), token(1), token(0), token(1)]);
    assert.equal(reply.text, "w0 w1 ");
  });

  test("out of order they are held, reported once, and put in their place", () => {
    const open = run([send(), accepted(), token(0), token(3), token(2)]);
    assert.equal(open.reply.text, "w0 ");
    assert.deepEqual(open.effects, [{ type: "gap", messageId: ID, from: 1 }]);
    const { reply, effects } = run([token(1)], open.state);
    assert.deepEqual([reply.text, reply.nextIndex, effects], ["w0 w1 w2 w3 ", 4, []]);
  });

  test("a second gap is reported on its own", () => {
    const { effects } = run([send(), accepted(), token(1), token(0), token(3)]);
    assert.deepEqual(
      effects.map((effect) => effect.type === "gap" && effect.from),
      [0, 2],
    );
  });

  test("held tokens are bounded, and the refetch brings the rest", () => {
    const tokens = Array.from({ length: MAX_HELD + 5 }, (_, index) => token(index + 1));
    const open = run([send(), accepted(), ...tokens]);
    assert.equal(Object.keys(open.reply.held).length, MAX_HELD);
    const { reply } = run([refetched(-1, MAX_HELD + 6)], open.state);
    assert.deepEqual([reply.nextIndex, missingFrom(reply)], [MAX_HELD + 6, null]);
  });

  test("a completed that counts more than there is asks for the rest before it shows complete", () => {
    const open = run([send(), accepted(), token(0), completed(3)]);
    assert.equal(open.reply.status, "streaming");
    assert.deepEqual(open.effects, [{ type: "gap", messageId: ID, from: 1 }]);
    const { reply } = run([refetched(0, 3, "complete")], open.state);
    assert.deepEqual([reply.status, reply.text], ["complete", "w0 w1 w2 "]);
  });

  test("tokens that come after their completed make it whole too", () => {
    const { reply } = run([send(), accepted(), completed(2), token(1), token(0)]);
    assert.deepEqual([reply.status, reply.text], ["complete", "w0 w1 "]);
  });
});

describe("snapshot and refetch", () => {
  test("a snapshot replaces when it is further along", () => {
    const { reply } = run([send(), accepted(), token(0), token(4), snapshot(3), token(3)]);
    assert.deepEqual([reply.text, reply.nextIndex], ["w0 w1 w2 w3 w4 ", 5]);
  });

  test("a snapshot that is behind changes nothing", () => {
    const { reply } = run([send(), accepted(), token(0), token(1), snapshot(1)]);
    assert.deepEqual([reply.text, reply.nextIndex], ["w0 w1 ", 2]);
  });

  test("a queued reply goes on thinking", () => {
    const { reply } = run([send(), accepted(), refetched(-1, 0, "queued")]);
    assert.equal(reply.status, "thinking");
  });

  for (const status of ["complete", "failed", "cancelled"] as const) {
    test(`a lost terminal event is learned from a refetch: ${status}`, () => {
      const { reply } = run([send(), accepted(), token(0), refetched(0, 2, status)]);
      assert.deepEqual([reply.status, reply.text, reply.endedAt], [status, "w0 w1 ", 400]);
    });
  }

  test("a refetch that is not whole is not passed off as whole", () => {
    const log: Action = {
      type: "refetched",
      messageId: ID,
      log: { tokens: list(5, 6), nextIndex: 6, status: "complete" },
      at: 400,
    };
    const { reply } = run([send(), accepted(), token(0), log]);
    assert.deepEqual([reply.status, reply.text, missingFrom(reply)], ["streaming", "w0 ", 1]);
  });
});

describe("the end is final", () => {
  const late: [string, Action][] = [
    ["a token", token(1)],
    ["a completed", completed(1)],
    ["a failed", failed()],
    ["a snapshot", snapshot(5)],
    ["a refetch", refetched(0, 5, "complete")],
    ["a give-up", { type: "give-up", key: "k", at: 500 }],
    ["a cancel", cancel],
  ];
  const ends: [string, Action][] = [
    ["cancelled", cancel],
    ["complete", completed(1)],
    ["failed", failed()],
  ];
  for (const [status, ending] of ends) {
    for (const [name, action] of late) {
      test(`${name} after ${status} changes nothing`, () => {
        const { state, reply } = run([send(), accepted(), token(0), ending]);
        assert.equal(reply.status, status);
        const step = reduce(state, action);
        assert.deepEqual([step.state, step.effects], [state, []]);
      });
    }
  }
});

describe("cancel", () => {
  test("tells the server at once when the id is known", () => {
    const { effects, reply } = run([send(), accepted(), token(0), cancel]);
    assert.deepEqual(effects, [{ type: "cancel", messageId: ID }]);
    assert.deepEqual([reply.status, reply.endedAt], ["cancelled", 250]);
  });

  test("before the id is known tells the server as soon as it is", () => {
    const early = run([send(), token(0), cancel]);
    assert.deepEqual([early.reply.status, early.effects], ["cancelled", []]);
    const { reply, effects } = run([accepted(), token(1)], early.state);
    assert.deepEqual(effects, [{ type: "cancel", messageId: ID }]);
    assert.deepEqual([reply.status, reply.text], ["cancelled", ""]);
  });

  for (const answered of [false, true]) {
    test(`is ${answered ? "settled by a refusal" : "owed while the answer is lost"}`, () => {
      const failure: Action = {
        type: "send.failed",
        key: "k",
        kind: "failed",
        error: "Why.",
        answered,
        at: 260,
      };
      const { reply, effects } = run([send(), cancel, failure]);
      assert.deepEqual([reply.status, reply.error, reply.endedAt], ["cancelled", null, 250]);
      assert.deepEqual([isStopOwed(reply), effects], [!answered, []]);
    });
  }

  test("is owed no more when the server was told", () => {
    assert.equal(isStopOwed(run([send(), accepted(), cancel]).reply), false);
    assert.equal(isStopOwed(run([send(), cancel, accepted()]).reply), false);
  });

  test("a reply that was forgotten meanwhile is cancelled when its id comes", () => {
    assert.deepEqual(run([accepted()]).effects, [{ type: "cancel", messageId: ID }]);
  });
});

describe("giving up", () => {
  const giveUp: Action = { type: "give-up", key: "k", at: 500 };

  test("tells the server, which may still be at work", () => {
    const { reply, effects } = run([send(), accepted(), token(0), giveUp]);
    assert.deepEqual(
      [reply.status, reply.error, reply.endedAt],
      ["failed", "Response unavailable. Please try again.", 500],
    );
    assert.deepEqual(effects, [{ type: "cancel", messageId: ID }]);
  });

  test("before the id is known tells the server as soon as it is", () => {
    const { reply, effects } = run([send(), giveUp, accepted()]);
    assert.equal(reply.status, "failed");
    assert.deepEqual(effects, [{ type: "cancel", messageId: ID }]);
  });
});

describe("failure and retry", () => {
  const retry: Action = { type: "retry", key: "k", requestId: "second", at: 900 };

  test("starts over under the same key", () => {
    const { reply } = run([send(), accepted(), token(0), failed(), retry]);
    assert.deepEqual(
      [reply.key, reply.status, reply.text, reply.messageId, reply.request?.id, reply.startedAt],
      ["k", "thinking", "", null, "second", 900],
    );
  });

  test("late frames of the first try do not get into the second", () => {
    const { reply } = run([
      ...[send(), accepted(), token(0), failed(), retry],
      ...[token(1), accepted("m2"), token(0, "m2"), token(2)],
    ]);
    assert.deepEqual([reply.text, reply.nextIndex], ["w0 ", 1]);
  });

  for (const [answered, requestId] of [
    [false, "k-request"],
    [true, "second"],
  ] as const) {
    test(`a request ${answered ? "refused" : "without an answer"} is ${answered ? "made anew" : "repeated"}`, () => {
      const failure: Action = {
        type: "send.failed",
        key: "k",
        kind: "failed",
        error: "Why.",
        answered,
        at: 1,
      };
      const first = run([send(), failure]);
      assert.deepEqual([first.reply.status, first.reply.error], ["failed", "Why."]);
      assert.equal(run([retry], first.state).reply.request?.id, requestId);
    });
  }

  test("a repeated request has the history it had, whatever became of the turns before it", () => {
    const lost: Action = {
      type: "send.failed",
      key: "l",
      kind: "failed",
      error: "Why.",
      answered: false,
      at: 1,
    };
    const again: Action = { type: "retry", key: "l", requestId: "third", at: 950 };
    const { state } = run([
      ...[send(), accepted(), failed(), send("l"), lost],
      ...[retry, accepted(), token(0), completed(1), again],
    ]);
    const contents = findReply(state, "l")?.request?.history.map((item) => item.content);
    assert.deepEqual(contents, ["hello"]);
  });

  test("a new request has the history as it is now", () => {
    const refused: Action = {
      type: "send.failed",
      key: "l",
      kind: "failed",
      error: "Why.",
      answered: true,
      at: 1,
    };
    const again: Action = { type: "retry", key: "l", requestId: "third", at: 950 };
    const { state } = run([
      ...[send(), accepted(), failed(), send("l"), refused],
      ...[retry, accepted(), token(0), completed(1), again],
    ]);
    const request = findReply(state, "l")?.request;
    const contents = request?.history.map((item) => item.content);
    assert.deepEqual([request?.id, contents], ["third", ["hello", "w0 "]]);
  });

  test("once answered a request is forgotten", () => {
    assert.equal(run([send(), accepted()]).reply.request, null);
    assert.equal(run([send(), cancel, accepted()]).reply.request, null);
  });

  test("only what failed can be retried", () => {
    const { state } = run([send(), accepted(), token(0)]);
    assert.equal(reduce(state, retry).state, state);
  });
});

describe("history", () => {
  const user = (text: string): Turn => ({ role: "user", key: text, text });
  const reply = (text: string, status: Reply["status"]): Turn => ({
    ...run([send()]).reply,
    text,
    status,
  });

  test("has what people said and whole replies only", () => {
    const turns = [
      ...[user("a"), reply("A", "complete"), user("b"), reply("half", "cancelled")],
      ...[user("c"), reply("half", "failed"), user("d"), reply("", "complete")],
      ...[user("e"), reply("half", "streaming")],
    ];
    assert.deepEqual(
      history(turns).map((item) => item.content),
      ["a", "A", "b", "c", "d", "e"],
    );
  });

  test("has a pasted page and a long reply whole", () => {
    const [page, long] = ["p".repeat(20_000), "r".repeat(10_890)];
    assert.deepEqual(
      history([user(page), reply(long, "complete")]).map((item) => item.content),
      [page, long],
    );
  });

  test("keeps to the server's bounds by whole turns and begins with the user", () => {
    const turns = Array.from({ length: 60 }, (_, n) => [
      user(`q${String(n)}`),
      reply("x".repeat(10_000), "complete"),
    ]).flat();
    const items = history([...turns, user("last")]);
    assert.deepEqual(
      items.filter((item) => item.role === "user").map((item) => item.content),
      [...Array.from({ length: 15 }, (_, n) => `q${String(n + 45)}`), "last"],
    );
    assert.ok(items.every(({ role, content }) => role === "user" || content.length === 10_000));
  });

  test("has nothing that the server refused", () => {
    const failure = (key: string, answered: boolean): Action => ({
      ...{ type: "send.failed", key, kind: "failed", error: "Why.", answered, at: 1 },
    });
    const say = (key: string): Action => ({ ...send(key), text: key }) as Action;
    const { state } = run([
      ...[say("refused"), failure("refused", true), say("lost"), failure("lost", false)],
      ...[say("stopped"), { type: "cancel", key: "stopped", at: 1 } as const],
      ...[failure("stopped", true), say("good"), accepted(ID, "good"), token(0), completed(1)],
    ]);
    assert.deepEqual(
      history(state.turns).map((item) => item.content),
      ["lost", "good", "w0 "],
    );
  });

  test("has nothing that was not sent yet", () => {
    const later = { ...send(), later: true } as Action;
    assert.deepEqual(history(run([later]).state.turns), []);
    const posted = run([later, { type: "post", key: "k", at: 1 }]);
    assert.equal(history(posted.state.turns).length, 1);
  });

  test("has no half of a character, whoever kept it", () => {
    const { state } = run([{ ...send(), text: "\uDE00 nice \u{1F600}" } as Action]);
    assert.equal(state.turns[0]?.text, "\uFFFD nice \u{1F600}");
    assert.deepEqual(history([user("\uD83D"), reply("\uDE00", "complete")]), [
      { role: "user", content: "\uFFFD" },
      { role: "assistant", content: "\uFFFD" },
    ]);
  });

  test("of replies without a user's turn is empty", () => {
    assert.deepEqual(history([reply("A", "complete")]), []);
  });
});

describe("merged tokens", () => {
  test("count as many as they are", () => {
    const { reply } = run([send(), accepted(), token(0), merged(1, 4), token(4), completed(5)]);
    assert.deepEqual([reply.status, reply.text, reply.nextIndex], ["complete", words(0, 5), 5]);
  });

  test("that are known are left out; of which a part is known, are read again", () => {
    const open = run([send(), accepted(), merged(0, 4), merged(1, 3)]);
    assert.deepEqual([open.reply.nextIndex, open.effects], [4, []]);
    const { reply, effects } = run([merged(2, 6)], open.state);
    assert.deepEqual(
      [reply.text, effects],
      [words(0, 4), [{ type: "gap", messageId: ID, from: 4 }]],
    );
    assert.equal(run([refetched(3, 6)], { ...open.state, turns: [reply] }).reply.nextIndex, 6);
  });

  test("wait for their turn", () => {
    const { reply, effects } = run([send(), accepted(), merged(2, 4), merged(0, 2)]);
    assert.deepEqual([reply.text, reply.held], [words(0, 4), {}]);
    assert.equal(effects.length, 1);
  });
});

describe("whatever the order", () => {
  /** What a network, a snapshot and a refetch can do to a reply of `total` tokens. */
  const events = (total: number) =>
    fc.array(
      fc.oneof(
        { weight: 8, arbitrary: fc.nat(total - 1).map((index) => token(index)) },
        fc
          .tuple(fc.nat(total - 1), fc.integer({ min: 2, max: 5 }))
          .map(([index, count]) => merged(index, Math.min(total, index + count))),
        fc.nat(total).map((count) => snapshot(count)),
        fc
          .tuple(fc.integer({ min: -1, max: total }), fc.nat(total))
          .map(([after, count]) => refetched(Math.min(after, count - 1), count)),
        fc.constant(completed(total)),
        fc.constant(accepted()),
      ),
      { maxLength: 60 },
    );

  test("the text is the first tokens, a gap is known, and a last refetch makes it whole", () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 1, max: 12 })
          .chain((total) => fc.tuple(fc.constant(total), events(total))),
        ([total, actions]) => {
          const { state, reply } = run([send(), ...actions, accepted()]);
          assert.equal(reply.text, words(0, reply.nextIndex));
          assert.ok(Object.keys(reply.held).every((index) => Number(index) > reply.nextIndex));
          assert.equal(reply.status === "complete", !isActive(reply));
          const last = run([refetched(reply.nextIndex - 1, total, "complete")], state).reply;
          assert.deepEqual([last.status, last.text], ["complete", words(0, total)]);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("every gap that stays open was reported", () => {
    fc.assert(
      fc.property(events(8), (actions) => {
        const { reply, effects } = run([send(), accepted(), ...actions]);
        const missing = missingFrom(reply);
        const last = effects.filter((effect) => effect.type === "gap").at(-1);
        assert.ok(missing === null || last?.from === missing);
      }),
      { numRuns: 500 },
    );
  });

  test("no action changes the state it is given", () => {
    const { state } = run([send(), accepted(), token(0), token(3)]);
    const before = JSON.stringify(state);
    for (const action of [token(1), completed(4), cancel, failed(), refetched(0, 4, "complete")]) {
      reduce(state, action);
    }
    assert.equal(JSON.stringify(state), before);
    assert.equal(findReply(state, "k")?.status, "streaming");
  });
});
