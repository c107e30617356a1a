// A page with a stock Echo that shows a reply by the events of Laravel's AI SDK, and knows the snapshot.

import Echo from "laravel-echo";
import Pusher from "pusher-js";

import { echoOptions } from "../legato.mjs";

export class Listener {
  text = "";
  ends = [];
  subscriptions = 0;
  #next = 0;

  static async start(person) {
    const listener = new Listener();
    listener.person = person;
    listener.echo = new Echo({ Pusher, ...echoOptions(person.token) });
    const channel = listener.echo.private(`ai-chat.${person.user}`);
    channel.listen(".text_delta", (event) => listener.#take(event));
    channel.listen(".stream_snapshot", (event) => listener.#replace(event));
    for (const name of ["stream_end", "stream_failed"])
      channel.listen(`.${name}`, () => listener.ends.push(name));
    await new Promise((resolve, reject) =>
      channel
        .subscribed(() => {
          listener.subscriptions += 1;
          if (listener.subscriptions > 1) void listener.#ask();
          resolve();
        })
        .error(reject),
    );
    return listener;
  }

  #take({ index, delta }) {
    if (index < this.#next) return; // the snapshot has it
    this.text += delta;
    this.#next = index + 1;
  }

  #replace({ index, text }) {
    this.text = text;
    this.#next = index;
  }

  /** Subscribed again. There is a snapshot of a reply that streams, but none of one that has ended meanwhile. */
  async #ask() {
    const { status, text } = await this.person.call("GET", `/api/chat/${this.id}`);
    if (status !== "complete" || this.ends.length > 0) return;
    this.text = text;
    this.#next = Infinity;
    this.ends.push("GET");
  }

  async send(message) {
    this.id = await this.person.send(message, { dialect: "laravel-ai" });
  }

  close() {
    this.echo.disconnect();
  }
}
