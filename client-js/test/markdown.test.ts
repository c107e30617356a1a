/** Markdown as the chat page shows it: what it becomes, that no text becomes HTML, and that it may grow. */

import "./dom.mjs";

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import fc from "fast-check";

import { Markdown } from "../page/markdown/markdown.js";
import { patch, textOf, type ElementNode, type VNode } from "../page/markdown/nodes.js";
import { mark, unmarked } from "../page/markdown/tokens.js";
import { HOSTILE, SAMPLES } from "./markdown-texts.js";

const nodesOf = (text: string): readonly VNode[] => new Markdown().update(text, false);

function elements(nodes: readonly VNode[]): ElementNode[] {
  return nodes.flatMap((node) =>
    typeof node === "string" ? [] : [node, ...elements(node.children)],
  );
}

const tags = (text: string): string =>
  elements(nodesOf(text))
    .map(({ tag }) => tag)
    .join(" ");

function html(nodes: readonly VNode[]): string {
  const place = document.createElement("div");
  patch(place, [], nodes);
  return place.innerHTML;
}

describe("what it becomes", () => {
  test("blocks and inline marks", () => {
    const text =
      "# A\n\nSome **bold** *em* `code`\nnext\n\n- [x] done\n- two\n\n3. c\n4. d\n\n> quote";
    assert.equal(tags(text), "h3 p strong em code br ul li span li ol li li blockquote p");
    assert.equal(tags("|a|b|\n|-|:-:|\n|1|2|"), "div table thead tr th th tbody tr td td");
  });

  test("headings stand below that of the turn and leave out no level", () => {
    const levels = elements(nodesOf("### a\n\n# b\n\n###### c\n\n## d")).map(({ tag }) => tag);
    assert.deepEqual(levels, ["h3", "h3", "h4", "h4"]);
  });

  test("code keeps its text, with its language and a button", () => {
    const [figure] = elements(nodesOf("```py\nif a < b:\n\tpass\n```"));
    assert.equal(figure?.tag, "figure");
    const all = elements(nodesOf("```py\nif a < b:\n\tpass\n```"));
    assert.equal(textOf(all.filter(({ tag }) => tag === "code")), "if a < b:\n\tpass");
    assert.ok(all.some(({ attributes }) => attributes["aria-label"] === "Copy code"));
  });

  test("references to characters, and what looks like HTML, are text", () => {
    assert.equal(
      textOf(nodesOf("a &amp; b &lt;i&gt; &#8364; &bogus; <b>x</b> 1 < 2")),
      "a & b <i> € &bogus; <b>x</b> 1 < 2",
    );
  });

  test("an image from elsewhere is a link, and is not loaded", () => {
    assert.equal(tags("![a cat](https://evil.test/c.png)"), "p a");
    assert.equal(
      textOf(nodesOf("![a cat](https://evil.test/c.png)")),
      "a cat (image on evil.test)",
    );
    assert.equal(tags("![dot](data:image/png;base64,AAAA)"), "p img");
  });

  test("citations stand in the text, behind a link, and not in code", () => {
    const source = { number: 1, href: "https://a.test/", label: "A" };
    const shown = (text: string): string => html(new Markdown().update(text, false, [source]));
    assert.match(shown(`Rain${mark(0)}, so`), /Rain<sup><a class="cite"[^>]*>1<\/a><\/sup>, so/);
    assert.match(
      shown(`[x${mark(0)}](https://b.test)`),
      /<a href="https:\/\/b.test\/"[^>]*>x<\/a><sup>/,
    );
    assert.match(shown(`https://b.test/${mark(0)}`), /href="https:\/\/b.test\/"/);
    assert.equal(unmarked(mark(0)).includes(mark(0)), false);
  });
});

