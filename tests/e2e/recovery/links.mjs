// Bad networks: ports that lead to the server, with faults (links.py).

import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";

export class Links {
  static async start() {
    const socket = connect(Number(process.env.LINKS_PORT), "127.0.0.1");
    await once(socket, "connect");
    return new Links(socket);
  }

  #socket;
  #waiting = [];

  constructor(socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on("line", (line) =>
      this.#waiting.shift()(JSON.parse(line)),
    );
  }

  order(...order) {
    this.#socket.write(`${JSON.stringify(order)}\n`);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async open() {
    return new Link(this, await this.order("open"));
  }

  close() {
    this.#socket.end();
  }
}

class Link {
  #links;
  #port;

  constructor(links, port) {
    this.#links = links;
    this.#port = port;
    this.url = `http://127.0.0.1:${port}`;
  }

  /** From now on so many bytes per second reach the browser. */
  limit(rate) {
    return this.#links.order("rate", this.#port, rate);
  }

  /** Nothing reaches the browser, and nobody is told. */
  mute() {
    return this.#links.order("mute", this.#port);
  }

  /** End that. What was held back is lost with its connections. */
  heal() {
    return this.#links.order("heal", this.#port);
  }

  close() {
    return this.#links.order("close", this.#port);
  }
}
