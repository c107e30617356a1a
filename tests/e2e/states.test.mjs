// Each state of the chat page: no accessibility fault that a machine can see, and nothing wider than the screen.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { launch } from "./browser.mjs";
import { SCREENS, walk } from "./states.mjs";

const IS_PROOF = "LEGATO_PROOF" in process.env;

let browser;
let axe;

before(async () => {
  browser = await launch();
  axe = await readFile(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8");
});

after(() => browser.close());

/** What axe finds: the rule and the elements. In the dark only colours can differ, so `make proof` alone asks for all. */
async function violations([colorScheme, isProof]) {
  const rules = colorScheme === "dark" && !isProof ? { runOnly: ["color-contrast"] } : {};
  const found = await window.axe.run({ ...rules, resultTypes: ["violations"] });
  return found.violations.map(({ id, nodes }) => [id, nodes.map(({ html, any }) => [html, any[0]?.message])]);
}

for (const [name, screen] of Object.entries(SCREENS)) {
  test(`no fault in any state, ${name}`, { timeout: 500_000 }, async () => {
    const faults = [];
    await walk(browser, { ...screen, bypassCSP: true }, async (state, { page }) => {
      if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        const found = await page.evaluate(violations, [colorScheme, IS_PROOF]);
        faults.push(...found.map((fault) => [state, colorScheme, ...fault]));
      }
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      if (width > screen.viewport.width) faults.push([state, `${width} pixels wide`]);
    });
    assert.deepEqual(faults, []);
  });
}
