import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";

import { MAX_TURNS, type Reply, type Turn } from "../src/reducer.js";
import { load, save, type TextStorage } from "../src/storage.js";

const NAME = "chat";

const USER: Turn = { role: "user", key: "u", text: "hello" };

const REPLY: Reply = {
  role: "assistant",
  key: "k",
  request: { id: "r", history: [{ role: "user", content: "before" }] },
  messageId: null,
  status: "streaming",
  text: "w0 ",
  nextIndex: 1,
  held: {},
  seen: 0,
  usage: null,
  totalTokens: null,
  parts: [{ type: "reasoning", offset: 0, tokenIndex: 0, text: "Hm." }],
  log: {
    offset: 1,
    events: [{ type: "reasoning.received", offset: 0, tokenIndex: 0, delta: "Hm." }],
  },
  cuts: { 1: 3 },
  spans: { 0: [100, 200] },
  answers: { c1: { approve: true, state: "sent", error: "" } },
  model: "claude",
  error: null,
  errorKind: null,
  startedAt: 100.5,
  endedAt: null,
};

const SAVED = { version: 4, sessionId: "s-1", turns: [USER, REPLY] };

/** What is not kept. */
const DERIVED = ["held", "seen", "parts", "usage"];

/** A storage that has `text`, and nothing else. */
function storageOf(text: string | null): TextStorage {
  return {
    getItem: () => text,
    setItem: (_name, value) => {
      text = value;
    },
    removeItem: () => {
      text = null;
    },
  };
}

const loaded = (saved: unknown) => load(storageOf(JSON.stringify(saved)), NAME);

const withReply = (change: object) => ({ ...SAVED, turns: [USER, { ...REPLY, ...change }] });

test("what is saved is what is loaded, but for held tokens", () => {
  const storage = storageOf(null);
  const turns = [USER, { ...REPLY, held: { 3: ["w3 ", 1] as const } }];
  save(storage, NAME, { sessionId: "s-1", turns });
  assert.deepEqual(load(storage, NAME), { sessionId: "s-1", turns: [USER, REPLY] });
});

test("successive pieces are kept as one, what was retracted is not, and nothing known comes again", () => {
  const piece = (offset: number, delta: string) =>
    ({ type: "reasoning.received", offset, tokenIndex: 0, delta }) as const;
  const events = [
    ...[piece(0, "a"), { type: "parts.retracted", offset: 1, tokenIndex: 0, from: 0 } as const],
    ...[piece(2, "b"), piece(3, "c")],
  ];
  const storage = storageOf(null);
  save(storage, NAME, {
    sessionId: "s-1",
    turns: [USER, { ...REPLY, log: { offset: 0, events } }],
  });
  const reply = load(storage, NAME)?.turns[1] as Reply;
  assert.deepEqual(reply.log, { offset: 4, events: [piece(2, "bc")] });
  assert.deepEqual(reply.parts, [{ type: "reasoning", offset: 2, tokenIndex: 0, text: "bc" }]);
});

test("a decision whose request is under way, or has failed, is not kept", () => {
  const storage = storageOf(null);
  const answers = {
    a: { approve: true, state: "sending", error: "" },
    b: { approve: true, state: "failed", error: "No." },
    c: { approve: false, state: "taken", error: "Late." },
  } as const;
  save(storage, NAME, { sessionId: "s-1", turns: [USER, { ...REPLY, answers }] });
  const reply = load(storage, NAME)?.turns[1] as Reply;
  assert.deepEqual(Object.keys(reply.answers), ["c"]);
});

test("a conversation that is too large for the storage is kept without its parts", () => {
  const storage = storageOf(null);
  const roomy = storage.setItem;
  storage.setItem = (name, value) => {
    if (value.length > 1000) throw new Error("QuotaExceededError");
    roomy(name, value);
  };
  const events = [{ type: "reasoning.received", offset: 0, tokenIndex: 0, delta: "x".repeat(999) }];
  const turn = { ...REPLY, log: { offset: 1, events } } as Reply;
  save(storage, NAME, { sessionId: "s-1", turns: [USER, turn] });
  const reply = load(storage, NAME)?.turns[1] as Reply;
  assert.deepEqual([reply.text, reply.parts], ["w0 ", []]);
});

