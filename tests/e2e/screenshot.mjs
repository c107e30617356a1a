// Makes pictures of the states of the chat page on a running LEGATO_URL: `node screenshot.mjs FOLDER [STATE ...]`.
// Those that the documentation shows go to docs/images/.

import { mkdir } from "node:fs/promises";

import { launch } from "./browser.mjs";
import { SCREENS, walk } from "./states.mjs";

const [folder, ...wanted] = process.argv.slice(2);

await mkdir(folder, { recursive: true });
const browser = await launch();
for (const [name, screen] of Object.entries(SCREENS)) {
  await walk(browser, screen, async (state, { page }) => {
    if (wanted.length > 0 && !wanted.includes(state)) return;
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const path = `${folder}/${state}-${name}-${colorScheme}.png`;
      await page.screenshot({ path });
      console.log(path);
    }
  });
}
await browser.close();
