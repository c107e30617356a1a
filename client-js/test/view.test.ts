import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { fold, type PartEvent, type ToolPart } from "../src/parts.js";
import { fresh, type Answer, type Reply } from "../src/reply.js";
import {
  blocks,
  deadline,
  inputText,
  isQuiet,
  MAX_SHOWN,
  outputText,
  pretty,
  reasoningTitle,
  sources,
  toolNews,
  toolState,
  toolWords,
  webAddress,
} from "../src/view.js";

type Data<Event> = Event extends PartEvent ? Omit<Event, "offset" | "tokenIndex"> : never;

const reply = (change: Partial<Reply> = {}, ...data: Data<PartEvent>[]): Reply => ({
  ...fresh("k", { id: "r", history: [] }, 0),
  status: "streaming",
  parts: fold(data.map((event, offset) => ({ ...event, offset, tokenIndex: 0 }))),
  ...change,
});

const CALLED = {
  type: "tool.called",
  call: "c1",
  name: "send_mail",
  input: { to: "ann" },
} as const;
const ASKED = {
  type: "tool.approval_requested",
  call: "c1",
  name: "send_mail",
  expiresAt: 86_400,
} as const;
const FINISHED = {
  type: "tool.finished",
  call: "c1",
  name: "send_mail",
  ok: true,
  output: "sent",
} as const;

const firstTool = ({ parts }: Reply): ToolPart => {
  const part = parts.find((found) => found.type === "tool");
  assert.ok(part?.type === "tool");
  return part;
};

const answers = (state: Answer["state"], approve = true, error = ""): Reply["answers"] => ({
  c1: { approve, state, error },
});

describe("blocks", () => {
  test("of a reply of nothing but text are its text", () => {
    const only = {
      key: "t0",
      content: { type: "text", runs: [{ type: "text", key: "t0", text: "a" }] },
    };
    assert.deepEqual(blocks(reply({ text: "a", nextIndex: 1 })), [only]);
    assert.deepEqual(blocks({ role: "user", key: "u", text: "a" }), [only]);
    assert.deepEqual(blocks(reply()), []);
  });

  test("keep the objects of parts, and the keys of what was there before", () => {
    const one = reply({ text: "a" }, CALLED);
    const two = { ...one, text: "ab" };
    assert.equal(blocks(one)[0]?.content, blocks(two)[0]?.content);
    assert.deepEqual(
      blocks(one).map(({ key }) => key),
      blocks(two).map(({ key }) => key),
    );
  });

  test("have no empty lines beside a part, and no block of nothing", () => {
    const parts = fold([
      { ...CALLED, offset: 1, tokenIndex: 1 },
      { ...CALLED, call: "c2", offset: 3, tokenIndex: 2 },
    ]);
    const text = "One.\n\n\n\n Two.\nThree.";
    const cuts = { 1: 6, 2: 8 };
    const found = blocks(reply({ text, nextIndex: 3, parts, cuts }));
    assert.deepEqual(
      found.map(({ content }) =>
        content.type === "text"
          ? content.runs.map((run) => run.type === "text" && run.text)
          : content.type,
      ),
      [["One."], "tool", "tool", [" Two.\nThree."]],
    );
  });

  test("put a part whose place is not known behind the last one that is", () => {
    const parts = fold([{ ...CALLED, offset: 5, tokenIndex: 5 }]);
    const found = blocks(reply({ text: "abcdefghi", nextIndex: 9, parts }));
    assert.deepEqual(
      found.map(({ content }) => content.type),
      ["tool", "text"],
    );
  });
});

