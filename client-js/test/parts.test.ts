import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";

import { parseFrame, parseReplyLog, type Frame } from "../src/frames.js";
import { fold, type Part, type PartEvent, type ToolPart } from "../src/parts.js";
import { parts as RULES } from "../src/part-rules.js";
import { EMPTY, reduce, type Action, type Effect, type Reply } from "../src/reducer.js";
import { blocks } from "../src/view.js";

const ID = "m1";

/** What a server has of a reply: each entry is a token, or an event of a part, or hidden. Its index is its offset. */
type Entry =
  | { readonly token: string }
  | { readonly hidden: true }
  | ({ readonly event: string } & Readonly<Record<string, unknown>>);

const token = (text: string): Entry => ({ token: text });
const reason = (delta: string): Entry => ({ event: "reasoning.received", delta });
const called = (call: string, more = {}): Entry => ({
  ...{ event: "tool.called", call, name: "weather", input: { city: "Oslo" } },
  ...more,
});
const asked = (call: string): Entry => ({
  ...{ event: "tool.approval_requested", call, name: "weather", expiresAt: 2_000_000_000 },
});
const decided = (call: string, approve: boolean, more = {}): Entry => ({
  ...{ event: "tool.approval_decided", call, approve },
  ...more,
});
const finished = (call: string, more = {}): Entry => ({
  ...{ event: "tool.finished", call, name: "weather", ok: true, output: { temperature: 7 } },
  ...more,
});
const step = (number: number): Entry => ({
  ...{ event: "step.completed", step: number, stopReason: "tool_use" },
  usage: { input: 10, output: 5, cacheRead: 0, cacheWrite: 0 },
});
const cite = (url: string): Entry => ({ event: "citation.received", url, title: "A page" });
const HIDDEN: Entry = { hidden: true };
const retract = (from: number): Entry => ({ event: "parts.retracted", from });

/** A reply that has everything. */
const RECORDED: readonly Entry[] = [
  ...[reason("Let "), reason("me "), reason("see.")],
  ...[token("I "), token("look. ")],
  ...[{ event: "tool.started", call: "c0", name: "weather" }],
  ...[{ event: "tool.input_received", call: "c0", delta: '{"ci' }, reason("broken")],
  ...[retract(5)],
  ...[{ event: "tool.started", call: "c1", name: "weather" }],
  ...[{ event: "tool.input_received", call: "c1", delta: '{"city":' }],
  ...[{ event: "tool.input_received", call: "c1", delta: '"Oslo"}' }],
  ...[called("c1"), called("c2"), asked("c2"), step(1)],
  ...[HIDDEN, finished("c1"), decided("c2", true, { note: "Yes." })],
  ...[finished("c2", { ok: false, output: undefined, error: "It rains." })],
  ...[reason("So"), reason(" then"), token("It is "), token("7° "), cite("https://example.org/a")],
  ...[token("in "), token("Oslo."), cite("https://example.org/b"), step(2)],
];

const texts = (entries: readonly Entry[]): string[] =>
  entries.flatMap((entry) => ("token" in entry ? [entry.token as string] : []));

/** The data of the event of entry `offset`. */
function dataOf(entries: readonly Entry[], offset: number): Record<string, unknown> {
  const entry = entries[offset] ?? { hidden: true };
  const tokenIndex = texts(entries.slice(0, offset)).length;
  if ("token" in entry) return { messageId: ID, token: entry.token, tokenIndex };
  return { messageId: ID, offset, tokenIndex, ...entry };
}

/** Events go the way that a browser's do: as JSON, through the check at the border. */
function parsed(type: string, data: object): Frame {
  const frame = parseFrame(type, JSON.parse(JSON.stringify(data)), RULES);
  assert.ok(frame, `${type} ${JSON.stringify(data)}`);
  return frame;
}

function frames(entries: readonly Entry[], from = 0): Frame[] {
  return entries.flatMap((entry, offset) => {
    if (offset < from || "hidden" in entry) return [];
    const type = "token" in entry ? "token.received" : entry.event;
    return [parsed(type, dataOf(entries, offset))];
  });
}

