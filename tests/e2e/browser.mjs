// The chat page in a real Chromium, with everything that goes wrong in it written down.

import { chromium } from "playwright-core";

import { LEGATO_URL, newUser } from "./legato.mjs";

const ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const launch = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ARGS });

/** The list that the page's console errors and warnings, exceptions, and CSP violations go to. */
export async function watch(page) {
  const faults = [];
  page.on("pageerror", (error) => faults.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(message.text());
  });
  await page.exposeFunction("legatoFault", (text) => faults.push(text));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      window.legatoFault(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return faults;
}

export class ChatPage {
  /** Open the page in a context of its own, and wait until it may send. */
  static async open(browser, { user = newUser(), ...options } = {}) {
    const context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      ...options,
    });
    const chat = new ChatPage(await context.newPage());
    chat.faults = await watch(chat.page);
    await chat.page.goto(`${LEGATO_URL}/?user=${user}`);
    await chat.isConnected();
    return chat;
  }

  constructor(page) {
    this.page = page;
    this.draft = page.getByLabel("Message", { exact: true });
    this.sendButton = page.getByRole("button", { name: "Send" });
    this.stopButton = page.getByRole("button", { name: "Stop" });
    this.retryButton = page.getByRole("button", { name: "Retry" });
    this.replies = page.locator('[data-testid="turn"][data-role="assistant"]');
    this.questions = page.locator('[data-testid="turn"][data-role="user"]');
  }

  isConnected() {
    return this.page.locator('[data-testid="connection"][data-state="live"]').waitFor();
  }

  /** Type and press Enter, as a person does. */
  async say(text) {
    await this.draft.fill(text);
    await this.draft.press("Enter");
  }

  /** Wait until the last of `count` replies has this status. */
  async hasStatus(status, count = 1) {
    await this.page
      .locator(`[data-role="assistant"][data-status="${status}"]`)
      .and(this.replies.nth(count - 1))
      .waitFor();
  }

  text(index = 0) {
    return this.replies.nth(index).getByTestId("text").textContent();
  }

  close() {
    return this.page.context().close();
  }
}
