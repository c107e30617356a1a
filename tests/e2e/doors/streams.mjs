// A page with the stock client of Durable Streams.

import assert from "node:assert/strict";
import { stream } from "@durable-streams/client";

import { insist } from "../doors.mjs";
import { LEGATO_URL, until } from "../legato.mjs";

export class Reading {
  messages = [];
  offset = "-1";
  breaks = 0;

  static async start(person, id, options) {
    const reading = new Reading();
    await reading.#open(person, id, options);
    return reading;
  }

  /** Read to the end. The client repeats a request that fails, but no answer that breaks off: the page goes on. */
  static follow(person, id, options) {
    const reading = new Reading();
    reading.isOver = reading.#goOn(person, id, options);
    return reading;
  }

  async #open(person, id, { live = "long-poll", url = LEGATO_URL, ...more } = {}) {
    this.response = await stream({
      url: `${url}/api/streams/${id}`,
      headers: person.headers,
      live,
      offset: this.offset,
      ...more,
    });
    this.response.subscribeJson(({ items, offset }) => {
      this.messages.push(...items);
      this.offset = offset;
    });
  }

  async #goOn(person, id, options) {
    for (;;) {
      await insist("a stream", () => this.#open(person, id, options));
      const isClosed = await this.response.closed.then(
        () => true,
        () => false,
      );
      if (isClosed) return;
      this.breaks += 1;
    }
  }

  get kinds() {
    return this.messages.map(({ type }) => type);
  }

  get text() {
    const texts = this.messages.filter(({ type }) => type === "text");
    return texts.map(({ delta }) => delta).join("");
  }

  /** Wait until the stream is closed, and has all of the reply. */
  async ends(person, id, kind) {
    await this.response.closed;
    await until("the last message", () => this.kinds.at(-1) === kind);
    assert.equal(this.kinds[0], "started");
    assert.equal(this.kinds.filter((one) => one === kind).length, 1);
    assert.deepEqual(
      this.messages.map(({ i }) => i),
      this.messages.map((_, at) => at),
    );
    assert.equal(this.text, (await person.stored(id)).text);
  }
}