/** The parts of the first entries as a server joins them. */
function partsOf(entries: readonly Entry[]): Record<string, unknown>[] {
  const parts: Record<string, unknown>[] = [];
  entries.forEach((entry, offset) => {
    if ("token" in entry || "hidden" in entry) return;
    const data = dataOf(entries, offset);
    const last = parts.at(-1);
    const isNext = last?.["event"] === entry.event && last["end"] === offset;
    if (isNext && "delta" in entry && last["call"] === entry["call"]) {
      last["delta"] = String(last["delta"]) + String(entry["delta"]);
      last["end"] = offset + 1;
    } else {
      parts.push({ ...data, end: offset + 1 });
    }
  });
  return parts;
}

const states = (entries: readonly Entry[], status: string): object => ({
  nextIndex: texts(entries).length,
  text: texts(entries).join(""),
  status,
  offset: entries.length,
  parts: partsOf(entries),
});

const snapshot = (entries: readonly Entry[], status = "streaming"): Frame =>
  parsed("stream.snapshot", { messageId: ID, ...states(entries, status) });

function refetched(entries: readonly Entry[], after: number, status = "streaming"): Action {
  const body = { ...states(entries, status), tokens: texts(entries).slice(after + 1) };
  const log = parseReplyLog(JSON.parse(JSON.stringify(body)), RULES);
  assert.ok(log);
  return { type: "refetched", messageId: ID, log, at: 400 };
}

const completed = (entries: readonly Entry[]): Frame => ({
  type: "stream.completed",
  messageId: ID,
  totalTokens: texts(entries).length,
});

const SEND: Action = {
  ...{ type: "send", key: "k", userKey: "u", requestId: "r", text: "hello", at: 100 },
};
const ACCEPTED: Action = { type: "send.accepted", key: "k", messageId: ID, at: 110 };
const BEGUN: readonly Action[] = [SEND, ACCEPTED];

const framed = (frame: Frame, at = 200): Action => ({ type: "frame", frame, at });

function run(actions: readonly Action[]): { reply: Reply; effects: Effect[] } {
  let state = EMPTY;
  const effects: Effect[] = [];
  for (const action of actions) {
    const next = reduce(state, action, RULES);
    state = next.state;
    effects.push(...next.effects);
  }
  const reply = state.turns.find((turn) => turn.role === "assistant");
  assert.ok(reply?.role === "assistant");
  return { reply, effects };
}

/** Run entries as they come live. */
const live = (entries: readonly Entry[]): Reply =>
  run([...BEGUN, ...frames(entries).map((frame) => framed(frame))]).reply;

const tool = (reply: Reply, call = "c1"): ToolPart => {
  const part = reply.parts.find((found) => found.type === "tool" && found.call === call);
  assert.ok(part?.type === "tool", `no call ${call}`);
  return part;
};

describe("a tool call", () => {
  const ways: Record<string, readonly [Entry[], ToolPart["state"]]> = {
    "is written": [[{ event: "tool.started", call: "c1", name: "weather" }], "writing"],
    "is called": [[called("c1")], "called"],
    "runs when the model's step is over": [[called("c1"), step(1)], "running"],
    "waits for approval": [[called("c1"), asked("c1"), step(1)], "waiting"],
    "is approved": [[called("c1"), asked("c1"), decided("c1", true)], "approved"],
    "is denied": [[called("c1"), asked("c1"), decided("c1", false)], "denied"],
    expires: [[asked("c1"), decided("c1", false, { expired: true })], "expired"],
    finishes: [[called("c1"), step(1), finished("c1")], "finished"],
    fails: [[called("c1"), finished("c1", { ok: false, error: "No." })], "failed"],
    "stays denied": [
      [asked("c1"), decided("c1", false), finished("c1", { ok: false, denied: true })],
      "denied",
    ],
    "stays expired": [
      [
        ...[asked("c1"), decided("c1", false, { expired: true })],
        finished("c1", { ok: false, denied: true }),
      ],
      "expired",
    ],
    "is denied by a result alone": [
      [called("c1"), finished("c1", { ok: false, denied: true })],
      "denied",
    ],
  };
  for (const [name, [entries, state]] of Object.entries(ways)) {
    test(name, () => {
      assert.equal(tool(live(entries)).state, state);
    });
  }

  test("has its input as text while it is written, then as what it means", () => {
    const started: Entry[] = [
      { event: "tool.started", call: "c1", name: "weather" },
      { event: "tool.input_received", call: "c1", delta: '{"city":' },
      { event: "tool.input_received", call: "c1", delta: '"Os' },
    ];
    const writing = tool(live(started));
    assert.deepEqual([writing.inputText, "input" in writing], ['{"city":"Os', false]);
    const whole = tool(live([...started, called("c1")]));
    assert.deepEqual([whole.inputText, whole.input], ["", { city: "Oslo" }]);
  });

  test("has an input of null, and none if it is hidden", () => {
    assert.equal(tool(live([called("c1", { input: null })])).input, null);
    assert.ok(!("input" in tool(live([called("c1", { input: undefined })]))));
  });

  test("has its output or its error, its deadline and the note of who decided", () => {
    const done = tool(live([asked("c1"), decided("c1", true, { note: "Go." }), finished("c1")]));
    assert.deepEqual(
      [done.output, done.error, done.note, done.expiresAt],
      [{ temperature: 7 }, "", "Go.", 2_000_000_000],
    );
    const broken = finished("c1", { ok: false, output: undefined, error: "It rains." });
    const failed = tool(live([called("c1"), broken]));
    assert.deepEqual([failed.error, "output" in failed], ["It rains.", false]);
  });

  test("of a name that objects have anyway is one like any other", () => {
    const reply = live([called("constructor"), called("__proto__"), asked("__proto__")]);
    assert.deepEqual(
      ["constructor", "__proto__"].map((call) => tool(reply, call).state),
      ["called", "waiting"],
    );
  });
});

