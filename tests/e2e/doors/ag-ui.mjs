// A page with `HttpAgent` of @ag-ui/client.

import assert from "node:assert/strict";
import { HttpAgent } from "@ag-ui/client";

import { Person } from "../doors.mjs";
import { LEGATO_URL } from "../legato.mjs";

/** The client leaves a rejection behind where a connection breaks, which node:test would take for a failure. */
export function ignoreRejections() {
  process.removeAllListeners("unhandledRejection");
  process.on("unhandledRejection", () => {});
}

export class Thread {
  static async start(message, { person, url = LEGATO_URL } = {}) {
    const ids = { threadId: crypto.randomUUID(), runId: crypto.randomUUID() };
    return new Thread(person ?? (await Person.start()), message, ids, url);
  }

  constructor(person, message, { threadId, runId }, url = LEGATO_URL) {
    Object.assign(this, { person, message, threadId, runId });
    this.agent = new HttpAgent({
      url: `${url}/api/ag-ui`,
      threadId,
      headers: person.headers,
      initialMessages: [{ id: "u1", role: "user", content: message }],
    });
  }

  /** As a page that is loaded again: it knows what it has asked, and in which run. */
  reload() {
    return new Thread(this.person, this.message, this);
  }

  run({ runId = this.runId, ...more } = {}) {
    this.outcome = undefined;
    return this.agent.runAgent(
      { runId, ...more },
      {
        onRunFinishedEvent: ({ event }) => void (this.outcome = event.outcome),
        onRunErrorEvent: ({ event }) => void (this.error = event),
      },
    );
  }

  of(role) {
    return this.agent.messages.filter((message) => message.role === role);
  }

  get text() {
    return this.of("assistant")
      .map(({ content }) => content ?? "")
      .join("");
  }

  get id() {
    return this.of("assistant")[0].id;
  }

  async hasStored() {
    assert.equal(this.text, (await this.person.stored(this.id)).text);
  }
}
