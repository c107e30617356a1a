// A page with a plain `EventSource`, that of npm, which is left to come back by itself.

import assert from "node:assert/strict";
import { EventSource } from "eventsource";

import { LEGATO_URL, until } from "../legato.mjs";

export const ENDS = ["stream.completed", "stream.failed", "stream.cancelled"];
const EVENTS = [
  ...ENDS,
  "stream.started",
  "token.received",
  "reasoning.received",
  "tool.started",
  "tool.delta",
  "tool.ready",
  "tool.result",
  "step.completed",
];

/** Reads a reply as a page does that leaves it to the client to come back. */
export class Page {
  heard = [];
  ids = [];

  constructor(url) {
    this.source = new EventSource(url);
    for (const name of EVENTS) {
      this.source.addEventListener(name, ({ data, lastEventId }) => {
        this.heard.push([name, JSON.parse(data)]);
        this.ids.push(Number(lastEventId));
      });
    }
  }

  get text() {
    return this.heard
      .filter(([name]) => name === "token.received")
      .map(([, { token }]) => token)
      .join("");
  }

  get names() {
    return this.heard.map(([name]) => name);
  }

  /** Wait until the client has been told that there is nothing more (204). */
  async ends(end) {
    await until("the client to stop", () => this.source.readyState === EventSource.CLOSED);
    assert.equal(this.names.filter((name) => ENDS.includes(name)).length, 1);
    assert.equal(this.names.at(-1), end);
    assert.deepEqual(
      this.ids,
      this.ids.map((_, at) => at),
    );
  }
}

export const open = async (person, id, url = LEGATO_URL) =>
  new Page(`${url}/api/chat/${id}/events${await person.query(id)}`);