describe("the parts of a reply", () => {
  test("stand in the order of their offsets, each with the token that follows it", () => {
    const parts = live(RECORDED).parts.map((part) => [part.type, part.offset, part.tokenIndex]);
    assert.deepEqual(parts, [
      ["reasoning", 0, 0],
      ["tool", 9, 2],
      ["tool", 13, 2],
      ["step", 15, 2],
      ["reasoning", 20, 2],
      ["citation", 24, 4],
      ["citation", 27, 6],
      ["step", 28, 6],
    ]);
  });

  test("are void if they were retracted, also when that comes first", () => {
    const kept = ["Let me see.", "So then"];
    const reasoning = (parts: readonly Part[]): string[] =>
      parts.flatMap((part) => (part.type === "reasoning" ? [part.text] : []));
    assert.deepEqual(reasoning(live(RECORDED).parts), kept);
    const backwards = frames(RECORDED)
      .reverse()
      .map((frame) => framed(frame));
    assert.deepEqual(reasoning(run([...BEGUN, ...backwards]).reply.parts), kept);
    assert.ok(!live(RECORDED).parts.some((part) => part.type === "tool" && part.call === "c0"));
  });

  test("that a snapshot covers, or that came before, are ignored", () => {
    const first = RECORDED.slice(0, 4);
    const again = frames(first).map((frame) => framed(frame));
    const { reply } = run([...BEGUN, framed(snapshot(first)), ...again, ...again]);
    assert.deepEqual(reply.parts, live(first).parts);
    assert.deepEqual(run([...BEGUN, ...again, ...again]).reply.parts, live(first).parts);
  });

  test("that are newer than a snapshot stay, whenever it comes", () => {
    const frameList = frames(RECORDED).map((frame) => framed(frame));
    const { reply } = run([...BEGUN, ...frameList, framed(snapshot(RECORDED.slice(0, 7)))]);
    assert.deepEqual(reply.parts, live(RECORDED).parts);
  });

  test("of an older snapshot do not replace those of a newer one", () => {
    const [newer, older] = [RECORDED.slice(0, 3), RECORDED.slice(0, 1)];
    const { reply } = run([...BEGUN, framed(snapshot(newer)), framed(snapshot(older))]);
    assert.deepEqual(reply.parts, live(newer).parts);
  });

  test("are two if there is text between two pieces of reasoning", () => {
    const parts = live([reason("a"), token("x"), reason("b")]).parts;
    assert.deepEqual(
      parts.map((part) => part.type === "reasoning" && [part.text, part.tokenIndex]),
      [
        ["a", 0],
        ["b", 1],
      ],
    );
  });

  test("come before the answer to send, as tokens do", () => {
    const early = frames(RECORDED).map((frame) => framed(frame));
    assert.deepEqual(run([SEND, ...early, ACCEPTED]).reply.parts, live(RECORDED).parts);
  });

  test("count what was seen live of the reasoning's time, by its first and last piece", () => {
    const [one, two, three] = frames(RECORDED);
    assert.ok(one && two && three);
    const { reply } = run([...BEGUN, framed(one, 1000), framed(two, 1500), framed(three, 4000)]);
    assert.deepEqual(reply.spans, { 0: [1000, 4000] });
    const late = run([...BEGUN, framed(snapshot(RECORDED.slice(0, 2))), framed(three, 4000)]);
    assert.deepEqual(late.reply.spans, {});
  });

  test("of a kind that is not known, or with a field that is wrong, are left out", () => {
    const parts = [
      ...[null, 7, { event: "tool.flown", offset: 0, tokenIndex: 0 }, { event: "constructor" }],
      { event: "reasoning.received", offset: -1, tokenIndex: 0, delta: "x" },
      { event: "reasoning.received", offset: 3, tokenIndex: 0, delta: "ok" },
    ];
    const whole = { messageId: ID, text: "", nextIndex: 0, status: "streaming", offset: 4, parts };
    const frame = parseFrame("stream.snapshot", whole, RULES);
    assert.ok(frame);
    assert.deepEqual(
      run([...BEGUN, framed(frame)]).reply.parts.map(
        (part) => part.type === "reasoning" && part.text,
      ),
      ["ok"],
    );
    assert.equal(parseFrame("tool.finished", { messageId: ID, call: "c", offset: 1 }, RULES), null);
    assert.equal(parseFrame("stream.snapshot", { ...whole, parts: "x" }, RULES), null);
  });

  test("that a snapshot has cut are asked for, and whole then, also after the end", () => {
    const entries = [called("c1"), finished("c1"), reason("long")];
    const long = new Set(["output", "delta"]);
    const cut = partsOf(entries).map((part) =>
      Object.fromEntries(Object.entries(part).filter(([name]) => !long.has(name))),
    );
    for (const status of ["streaming", "complete"]) {
      const parts = cut.map((part) => ({ ...part, truncated: true }));
      const data = { messageId: ID, ...states(entries, status), parts };
      const late = [...BEGUN, framed(parsed("stream.snapshot", data))];
      const { reply, effects } = run(late);
      assert.ok(!("output" in tool(reply)) && reply.parts.length === 2);
      assert.deepEqual(effects, [{ type: "parts", messageId: ID, from: 0 }]);
      const whole = run([...late, refetched(entries, -1, status)]);
      assert.deepEqual([whole.reply.parts, whole.effects], [live(entries).parts, effects]);
    }
  });

  test("are forgotten when the reply starts over", () => {
    const failed = framed({ type: "stream.failed", messageId: ID, error: "No." });
    const retry: Action = { type: "retry", key: "k", requestId: "s", at: 500 };
    const { reply } = run([
      ...[...BEGUN, ...frames(RECORDED).map((frame) => framed(frame))],
      ...[failed, retry],
    ]);
    assert.deepEqual([reply.parts, reply.log.events, reply.cuts], [[], [], {}]);
  });

  test("do not count as tokens: the end comes with the last token", () => {
    const actions = [...frames(RECORDED), completed(RECORDED)].map((frame) => framed(frame));
    const { reply, effects } = run([...BEGUN, ...actions]);
    assert.deepEqual(
      [reply.status, reply.text, effects],
      ["complete", "I look. It is 7° in Oslo.", []],
    );
  });

  test("show that text before them is missing", () => {
    const late = frames(RECORDED).filter((frame) => frame.type === "citation.received");
    const { effects } = run([...BEGUN, ...late.map((frame) => framed(frame))]);
    assert.deepEqual(effects, [{ type: "gap", messageId: ID, from: 0 }]);
  });
});