describe("sources", () => {
  test("are numbered once each, in order", () => {
    const cited = reply(
      {},
      ...[
        { type: "citation.received", url: "https://a.org/x", title: "A" },
        { type: "citation.received", url: "https://b.org/y" },
        { type: "citation.received", url: "https://a.org/x", title: "A" },
        { type: "citation.received", source: "doc-7", text: "words" },
        { type: "citation.received" },
      ].map((event) => event as Data<PartEvent>),
    );
    assert.deepEqual(sources(cited), [
      { number: 1, href: "https://a.org/x", label: "A" },
      { number: 2, href: "https://b.org/y", label: "b.org" },
      { number: 3, href: null, label: "doc-7" },
      { number: 4, href: null, label: "Source" },
    ]);
    assert.deepEqual(sources({ role: "user", key: "u", text: "" }), []);
  });

  test("link to http and https only", () => {
    assert.equal(webAddress("https://example.org"), "https://example.org/");
    assert.equal(webAddress("HTTP://example.org/a b"), "http://example.org/a%20b");
    const none = ["javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "/a", "", "x"];
    for (const text of [...none, "vbscript:x", "file:///etc/passwd", "ftp://x.org"]) {
      assert.equal(webAddress(text), null, text);
    }
  });
});

describe("a tool in words", () => {
  test("follows the server, and before that what was decided here", () => {
    const waiting = reply({}, CALLED, ASKED);
    const words = (change: Partial<Reply>): string =>
      toolWords({ ...waiting, ...change }, firstTool(waiting));
    assert.equal(words({}), "Waits for your approval");
    assert.equal(words({ answers: answers("sending") }), "Waits for your approval");
    assert.equal(words({ answers: answers("sent") }), "Approved, running");
    assert.equal(words({ answers: answers("sent", false) }), "Denied");
    assert.equal(words({ answers: answers("taken") }), "Decided already");
    assert.equal(words({ status: "cancelled" }), "Stopped");
    assert.equal(words({ status: "cancelled", answers: answers("taken") }), "Stopped");
  });

  test("keeps its end after the end of the reply", () => {
    const done = reply({ status: "complete" }, CALLED, FINISHED);
    assert.equal(toolState(done, firstTool(done)), "finished");
    const running = reply({ status: "failed" }, CALLED);
    assert.equal(toolState(running, firstTool(running)), "stopped");
  });

  test("has a deadline while it waits", () => {
    const waiting = reply({}, ASKED);
    assert.match(deadline(waiting, firstTool(waiting)), /1970/);
    const sent = { ...waiting, answers: answers("sent") };
    assert.equal(deadline(sent, firstTool(sent)), "");
    const never = reply({}, { ...ASKED, expiresAt: 1e300 });
    assert.equal(deadline(never, firstTool(never)), "");
    const free = reply({}, CALLED);
    assert.equal(deadline(free, firstTool(free)), "");
  });

  test("shows what it was given and gave, as indented JSON, cut when it is long", () => {
    const done = firstTool(reply({}, CALLED, FINISHED));
    assert.deepEqual([inputText(done), outputText(done)], ['{\n  "to": "ann"\n}', "sent"]);
    const failed = { ...FINISHED, ok: false, error: "No." } as const;
    assert.equal(outputText(firstTool(reply({}, failed))), "No.");
    const started = { type: "tool.started", call: "c1", name: "n" } as const;
    const piece = { type: "tool.input_received", call: "c1", delta: '{"a' } as const;
    const writing = firstTool(reply({}, started, piece));
    assert.deepEqual([inputText(writing), outputText(writing)], ['{"a', ""]);
    assert.equal(pretty(null), "null");
    const long = pretty("x".repeat(MAX_SHOWN + 1234));
    assert.ok(long.endsWith("\n… 1,234 more characters") && long.length < MAX_SHOWN + 50);
  });

  test("is told when it changes, without its output", () => {
    const called = reply({}, CALLED);
    const waiting = reply({}, CALLED, ASKED);
    const failed = {
      ...waiting,
      answers: answers("failed", true, "The server cannot be reached."),
    };
    const done = reply({}, CALLED, ASKED, FINISHED);
    assert.equal(toolNews(undefined, called), "send_mail: Running.");
    assert.equal(toolNews(called, { ...called, text: "more" }), "");
    assert.equal(toolNews(called, waiting), "send_mail: Waits for your approval.");
    assert.equal(toolNews(waiting, failed), "send_mail: The server cannot be reached.");
    assert.equal(toolNews(waiting, done), "send_mail: Done.");
  });
});

describe("reasoning", () => {
  const piece = { type: "reasoning.received", delta: "Hm." } as const;
  const title = (of: Reply): string => {
    const part = of.parts.find((found) => found.type === "reasoning");
    assert.ok(part?.type === "reasoning");
    return reasoningTitle(of, part);
  };

  test("is under way while nothing comes behind it", () => {
    assert.equal(title(reply({}, piece)), "Thinking…");
    assert.equal(title(reply({ nextIndex: 1, text: "a" }, piece)), "Reasoning");
    assert.equal(title(reply({}, piece, CALLED)), "Reasoning");
    assert.equal(title(reply({ status: "cancelled" }, piece)), "Reasoning");
  });

  test("says how long it took, if that is known", () => {
    const title_ = (span: [number, number]): string =>
      title(reply({ status: "complete", spans: { 0: span } }, piece));
    assert.deepEqual([title_([0, 4600]), title_([0, 1])], ["Thought for 5 s", "Thought for 1 s"]);
  });
});

test("a reply is quiet while nothing of its work is to be seen", () => {
  assert.equal(isQuiet(reply({ status: "thinking" })), true);
  assert.equal(isQuiet(reply({ text: "a", nextIndex: 1 })), false);
  assert.equal(isQuiet(reply({}, CALLED)), false);
  assert.equal(isQuiet(reply({}, CALLED, ASKED)), false);
  assert.equal(isQuiet(reply({}, CALLED, FINISHED)), true);
  assert.equal(isQuiet(reply({}, CALLED, FINISHED, { ...CALLED, call: "c2" })), false);
  assert.equal(isQuiet(reply({ text: "a", nextIndex: 1 }, CALLED, FINISHED)), false);
  assert.equal(isQuiet(reply({ status: "complete" }, CALLED, FINISHED)), false);
  assert.equal(isQuiet({ role: "user", key: "u", text: "" }), false);
});
