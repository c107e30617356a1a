import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";

import {
  MAX_HISTORY,
  MAX_HISTORY_CHARACTERS,
  MAX_MESSAGE,
  newest,
  tooLong,
} from "../src/limits.js";

const user = (content: string) => ({ role: "user", content }) as const;
const assistant = (content: string) => ({ role: "assistant", content }) as const;
type Item = ReturnType<typeof user> | ReturnType<typeof assistant>;

describe("of a history", () => {
  const fits = (items: readonly Item[]): boolean =>
    items.length <= MAX_HISTORY &&
    items.reduce((sum, item) => sum + item.content.length, 0) <= MAX_HISTORY_CHARACTERS;

  test("everything stays up to the limits, and one more takes an exchange", () => {
    const items = Array.from({ length: MAX_HISTORY / 2 }, () => [user("q"), assistant("a")]).flat();
    assert.equal(newest(items).length, MAX_HISTORY);
    assert.equal(newest([...items, user("q")]).length, MAX_HISTORY - 1);
    const full = [user("x".repeat(MAX_HISTORY_CHARACTERS - 1)), assistant("y"), user("z")];
    assert.deepEqual(newest(full.slice(0, 2)), full.slice(0, 2));
    assert.deepEqual(newest(full), full.slice(2));
  });

  test("the longest end that fits and begins with the user stays, whole", () => {
    const text = fc
      .integer({ min: 1, max: MAX_HISTORY_CHARACTERS / 8 })
      .map((length) => "x".repeat(length));
    const item = fc.oneof(text.map(user), text.map(assistant));
    const short = fc.constantFrom<Item>(user("q"), assistant("a"));
    const histories = fc.oneof(
      fc.array(item, { maxLength: 30 }),
      fc.array(short, { maxLength: MAX_HISTORY + 30, size: "max" }),
    );
    fc.assert(
      fc.property(histories, (items) => {
        const kept = newest(items);
        assert.ok(fits(kept));
        assert.ok(kept.every((one, index) => one === items[items.length - kept.length + index]));
        assert.notEqual(kept[0]?.role, "assistant");
        const longer = items
          .map((_, index) => items.slice(index))
          .filter((end) => end.length > kept.length && end[0]?.role === "user");
        assert.ok(!longer.some(fits));
      }),
      { numRuns: 300 },
    );
  });
});

describe("a message is too long", () => {
  test("beyond the limit, and the text says by how much", () => {
    assert.equal(tooLong("x".repeat(MAX_MESSAGE)), "");
    assert.equal(
      tooLong("x".repeat(MAX_MESSAGE + 1)),
      "The message is too long: 100,001 of at most 100,000 characters.",
    );
  });

  test("in characters as the server counts them", () => {
    assert.equal(tooLong("\u{1F600}".repeat(5), 5), "");
    assert.match(tooLong("\u{1F600}".repeat(6), 5), /6 of at most 5 /);
    assert.match(tooLong("\uD83D".repeat(6), 5), /6 of at most 5 /);
  });
});
