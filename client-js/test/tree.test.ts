/** Branches: what is shown depends on what is known, and not on how it became known. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";

import { fresh } from "../src/reply.js";
import type { Turn } from "../src/state.js";
import { keyOf, merged, pathTo, shownOf, treeOf, type Tree } from "../src/tree.js";

/** Turn `n` follows the turn of the other role that `choice` picks, or none. */
function grown(choices: readonly number[]): readonly Turn[] {
  const turns: Turn[] = [];
  choices.forEach((choice, n) => {
    const messageId = `m${String(n)}`;
    const users = turns.filter(({ role }) => role === "user");
    const replies = turns.filter(({ role }) => role === "assistant");
    const user = choice % 2 === 0 ? undefined : users[choice % Math.max(1, users.length)];
    if (user) {
      turns.push(replyTo(messageId, user.messageId ?? ""));
      return;
    }
    const before = choice % 5 === 0 ? undefined : replies[choice % Math.max(1, replies.length)];
    const [key, text] = [keyOf("user", messageId), `said ${messageId}`];
    const parent = before?.messageId ?? "";
    turns.push({ role: "user", key, text, messageId, parent, conversation: "c" });
    turns.push(replyTo(messageId, messageId));
  });
  return turns;
}

const replyTo = (messageId: string, parent: string): Turn => ({
  ...{ ...fresh(keyOf("assistant", messageId), null, 0), status: "complete", endedAt: 1 },
  ...{ messageId, parent, conversation: "c", text: `reply ${messageId}` },
});

const tree = fc.array(fc.nat(1000), { minLength: 1, maxLength: 14 }).map(grown);

function found(of: Tree, key: string): Turn {
  const turn = of.find(key);
  assert.ok(turn, key);
  return turn;
}

const shown = (turns: readonly Turn[], leaf: string | null): string =>
  shownOf(turns, leaf)
    .map(({ key, branch }) => `${key}:${String(branch?.index)}/${String(branch?.count)}`)
    .join(" ");

/** Cut into pages of the server, the newest first. */
const paged = fc.tuple(tree, fc.integer({ min: 1, max: 5 })).map(([turns, size]) => {
  const pages: (readonly Turn[])[] = [];
  for (let end = turns.length; end > 0; end -= size)
    pages.push(turns.slice(Math.max(0, end - size), end));
  return { turns, pages };
});

test("pages, read again or after what was heard live, give what the server has", () => {
  fc.assert(
    fc.property(paged, fc.nat(20), fc.nat(20), ({ turns, pages }, live, again) => {
      const heard = turns.slice(turns.length - Math.min(live, turns.length));
      let known: readonly Turn[] = heard;
      pages.forEach((page, n) => {
        known = merged(known, page, n > 0 && !page.slice(-1).some((turn) => heard.includes(turn)));
        const first = pages[0] ?? [];
        if (again % pages.length === n) known = merged(known, first, false);
      });
      assert.deepEqual(new Set(known.map(({ key }) => key)).size, turns.length);
      for (const { key } of turns) {
        const [now, wanted] = [treeOf(known), treeOf(turns)];
        const path = (of: typeof now): string =>
          pathTo(of, of.find(key))
            .map((turn) => turn.key)
            .join(" ");
        assert.equal(path(now), path(wanted));
        const turn = found(now, key);
        const siblings = wanted.siblingsOf(found(wanted, key));
        assert.equal(now.siblingsOf(turn).length, siblings.length);
      }
    }),
    { numRuns: 300 },
  );
});

test("in the order of the server, the same is shown for every leaf", () => {
  fc.assert(
    fc.property(paged, ({ turns, pages }) => {
      const known = pages.reduce<readonly Turn[]>(
        (before, page, n) => merged(before, page, n > 0),
        [],
      );
      for (const leaf of [null, ...turns.map(({ key }) => key)])
        assert.equal(shown(known, leaf), shown(turns, leaf));
    }),
    { numRuns: 300 },
  );
});

test("each turn of a path follows the one before it, and a branch is open below its turn", () => {
  fc.assert(
    fc.property(tree, (turns) => {
      for (const { key } of turns) {
        const path = shownOf(turns, key);
        assert.ok(path.some((turn) => turn.key === key));
        path.slice(1).forEach((turn, n) => {
          assert.equal(turn.parent, path[n]?.messageId);
          assert.notEqual(turn.role, path[n]?.role);
        });
        assert.equal(path[0]?.parent, "");
      }
    }),
    { numRuns: 300 },
  );
});

test("turns that follow each other in a ring are shown once", () => {
  const turns = grown([1]).map((turn) => ({ ...turn, parent: turn.messageId ?? "" }));
  assert.ok(shownOf(turns, null).length <= 2);
});
