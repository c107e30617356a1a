// The chat page in a real Chromium, with everything that goes wrong in it written down.

import { existsSync } from "node:fs";

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

/** What passes through a service worker, no route of a test sees. What moves takes CPU, and tells nothing. */
const CONTEXT = {
  viewport: { width: 1280, height: 800 },
  serviceWorkers: "block",
  reducedMotion: "reduce",
};

/** The first that is there: without the user interface of a browser, a page takes two thirds of the CPU. */
const EXECUTABLES = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? EXECUTABLES.find(existsSync) ?? EXECUTABLES.at(-1),
    args: ARGS,
  });

/** The list that the page's console errors and warnings, exceptions, and CSP violations go to. */
export async function watch(page) {
  const faults = [];
  page.on("pageerror", (error) => faults.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    if (!message.text().includes("registration blocked by Playwright")) faults.push(message.text());
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
  /** Open the page in a context of its own, made ready by `prepare(context)`, and wait until it may send. */
  static async open(browser, { user = newUser(), hash = "", ...options } = {}, prepare = undefined) {
    const context = await browser.newContext({ ...CONTEXT, ...options });
    await prepare?.(context);
    context.setDefaultTimeout(60_000); // for a machine that is very busy
    const page = await context.newPage();
    const chat = new ChatPage(page, await watch(page));
    await chat.visit({ user, hash });
    return chat;
  }

  async visit({ user, hash = "" }) {
    this.user = user;
    await this.page.goto(`${LEGATO_URL}/?user=${user}${hash}`);
    await this.isConnected();
  }

  /** Open the page anew as another user, which is cheaper than a context: no route or fault is left. */
  async reopen(user = newUser()) {
    await this.page.goto("about:blank");
    await this.page.unrouteAll({ behavior: "ignoreErrors" });
    await this.page.context().unrouteAll({ behavior: "ignoreErrors" });
    this.faults.length = 0;
    await this.visit({ user });
  }

  /** @param faults what {@link watch} gave, if somebody watches */
  constructor(page, faults = []) {
    this.page = page;
    this.faults = faults;
    this.draft = page.getByLabel("Message", { exact: true });
    this.sendButton = page.getByRole("button", { name: "Send" });
    this.stopButton = page.getByRole("button", { name: "Stop" });
    this.retryButton = page.getByRole("button", { name: "Retry" });
    this.replies = page.locator('[data-testid="turn"][data-role="assistant"]');
    this.conversations = page.getByTestId("conversation");
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

  async reload() {
    await this.page.reload();
    await this.isConnected();
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

  /** Wait until a reply shows this text. */
  async shows(text, index = 0) {
    await this.replies.nth(index).getByTestId("text").filter({ hasText: text }).waitFor();
  }

  close() {
    return this.page.context().close();
  }
}
