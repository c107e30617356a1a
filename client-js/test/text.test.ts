import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";

import { wellFormed } from "../src/text.js";

const units = fc
  .array(fc.constantFrom("a", "\uD83D", "\uDE00", "\uDBFF", "\uDC00", "\uFFFD", "é"))
  .map((parts) => parts.join(""));

test("is what UTF-8 makes of any text", () => {
  fc.assert(
    fc.property(units, (text) => {
      assert.equal(wellFormed(text), new TextDecoder().decode(new TextEncoder().encode(text)));
    }),
  );
});

test("leaves whole characters alone", () => {
  assert.equal(wellFormed("a\u{1F600}é\n"), "a\u{1F600}é\n");
});