describe("status", () => {
  const status = (entries: readonly Entry[]): string => live(entries).status;

  test("is streaming as soon as there is a part", () => {
    assert.equal(status([reason("Hm.")]), "streaming");
  });

  test("is waiting while a call waits, and no longer", () => {
    const waiting = [token("I "), called("c1"), asked("c1"), called("c2"), asked("c2"), step(1)];
    assert.equal(status(waiting), "waiting");
    assert.equal(status([...waiting, decided("c1", true)]), "waiting");
    assert.equal(status([...waiting, decided("c1", true), decided("c2", false)]), "streaming");
    const broken = [called("c1"), asked("c1"), retract(0)];
    assert.equal(status(broken), "streaming");
  });

  test("is waiting in a snapshot and a refetch, and text does not end that", () => {
    const waiting = [token("I "), called("c1"), asked("c1"), step(1)];
    for (const action of [
      framed(snapshot(waiting, "waiting")),
      refetched(waiting, -1, "waiting"),
    ]) {
      assert.equal(run([...BEGUN, action]).reply.status, "waiting");
    }
  });

  test("ends with the reply: a stop while it waits is final", () => {
    const actions = [called("c1"), asked("c1")];
    const { reply, effects } = run([
      ...[...BEGUN, ...frames(actions).map((frame) => framed(frame))],
      { type: "cancel", key: "k", at: 500 },
    ]);
    assert.equal(reply.status, "cancelled");
    assert.deepEqual(effects, [{ type: "cancel", messageId: ID }]);
  });

  test("follows what was decided here before it comes back", () => {
    const waiting = frames([called("c1"), asked("c1")]).map((frame) => framed(frame));
    const answer = (state: "sending" | "sent" | "failed" | "taken"): Action => ({
      ...{ type: "answer", messageId: ID, call: "c1" },
      answer: { approve: true, state, error: "" },
    });
    const after = (state: "sending" | "sent" | "failed" | "taken"): string =>
      run([...BEGUN, ...waiting, answer(state)]).reply.status;
    assert.deepEqual((["sending", "failed", "sent", "taken"] as const).map(after), [
      "waiting",
      "waiting",
      "streaming",
      "streaming",
    ]);
  });
});