test("what is still too large loses the attachments of messages that the server has, and no others", () => {
  const storage = storageOf(null);
  const roomy = storage.setItem;
  storage.setItem = (name, value) => {
    if (value.length > 2500) throw new Error("QuotaExceededError");
    roomy(name, value);
  };
  const options = { attachments: [{ data: "x".repeat(999) }] };
  const had: Turn = { ...REPLY, key: "k1", messageId: "m1", request: null };
  const turns: Turn[] = [
    ...[{ ...USER, key: "u1", options }, had],
    ...[
      { ...USER, key: "u2", options },
      { ...REPLY, key: "k2" },
    ],
  ] as Turn[];
  save(storage, NAME, { sessionId: "s-1", turns });
  const found = load(storage, NAME)?.turns ?? [];
  assert.deepEqual(
    found.map((turn) => turn.role === "user" && turn.options),
    [undefined, false, options, false],
  );
});

test("the conversation that the cases below damage is whole", () => {
  assert.deepEqual(loaded(SAVED), { sessionId: "s-1", turns: [USER, REPLY] });
  assert.ok(loaded(withReply({ status: "complete", endedAt: 5, request: null })));
  assert.ok(loaded(withReply({ messageId: "m1", request: null })));
});

describe("nothing is loaded from a storage that is damaged:", () => {
  const twice = [USER, REPLY, USER, REPLY];
  const many = Array.from({ length: MAX_TURNS / 2 + 1 }, (_, n) => [
    { ...USER, key: `u${String(n)}` },
    { ...REPLY, key: `k${String(n)}` },
  ]);
  const cases: Record<string, unknown> = {
    "another version": { ...SAVED, version: 1 },
    "no session": { ...SAVED, sessionId: undefined },
    "a session that the server refuses": { ...SAVED, sessionId: "a b" },
    "turns that are no list": { ...SAVED, turns: { 0: USER, 1: REPLY } },
    "a turn that is null": { ...SAVED, turns: [USER, null] },
    "a turn of nobody": { ...SAVED, turns: [{ ...USER, role: "system" }, REPLY] },
    "a user's turn without text": { ...SAVED, turns: [{ role: "user", key: "u" }, REPLY] },
    "a user's turn without reply": { ...SAVED, turns: [USER] },
    "a reply without user's turn": { ...SAVED, turns: [REPLY, USER] },
    "two turns of one key": { ...SAVED, turns: twice },
    "more turns than there can be": { ...SAVED, turns: many.flat() },
    "a reply that has ended, but when?": withReply({ status: "complete" }),
    "a reply that goes on after its end": withReply({ endedAt: 5 }),
    "a reply that nobody can be asked for": withReply({ request: null }),
    "a request without history": withReply({ request: { id: "r" } }),
    "a history of nobody": withReply({ request: { id: "r", history: [{ role: "x" }] } }),
    "a part that is none": withReply({ log: { offset: 1, events: [{ type: "x" }] } }),
    "a place that is none": withReply({ cuts: { 1: -1 } }),
    "half a span": withReply({ spans: { 0: [1] } }),
    "an answer that is none": withReply({ answers: { c1: true } }),
    "a number that JSON has none for": withReply({ startedAt: Infinity }),
  };
  for (const [name, saved] of Object.entries(cases)) {
    test(name, () => {
      assert.equal(loaded(saved), null);
    });
  }

  for (const field of Object.keys(REPLY).filter((name) => !DERIVED.includes(name))) {
    test(`a reply without ${field}, or with another kind of it`, () => {
      assert.equal(loaded(withReply({ [field]: undefined })), null);
      assert.equal(loaded(withReply({ [field]: { not: "this" } })), null);
    });
  }
});

test("whatever stands in the storage, what is loaded can be saved and loaded again", () => {
  const value = fc.jsonValue({ maxDepth: 2 });
  const damaged = fc
    .tuple(fc.constantFrom(...Object.keys(REPLY)), value)
    .map(([field, other]) => JSON.stringify(withReply({ [field]: other })));
  const text = fc.oneof(damaged, fc.json(), fc.string());
  fc.assert(
    fc.property(text, (stored) => {
      const saved = load(storageOf(stored), NAME);
      if (!saved) return;
      const storage = storageOf(null);
      save(storage, NAME, saved);
      assert.deepEqual(load(storage, NAME), saved);
    }),
    { numRuns: 1000 },
  );
});
