// Makes docs/images/page-desktop.png and page-phone.png from a running LEGATO_URL.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { ChatPage, launch } from "./browser.mjs";
import { until } from "./legato.mjs";

const IMAGES = fileURLToPath(new URL("../../docs/images/", import.meta.url));

const FIRST = "Write a haiku about a message that arrives in order";
const SECOND = "And how does each word travel from the model to this page?";

const SCREENS = {
  desktop: { viewport: { width: 1280, height: 800 } },
  phone: {
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
  },
};

await mkdir(IMAGES, { recursive: true });
const browser = await launch();
for (const [name, screen] of Object.entries(SCREENS)) {
  const chat = await ChatPage.open(browser, screen);
  await chat.say(FIRST);
  await chat.hasStatus("complete", 1);
  await chat.say(SECOND);
  await chat.hasStatus("streaming", 2);
  await until("half of a reply", async () => (await chat.text(1)).length > 150);
  await chat.page.screenshot({ path: `${IMAGES}page-${name}.png` });
  await chat.close();
  console.log(`${IMAGES}page-${name}.png`);
}
await browser.close();
