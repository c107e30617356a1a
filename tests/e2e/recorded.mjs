// A reply as a worker publishes it, event by event, over the HTTP API and real sockets. Only the
// answers about the message itself are made up, in the browser.

import Pusher from "pusher";

import { SDK_OPTIONS } from "./legato.mjs";

let made = 0;

const api = new Pusher(SDK_OPTIONS);

/** Send an event on the channel of a user. */
export const publish = (user, event, data) => api.trigger(`private-ai-chat.${user}`, event, data);

/** A reply of which a test publishes one entry after the other, as the log of a worker counts them. */
export class Recorded {
  #offset = 0;
  #tokens = 0;
  #text = "";

  constructor(user) {
    this.id = `recorded-${(made += 1)}`;
    this.user = user;
    this.parts = [];
    this.status = "streaming";
  }

  /** What `GET /api/chat/{id}` answers. */
  get log() {
    return {
      text: this.#text,
      tokens: this.#text.match(/\S+\s*/g) ?? [],
      nextIndex: this.#tokens,
      attempt: 1,
      status: this.status,
      offset: this.#offset,
      parts: this.parts,
    };
  }

  #publish(event, data) {
    return publish(this.user, event, data);
  }

  /** What `GET /api/conversations/{id}` answers, once it was asked for. */
  get conversation() {
    const { conversation_id: id, message, parent_id } = this.request;
    const created_at = new Date().toISOString();
    const isOpen = ["streaming", "waiting"].includes(this.status);
    const common = { message_id: this.id, created_at };
    const content = isOpen ? "" : this.#text;
    const turns = [
      { ...common, role: "assistant", parent_id: this.id, content, status: this.status },
      { ...common, role: "user", parent_id, content: message, status: "complete" },
    ];
    return { id, title: message, created_at, updated_at: created_at, turns, next: null };
  }

  started(model) {
    return this.#publish("stream.started", { messageId: this.id, attempt: 1, model });
  }

  async text(...tokens) {
    for (const token of tokens) {
      const data = { userId: this.user, messageId: this.id, token, tokenIndex: this.#tokens };
      await this.#publish("token.received", data);
      this.#text += token;
      this.#tokens += 1;
      this.#offset += 1;
    }
  }

  async part(event, data) {
    const place = { offset: this.#offset, tokenIndex: this.#tokens };
    this.parts.push({ event, ...place, ...data });
    this.#offset += 1;
    await this.#publish(event, { messageId: this.id, ...place, ...data });
  }

  async reason(...deltas) {
    for (const delta of deltas) await this.part("reasoning.received", { delta });
  }

  called(call, name, input) {
    return this.part("tool.called", { call, name, input });
  }

  async asked(call, name, input) {
    await this.called(call, name, input);
    const expiresAt = Math.floor(Date.now() / 1000) + 259_200;
    await this.part("tool.approval_requested", { call, name, input, expiresAt });
  }

  decided(call, approve, more = {}) {
    return this.part("tool.approval_decided", { call, approve, ...more });
  }

  finished(call, name, more) {
    return this.part("tool.finished", { call, name, ...more });
  }

  step(step) {
    const usage = { input: 40, output: 12, cacheRead: 0, cacheWrite: 0 };
    return this.part("step.completed", { step, stopReason: "tool_use", usage });
  }

  cite(url, title) {
    return this.part("citation.received", { url, title });
  }

  async completed() {
    this.status = "complete";
    const usage = { input: 80, output: 30, cacheRead: 0, cacheWrite: 0 };
    const data = { userId: this.user, messageId: this.id, totalTokens: this.#tokens };
    await this.#publish("stream.completed", { ...data, stopReason: "end_turn", usage });
  }

  async failed(error, code) {
    this.status = "failed";
    await this.#publish("stream.failed", {
      userId: this.user,
      messageId: this.id,
      error,
      code,
      partial: false,
    });
  }
}

/** Have the page's next message answered by `reply`. `decide(request)` answers about approvals. */
export async function answerFor(chat, reply, decide) {
  chat.decisions = [];
  const context = chat.page.context();
  const path = `**/api/chat/${reply.id}`;
  await context.unroute("**/api/chat/send");
  await context.route("**/api/chat/send", (route) => {
    reply.request = route.request().postDataJSON();
    return route.fulfill({ json: { message_id: reply.id } });
  });
  await context.route(/\/api\/conversations\/./, (route) => {
    const isOwn = route.request().url().includes(`/${reply.request?.conversation_id}?`);
    return isOwn ? route.fulfill({ json: reply.conversation }) : route.fallback();
  });
  await context.route(new RegExp(`/api/chat/${reply.id}(\\?|$)`), (route) =>
    route.fulfill({ json: reply.log }),
  );
  await context.route(`${path}/cancel`, (route) => route.fulfill({ json: { cancelled: true } }));
  await context.route(`${path}/tools/*`, async (route) => {
    const request = route.request();
    chat.decisions.push([
      new URL(request.url()).pathname.split("/").at(-1),
      request.postDataJSON(),
    ]);
    await route.fulfill((await decide?.()) ?? { json: {} });
  });
}

/** A reply that shows everything at once. */
export async function everything(reply) {
  await reply.reason("The user wants the weather and a mail about it. ", "First look it up.");
  await reply.text("I look up the weather in Oslo first, ", "then write the mail.\n\n");
  await reply.called("c1", "weather", { city: "Oslo", unit: "c" });
  await reply.called("c2", "find_contact", { name: "Ann" });
  await reply.step(1);
  await reply.finished("c1", "weather", { ok: true, output: { temperature: 7, sky: "rain" } });
  await reply.finished("c2", "find_contact", { ok: false, error: "The directory did not answer." });
  await reply.reason("Rain. The address has to come from elsewhere.");
  await reply.text("It is 7 °C and raining");
  await reply.cite("https://example.org/weather/oslo", "Weather in Oslo");
  await reply.text(", until the evening");
  await reply.cite("https://example.org/forecast", "Forecast for eastern Norway");
  await reply.text(".");
  await reply.asked("c3", "send_mail", {
    to: "ann@example.org",
    subject: "Weather",
    body: "It is 7 °C and raining in Oslo, until the evening.",
  });
  await reply.step(2);
}
