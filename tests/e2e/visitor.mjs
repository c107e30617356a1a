// A user of the application in a page of Chromium, with stock scripts: what the listeners there are
// told, and everything that goes wrong.

import assert from "node:assert/strict";
import { after, afterEach, before } from "node:test";

import { Application, fresh } from "./application.mjs";
import { launch, watch } from "./browser.mjs";
import { until } from "./legato.mjs";

/** In the page: `hear(of, ...mark)` is a listener that notes its mark and what it is told. */
function prepare() {
  window.heard = {};
  window.hear =
    (of, ...mark) =>
    (...told) =>
      (window.heard[of] ??= []).push([...mark, ...told]);
}

/** In the page, when there is a pusher-js: the means to wait until all that was sent has arrived. */
function connect(own) {
  const { pusher } = window;
  pusher.subscribe(own).bind("sentinel", (sentinel) => (window.sentinel = sentinel));
  window.ping = () =>
    new Promise((resolve) => {
      const isPong = ({ event }) => {
        if (event !== "pusher:pong") return;
        pusher.connection.unbind("message", isPong);
        resolve();
      };
      pusher.connection.bind("message", isPong);
      pusher.send_event("pusher:ping", {});
    });
}

/** What pusher-js gives a listener: the data, and the client that sent it where that is known. */
export const event = (data, sender) => [data, sender === undefined ? {} : { user_id: sender }];

/** For all scenarios of a file: `set(app, browser)` is told the application and the Chromium that are there. */
export function share(set) {
  let app;
  let browser;
  before(async () => {
    app = await Application.start();
    browser = await launch();
    set(app, browser);
  });
  afterEach(() => Visitor.closeAll());
  after(async () => {
    await browser?.close();
    await app?.stop();
  });
}

export class Visitor {
  static #open = [];

  /** What `watch` of browser.mjs sees there. */
  faults = [];
  own = fresh("sentinel-");

  /**
   * Open the application's page in a context of its own, add the scripts (as Playwright's
   * `addScriptTag` takes them), and run `configure(options)` there: it must set `window.pusher`.
   */
  static async open(browser, application, { scripts, configure, options }) {
    const context = await browser.newContext();
    const visitor = new Visitor(application, await context.newPage());
    Visitor.#open.push(visitor);
    visitor.faults = await watch(visitor.page);
    await visitor.page.addInitScript(prepare);
    await visitor.page.goto(application.url);
    for (const script of scripts) await visitor.page.addScriptTag(script);
    await visitor.run(configure, options);
    await visitor.run(connect, visitor.own);
    await visitor.isSubscribed(visitor.own);
    return visitor;
  }

  /** Close what one scenario opened: nothing went wrong there that it did not expect. */
  static async closeAll() {
    const visitors = Visitor.#open.splice(0);
    await Promise.all(visitors.map((visitor) => visitor.close()));
    for (const visitor of visitors) visitor.failed();
  }

  constructor(application, page) {
    this.application = application;
    this.page = page;
  }

  /** Run a function in the page: it sees nothing but its argument and the page's `window`. */
  run(action, argument) {
    return this.page.evaluate(action, argument);
  }

  isSubscribed(...channels) {
    const areSubscribed = (names) => names.every((name) => pusher.channel(name)?.subscribed);
    return until(`subscriptions to ${channels}`, () => this.run(areSubscribed, channels));
  }

  /** The names of the channels that its pusher-js has, in order. */
  async channels() {
    const names = await this.run(() => pusher.allChannels().map(({ name }) => name));
    return names.filter((name) => name !== this.own).toSorted();
  }

  /** Wait until all that the server had for this page has arrived. */
  async settle() {
    await this.run(() => window.ping());
    const sentinel = fresh("");
    await this.application.sdk.trigger(this.own, "sentinel", sentinel);
    const isHeard = (sentinel) => window.sentinel === sentinel;
    await until("the sentinel", () => this.run(isHeard, sentinel));
  }

  /** Each listener was told exactly this since it was asked last, in this order. */
  async hears(expected) {
    const count = (told) => Object.values(told).flat().length;
    const enough = async () => count(await this.run(() => window.heard)) >= count(expected);
    await until("enough calls", enough).catch(() => {}); // what came instead says more
    await this.settle();
    const heard = await this.run(() => {
      const heard = window.heard;
      window.heard = {};
      return heard;
    });
    assert.deepEqual(heard, expected);
  }

  /** What went wrong until now is as expected, and forgotten. */
  failed(...patterns) {
    const faults = this.faults.splice(0);
    assert.equal(faults.length, patterns.length, faults.join("\n"));
    for (const [index, pattern] of patterns.entries()) assert.match(faults[index], pattern);
  }

  /** Close the page as a person closes a tab. */
  close() {
    return this.page.context().close();
  }
}