describe("places in the text", () => {
  const layout = (reply: Reply): unknown[] =>
    blocks(reply).map(({ content }) =>
      content.type === "text"
        ? content.runs.map((run) => (run.type === "text" ? run.text : run.source.number))
        : content.offset,
    );
  const whole = [0, ["I look. "], 9, 13, 20, ["It is 7° ", 1, "in Oslo.", 2]];

  test("are known of what comes live", () => {
    assert.deepEqual(layout(live(RECORDED)), whole);
  });

  test("amid a snapshot's text are asked for once, and known then, also after the end", () => {
    for (const status of ["streaming", "complete"]) {
      const late = run([...BEGUN, framed(snapshot(RECORDED, status))]);
      assert.deepEqual(late.effects, [{ type: "parts", messageId: ID, from: 0 }]);
      const { reply, effects } = run([
        ...[...BEGUN, framed(snapshot(RECORDED, status)), refetched(RECORDED, -1, status)],
      ]);
      assert.deepEqual([layout(reply), reply.status], [whole, status]);
      assert.deepEqual(effects, late.effects);
    }
  });

  test("are asked for from the last one that is known", () => {
    const { effects } = run([
      ...[...BEGUN, ...frames(RECORDED.slice(0, 14)).map((frame) => framed(frame))],
      framed(snapshot(RECORDED)),
    ]);
    assert.deepEqual(effects, [{ type: "parts", messageId: ID, from: 2 }]);
  });

  test("are known of a refetch alone, and of tokens that came late", () => {
    assert.deepEqual(layout(run([...BEGUN, refetched(RECORDED, -1)]).reply), whole);
    const parts = frames(RECORDED).filter((frame) => frame.type !== "token.received");
    const tokens = frames(RECORDED).filter((frame) => frame.type === "token.received");
    const late = run([...BEGUN, ...[...parts, ...tokens].map((frame) => framed(frame))]).reply;
    assert.deepEqual(layout(late), whole);
    const backwards = [...parts, ...[...tokens].reverse()].map((frame) => framed(frame));
    assert.deepEqual(layout(run([...BEGUN, ...backwards]).reply), whole);
  });

  test("of a reply of nothing but text are nobody's business", () => {
    const plain = [token("a"), token("b")];
    const { reply, effects } = run([
      ...[...BEGUN, ...frames(plain).map((frame) => framed(frame))],
      framed(snapshot(plain)),
    ]);
    assert.deepEqual([reply.cuts, reply.parts, effects], [{}, [], []]);
  });
});

