/** What the chat page computes: costs, drafts, what is read aloud, how conversations are grouped, limits of files. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { attach, size } from "../page/attachments.js";
import { grouped } from "../page/conversations.js";
import { costOf, money } from "../page/cost.js";
import { Drafts } from "../page/drafts.js";
import { pieces, Speech } from "../page/speech.js";
import type { Turn } from "../src/reducer.js";
import { fresh } from "../src/reply.js";

describe("cost", () => {
  const price = (input: number): Record<string, number> => ({
    input,
    output: 15,
    cacheRead: 0.3,
    cacheWrite: 3.75,
  });
  const prices = {
    currency: "USD",
    models: { "claude-*": price(1), "claude-sonnet-*": price(2), "claude-sonnet-4-6": price(3) },
  } as unknown as Parameters<typeof costOf>[2];
  const usage = { input: 1_000_000, output: 100_000, cacheRead: 1_000_000, cacheWrite: 0 };

  test("the exact name, then the longest pattern", () => {
    assert.equal(costOf("claude-sonnet-4-6", usage, prices)?.toFixed(6), "4.800000");
    assert.equal(costOf("claude-sonnet-5", usage, prices)?.toFixed(6), "3.800000");
    assert.equal(costOf("claude-opus-9", usage, prices)?.toFixed(6), "2.800000");
  });

  test("unknown is unknown, not nothing", () => {
    assert.equal(costOf("gpt", usage, prices), null);
    assert.equal(costOf("claude-opus-9", null, prices), null);
    assert.equal(costOf(null, usage, prices), null);
    assert.equal(costOf("toString", usage, prices), null);
    assert.equal(money(null, "USD"), "");
  });

  test("small amounts keep two digits that count", () => {
    assert.equal(money(0, "USD"), "$0.00");
    assert.equal(money(0.000_123, "USD"), "$0.00012");
    assert.equal(money(0.0456, "USD"), "$0.046");
    assert.equal(money(1234.5, "EUR"), "€1,234.50");
    assert.equal(money(0.5, "credits"), "0.50 credits");
  });
});

describe("drafts", () => {
  class Memory {
    readonly entries = new Map<string, string>();
    isFull = false;
    getItem = (name: string): string | null => this.entries.get(name) ?? null;
    removeItem = (name: string): void => void this.entries.delete(name);
    setItem = (name: string, value: string): void => {
      if (this.isFull) throw new Error("full");
      this.entries.set(name, value);
    };
  }

  test("one for each conversation, until it is sent", () => {
    const memory = new Memory();
    const drafts = new Drafts(memory, "d");
    drafts.set("a", "one");
    drafts.set("b", "two");
    assert.deepEqual([drafts.get("a"), drafts.get("b"), drafts.get("c")], ["one", "two", ""]);
    assert.equal(new Drafts(memory, "d").get("a"), "one");
    drafts.set("a", "  ");
    drafts.set("b", "");
    assert.equal(memory.entries.size, 0);
  });

  test("the oldest go first; a storage that is full, broken or absent breaks nothing", () => {
    const memory = new Memory();
    const drafts = new Drafts(memory, "d");
    for (let index = 0; index < 60; index += 1) drafts.set(String(index), "x");
    assert.deepEqual([drafts.get("9"), drafts.get("10")], ["", "x"]);
    memory.isFull = true;
    drafts.set("a", "one");
    for (const broken of ["{", "7", '[["a"]]', "null"]) {
      memory.entries.set("d", broken);
      assert.equal(drafts.get("a"), "");
    }
    new Drafts(null, "d").set("a", "one");
  });
});

describe("what is read aloud", () => {
  test("whole sentences, as soon as they are there, each once", () => {
    const text = `${"A short sentence that is said. ".repeat(12)}The rest`;
    let [at, said] = [0, ""];
    for (let length = 1; length <= text.length; length += 1) {
      const found = pieces(text.slice(0, length), at, false);
      at = found.at;
      said += found.pieces.map((piece) => `${piece} `).join("");
      for (const piece of found.pieces)
        assert.ok(piece.length <= 400 && piece.endsWith("."), piece);
    }
    assert.equal((said + pieces(text, at, true).pieces.join(" ")).trim(), text);
  });

  test("without marks, and code by its size", () => {
    const text = "## Title\n\n- **one**\n- [two](https://a.test)\n\n```js\na\nb\n```\nEnd of `it`.";
    assert.deepEqual(pieces(text, 0, true).pieces, [
      "Title",
      "one two",
      "Code in js, 2 lines.",
      "End of it.",
    ]);
    assert.deepEqual(pieces("```js\na\n", 0, false).pieces, [], "code is said when it is whole");
  });

  test("a text without an end is cut; nothing hangs", () => {
    const { pieces: found } = pieces("x".repeat(2_000), 0, true);
    assert.equal(found.join("").length, 2_000);
    assert.ok(found.every((piece) => piece.length <= 400));
  });

  test("only the reply that is awaited is news", () => {
    const empty = fresh("", { id: "r", history: [] }, 0);
    const old = { ...empty, key: "k1", status: "complete", text: "Known." } as Turn;
    const speech = new Speech();
    speech.skip([old]);
    assert.deepEqual(speech.news([old]), []);
    assert.deepEqual(speech.news([{ ...old, key: "k2" }]), [], "from another tab");
    const live = { ...empty, key: "k3", status: "streaming", text: "New.\n\nMo" } as Turn;
    assert.deepEqual(
      speech.news([old, live]).map(({ text }) => text),
      ["New."],
    );
    const done = { ...live, status: "complete", text: "New.\n\nMore." } as Turn;
    assert.deepEqual(
      speech.news([old, done]).map(({ text }) => text),
      ["New.", "More."],
    );
    assert.equal(speech.news([old, done]), speech.news([old, done]), "the same list: no change");
  });
});

test("conversations are grouped by the day, in their order", () => {
  const now = new Date(2026, 10, 30, 15, 0);
  const at = (...time: [number, number, number, number]): string => new Date(...time).toISOString();
  const items = [
    { id: "a", title: null, updatedAt: at(2026, 10, 30, 14) },
    { id: "b", title: null, updatedAt: at(2026, 10, 30, 0) },
    { id: "c", title: null, updatedAt: at(2026, 10, 29, 23) },
    { id: "d", title: null, updatedAt: at(2026, 10, 25, 12) },
    { id: "e", title: null, updatedAt: at(2026, 10, 5, 12) },
    { id: "f", title: null, updatedAt: at(2025, 1, 1, 12) },
    { id: "g", title: null, updatedAt: "never" },
  ];
  assert.deepEqual(
    grouped(items, now).map(({ title, items: own }) => [title, own.map(({ id }) => id).join("")]),
    [
      ["Today", "ab"],
      ["Yesterday", "c"],
      ["Last 7 days", "d"],
      ["Last 30 days", "e"],
      ["Earlier", "fg"],
    ],
  );
});

test("a file of another kind, or one that is too large, is refused with its name", async () => {
  const limits = { max: 1, max_bytes: 2_048, media_types: ["application/pdf"] };
  const file = (name: string, type: string, bytes: number): File =>
    new File([new Uint8Array(bytes)], name, { type });
  await assert.rejects(attach(file("a.zip", "application/zip", 1), limits), /a\.zip .*: PDF\.$/);
  await assert.rejects(
    attach(file("b.pdf", "application/pdf", 4_096), limits),
    /b\.pdf has 4 KB; at most 2 KB/,
  );
  assert.deepEqual([size(10), size(524_288), size(3_500_000)], ["10 bytes", "512 KB", "3.3 MB"]);
});
