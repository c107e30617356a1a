// People with tabs, whose ways are drawn by a seed, and what has to be true of each tab in the end.

import assert from "node:assert/strict";

import { getToken, LEGATO_URL, newUser, until, words } from "../legato.mjs";
import { faultsIn, hasEnd, pauses } from "./audit.mjs";
import { dice } from "./dice.mjs";

export const RATE = 100;

/** Milliseconds: on a busy machine a page stands still for most of a minute. */
const PATIENCE = 180_000;

/** Two long texts are the same; else, where they begin to differ. */
function areSame(what, text = "", expected) {
  if (text === expected) return;
  const at = [...expected].findIndex((character, index) => character !== text[index]);
  const from = Math.max(0, at < 0 ? expected.length : at) - 20;
  assert.fail(
    `${what}: …${text.slice(from, from + 60)} instead of …${expected.slice(from, from + 60)}`,
  );
}

/** In the page: what a person who looks for a fault wants to know. */
function state() {
  if (!window.tab) return "no script";
  const { chat, echo, ledger, replies } = window.tab;
  const turns = replies().map(({ text, ...rest }) => ({ ...rest, text: text.slice(-20) }));
  const socket = echo.connector.pusher.connection.state;
  const now = performance.timeOrigin + performance.now();
  const { connection, conversation } = chat.getSnapshot();
  return JSON.stringify([now, socket, connection, conversation, turns, ledger.slice(-5)]);
}

export class Tab {
  /** Ledgers of the page before it was loaded again. */
  #earlier = [];
  faults = [];

  static async load(context, base, query) {
    const tab = new Tab(await context.newPage());
    tab.page.on("pageerror", (error) => tab.faults.push(`exception: ${error.message}`));
    await tab.page.goto(`${base}/recovery.html?${new URLSearchParams(query)}`);
    return tab;
  }

  constructor(page) {
    this.page = page;
  }

  /** Wait for a condition in the page, and give what it gives. Also in a page that is not in front. */
  async waitFor(what, condition, argument) {
    try {
      const options = { timeout: PATIENCE, polling: 100 };
      return await (await this.page.waitForFunction(condition, argument, options)).jsonValue();
    } catch {
      return assert.fail(`no ${what}: ${await this.page.evaluate(state)}`);
    }
  }

  isLive() {
    return this.waitFor("connection", () => window.tab?.isLive());
  }

  async reload() {
    this.#earlier.push(await this.page.evaluate(() => window.tab.ledger));
    this.faults.push(...(await this.page.evaluate(() => window.tab.faults)));
    await this.page.reload();
  }

  /**
   * Wait until the package shows the end of the reply, and the listener has been told of it, unless it has subscribed
   * since then. Gives what this tab was told of the reply.
   */
  async ended(id) {
    const text = await this.waitFor(
      `end of ${id}`,
      (id) =>
        window.tab?.replies().find((reply) => reply.messageId === id && reply.status === "complete")
          ?.text,
      id,
    );
    await this.waitFor(`end for the listener of ${id}`, (id) => window.tab.isSettled(id), id);
    const { ledger, texts, faults } = await this.page.evaluate(() => {
      const { ledger, texts, faults } = window.tab;
      return { ledger, texts, faults };
    });
    return {
      text,
      heard: texts[id],
      pauses: pauses(ledger, id),
      ledgers: [...this.#earlier, ledger],
      faults: [...this.faults, ...faults],
    };
  }

  async heap() {
    const session = await this.page.context().newCDPSession(this.page);
    await session.send("HeapProfiler.collectGarbage");
    const { usedSize } = await session.send("Runtime.getHeapUsage");
    return usedSize / 1e6;
  }
}

export class Person {
  tabs = [];
  #contexts = [];
  #links = [];

  /** Whether the server keeps no conversation, but the page does. */
  isPlain = false;

  constructor(browser, links, seed) {
    this.browser = browser;
    this.links = links;
    this.seed = seed;
    this.random = dice(seed);
    this.user = newUser();
  }

  /** A number of milliseconds from `least` up to `most`, by the seed. */
  between(least, most) {
    return Math.round(least + this.random() * (most - least));
  }

  async device(options = {}) {
    const context = await this.browser.newContext(options);
    this.#contexts.push(context);
    return context;
  }

  async link() {
    const link = await this.links.open();
    this.#links.push(link);
    return link;
  }

  /** A tab that has everything but a connection, until {@link join}. */
  load(context, base = LEGATO_URL, more = { waits: "" }) {
    const plain = this.isPlain ? { plain: "" } : {};
    return Tab.load(context, base, { user: this.user, ...plain, ...more });
  }

  async open(context, base) {
    const tab = await this.load(context, base, {});
    this.tabs.push(tab);
    await tab.isLive();
    return tab;
  }

  async join(tab) {
    this.tabs.push(tab);
    await tab.page.evaluate(() => window.join());
    await tab.isLive();
    await tab.page.evaluate((id) => window.tab.chat.open(id), this.conversation);
  }

  /** Ask for a reply in this tab. */
  async asks(tab, tokens) {
    this.tokens = tokens;
    const text = `#script tokens=${tokens} rate=${RATE}`;
    assert.ok(await tab.page.evaluate((text) => window.tab.chat.send(text), text));
    this.id = await tab.waitFor("message id", () => window.tab.replies().at(-1)?.messageId);
    if (this.isPlain) return;
    this.conversation = await tab.page.evaluate(
      () => window.tab.chat.getSnapshot().conversation.id,
    );
    const open = (id) => window.tab.chat.open(id);
    const others = this.tabs.filter((other) => other !== tab);
    await Promise.all(others.map((other) => other.page.evaluate(open, this.conversation)));
  }

  /** All tabs show the reply, whole, as the log has it; no listener missed an index or heard one twice. */
  async areWhole() {
    const found = await Promise.all(this.tabs.map((tab) => tab.ended(this.id)));
    const log = await until("the log", () => this.#log().catch(() => null));
    assert.equal(log.status, "complete");
    this.attempt = log.attempt;
    areSame("the log", log.text, words(0, this.tokens).join(""));
    for (const [index, { text, heard, ledgers, faults }] of found.entries()) {
      areSame(`shown in tab ${index}`, text, log.text);
      if (hasEnd(ledgers.at(-1), this.id)) areSame(`heard in tab ${index}`, heard, log.text);
      assert.deepEqual(faults, []);
      for (const ledger of ledgers) {
        assert.deepEqual(faultsIn(ledger, this.id, ledger === ledgers.at(-1)), []);
      }
    }
    return found;
  }

  /** Of a node, which may be killed just now. */
  async #log() {
    const headers = { Authorization: `Bearer ${await getToken(this.user)}` };
    return (await fetch(`${LEGATO_URL}/api/chat/${this.id}`, { headers })).json();
  }

  async close() {
    await Promise.all(this.#contexts.map((context) => context.close()));
    await Promise.all(this.#links.map((link) => link.close()));
  }
}