describe("whatever the way", () => {
  const entry = (call: string): fc.Arbitrary<Entry> =>
    fc.oneof(
      { weight: 4, arbitrary: fc.string({ minLength: 1, maxLength: 4 }).map(token) },
      { weight: 3, arbitrary: fc.constantFrom("a", "b", "c").map(reason) },
      fc.constantFrom<Entry>(
        ...[called(call), asked(call), decided(call, true), decided(call, false)],
        ...[finished(call), step(1), cite(`https://example.org/${call}`), HIDDEN],
        ...[
          { event: "tool.started", call, name: "weather" },
          { event: "tool.input_received", call, delta: "{" },
        ],
      ),
    );

  /** A log: some steps, each of which may have broken off and been made again. */
  const recorded: fc.Arbitrary<readonly Entry[]> = fc
    .array(
      fc.tuple(fc.array(fc.constantFrom("x", "y").chain(entry), { maxLength: 8 }), fc.boolean()),
      { minLength: 1, maxLength: 4 },
    )
    .map((attempts) =>
      attempts.reduce<Entry[]>((log, [entries, isBroken], number) => {
        const end = isBroken ? retract(log.length) : step(number);
        return [...log, ...entries, end];
      }, []),
    );

  /** What comes to a client: each entry in order, snapshots and refetches of what there is, older ones too. */
  const way = fc.tuple(
    recorded,
    fc.array(fc.tuple(fc.nat(40), fc.nat(40), fc.boolean(), fc.nat(40)), { maxLength: 5 }),
    fc.nat(40), // entries before this were never heard
    fc.nat(40), // the answer to send comes after so many
  );

  function actionsOf([entries, cuts, missed, answer]: [
    readonly Entry[],
    [number, number, boolean, number][],
    number,
    number,
  ]): Action[] {
    const heard: Action[] = [];
    entries.forEach((one, offset) => {
      if (offset === missed && missed > 0) heard.push(framed(snapshot(entries.slice(0, offset))));
      for (const [at, back, isFrame, after] of cuts) {
        if (at !== offset || offset < missed) continue;
        const known = entries.slice(0, Math.max(0, offset - back));
        heard.push(
          isFrame
            ? framed(snapshot(known))
            : refetched(known, Math.min(after, texts(known).length) - 1),
        );
      }
      if (offset < missed || "hidden" in one) return;
      const type = "token" in one ? "token.received" : one.event;
      heard.push(framed(parsed(type, dataOf(entries, offset))));
      if (back(offset, cuts)) heard.push(framed(parsed(type, dataOf(entries, offset))));
    });
    if (missed >= entries.length) heard.push(framed(snapshot(entries)));
    heard.push(framed(completed(entries)));
    // A refetch needs the id.
    const first = heard.findIndex((action) => action.type === "refetched");
    heard.splice(Math.min(answer, first < 0 ? heard.length : first), 0, ACCEPTED);
    return [SEND, ...heard];
  }

  const back = (offset: number, cuts: [number, number, boolean, number][]): boolean =>
    cuts.some(([at]) => at === offset + 1);

  const blocksOf = (reply: Reply): unknown => JSON.stringify(blocks(reply));

  test("the parts, the text and their places in the end are those of the whole log", () => {
    fc.assert(
      fc.property(way, (one) => {
        const [entries] = one;
        const actions = actionsOf(one);
        const direct = run([
          ...[...BEGUN, ...frames(entries).map((frame) => framed(frame))],
          framed(completed(entries)),
        ]).reply;
        const { reply, effects } = run(actions);
        assert.deepEqual(reply.parts, direct.parts);
        assert.deepEqual([reply.text, reply.status], [direct.text, "complete"]);
        const placed = effects.some((effect) => effect.type === "parts")
          ? run([...actions, refetched(entries, -1, "complete")]).reply
          : reply;
        assert.equal(blocksOf(placed), blocksOf(direct));
      }),
      { numRuns: 1000 },
    );
  });

  test("events in any order make the same parts", () => {
    fc.assert(
      fc.property(
        recorded.chain((entries) =>
          fc.tuple(
            fc.constant(entries),
            fc.shuffledSubarray(frames(entries), { minLength: frames(entries).length }),
          ),
        ),
        ([entries, shuffled]) => {
          const { reply } = run([...BEGUN, ...shuffled.map((frame) => framed(frame))]);
          const direct = live(entries);
          assert.deepEqual(reply.parts, direct.parts);
          assert.deepEqual(reply.text, direct.text);
        },
      ),
      { numRuns: 300 },
    );
  });
});

test("a thousand pieces are joined, and a fold does not mind how they came", () => {
  const events = Array.from({ length: 1000 }, (_, offset): PartEvent => ({
    ...{ type: "reasoning.received", offset, tokenIndex: 0, delta: "x" },
  }));
  assert.deepEqual(fold(events), [
    { type: "reasoning", offset: 0, tokenIndex: 0, text: "x".repeat(1000) },
  ]);
});