describe("safety", () => {
  const TAGS = new Set(
    "p h3 h4 h5 h6 strong em del code pre figure figcaption span button br a img sup ul ol li blockquote hr div table thead tbody tr th td".split(
      " ",
    ),
  );
  const ATTRIBUTES = new Set(
    "class data-depth data-align data-testid type tabindex role aria-label href target rel title src alt start".split(
      " ",
    ),
  );

  function check(nodes: readonly VNode[]): void {
    for (const { tag, attributes } of elements(nodes)) {
      assert.ok(TAGS.has(tag), tag);
      for (const [name, value] of Object.entries(attributes)) {
        assert.ok(ATTRIBUTES.has(name), name);
        if (name === "href") assert.match(value, /^(https?:\/\/|mailto:)/);
        if (name === "src") assert.match(value, /^data:image\/(png|jpeg|gif|webp);base64,/);
      }
    }
  }

  test("hostile texts make only harmless elements", () => {
    for (const text of HOSTILE) {
      check(nodesOf(text));
      check(new Markdown().update(text, true));
    }
  });

  test("so do any texts", () => {
    const words = fc.constantFrom(
      ...[
        "<script>",
        "](",
        "[",
        "![",
        "javascript:",
        "data:",
        "\n",
        "\n\n",
        "`",
        "```",
        "*",
        "<",
        ">",
      ],
      ...[
        "&#x6a;",
        "onerror=",
        '"',
        "'",
        "- ",
        "|",
        "\uE0000\uE001",
        "http://",
        "\0",
        "\ud800",
        "\\",
      ],
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(words, fc.string()), { maxLength: 30 }), (parts) => {
        check(nodesOf(parts.join("")));
      }),
    );
  });
});

describe("growth", () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 60 });

  function* prefixes(text: string, steps: readonly number[]): Generator<string> {
    for (let [at, step] = [0, 0]; at < text.length; step += 1) {
      at += steps[step % steps.length] ?? 1;
      yield text.slice(0, at);
    }
  }

  test("whatever the pieces, the end is what the whole text gives at once", () => {
    const texts = fc.array(fc.constantFrom(...SAMPLES), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(texts, cuts, (samples, steps) => {
        const text = samples.join("\n\n");
        const growing = new Markdown();
        const place = document.createElement("div");
        let shown: readonly VNode[] = [];
        for (const prefix of prefixes(text, steps)) {
          const next = growing.update(prefix, true);
          patch(place, shown, next);
          shown = next;
        }
        const once = new Markdown().update(text, true);
        assert.equal(html(growing.update(text, true)), html(once));
        const last = growing.update(text, false);
        patch(place, shown, last);
        assert.equal(place.innerHTML, html(nodesOf(text)));
      }),
      { numRuns: 25 },
    );
  });

  test("character by character, too", () => {
    for (const text of ["1. one\n\n2. two\n\n3. three", ...SAMPLES, SAMPLES.join("\n\n")]) {
      const growing = new Markdown();
      for (const prefix of prefixes(`First.\n\nSecond.\n\n${text}`, [1])) {
        growing.update(prefix, true);
      }
      const whole = `First.\n\nSecond.\n\n${text}`;
      assert.equal(html(growing.update(whole, true)), html(new Markdown().update(whole, true)));
    }
  });

  test("what is settled is neither parsed nor made again", () => {
    const text = SAMPLES.join("\n\n").repeat(20);
    const growing = new Markdown();
    let before: readonly VNode[] = [];
    let kept = 0;
    for (const prefix of prefixes(text, [200])) {
      const nodes = growing.update(prefix, true);
      kept = nodes.filter((node, index) => node === before[index]).length;
      assert.ok(prefix.length - growing.settledAt < 1_500, "a part of the text is open, not all");
      before = nodes;
    }
    assert.ok(before.length > 100 && kept > before.length - 8);
  });

  test("half of a mark does not show", () => {
    const shown = (text: string): string => html(new Markdown().update(text, true));
    assert.equal(shown("a **bo"), "<p>a <strong>bo</strong></p>");
    assert.equal(shown("a **"), "<p>a </p>");
    assert.equal(shown("a `co"), "<p>a <code>co</code></p>");
    assert.equal(shown("see [the docs](https://exa"), "<p>see the docs</p>");
    assert.match(shown("```\na **b"), /a \*\*b/);
  });

  test("a node that stays is the same one: a selection in it survives", () => {
    const place = document.createElement("div");
    const growing = new Markdown();
    const first = growing.update("Hello wor", true);
    patch(place, [], first);
    const node = place.firstChild?.firstChild;
    patch(place, first, growing.update("Hello world and", true));
    assert.equal(place.firstChild?.firstChild, node);
    assert.equal(place.textContent, "Hello world and");
  });
});
