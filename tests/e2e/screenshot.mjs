// Makes pictures of the states of the chat page on a running LEGATO_URL: `node screenshot.mjs FOLDER [STATE ...]`.
// FOLDER/sheets has one of each state: the page on a desktop, light, beside the one on a phone, dark. They are those of
// docs/page-states.md, which says how they get there.

import { mkdir } from "node:fs/promises";

import { launch } from "./browser.mjs";
import { SCREENS, walk } from "./states.mjs";

/** In pixels. */
const SHEET_HEIGHT = 600;

const [folder, ...wanted] = process.argv.slice(2);

/** State → `SCREEN-SCHEME` → picture. */
const pictures = new Map();

async function photograph(state, screen, page) {
  const own = pictures.get(state) ?? {};
  pictures.set(state, own);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const name = `${screen}-${colorScheme}`;
    own[name] = await page.screenshot({ path: `${folder}/${state}-${name}.png` });
  }
}

/** What the documentation shows of a state; what is only on phones, it shows light and dark. */
async function makeSheet(page, state, own) {
  const shown = [own["desktop-light"] ?? own["phone-light"], own["phone-dark"]];
  const images = shown.map((bytes) => `<img src="data:image/png;base64,${bytes.toString("base64")}">`);
  await page.setContent(`
    <style>
      body { margin: 0 }
      div { display: inline-flex; gap: 8px; padding: 8px; background: #b5b2bd }
      img { height: ${SHEET_HEIGHT}px }
    </style>
    <div>${images.join("")}</div>`);
  await page.locator("div").screenshot({ path: `${folder}/sheets/${state}.png` });
}

await mkdir(`${folder}/sheets`, { recursive: true });
const browser = await launch();
for (const [name, screen] of Object.entries(SCREENS)) {
  await walk(browser, screen, async (state, { page }) => {
    if (wanted.length === 0 || wanted.includes(state)) await photograph(state, name, page);
  });
}
const page = await browser.newPage();
for (const [state, own] of pictures) await makeSheet(page, state, own);
await browser.close();
