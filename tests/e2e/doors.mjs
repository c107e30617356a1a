// What the scenarios of the doors share: a user, requests, and a line to the server that can be cut.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";

import { getToken, LEGATO_URL, newUser, pause, until, words } from "./legato.mjs";

export const LIMIT = { timeout: 180_000 };

/** What the scripted provider is asked, and the text of its answer. */
export const SCRIPTS = {
  plain: ["#script rate=200 tokens=20", words(0, 20).join("")],
  reasoning: ["#script rate=200 reason=3 tokens=4", words(0, 4).join("")],
  tool: ['#script rate=200 tokens=2 tool=weather:{"city":"Oslo"} tokens=2', words(0, 4).join("")],
  failing: ["#script rate=200 tokens=9 fail=refusal@4", words(0, 4).join("")],
  endless: ["#script rate=20 tokens=2000", ""],
};

/** Do it again and again until it is no longer refused, as a page does whose server is away. */
export async function insist(what, attempt) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (tries > 120) throw new Error(`${what} in vain: ${error.message}`);
      await pause(500);
    }
  }
}

export class Person {
  static async start() {
    const person = new Person();
    person.user = newUser();
    person.token = await getToken(person.user);
    person.headers = { authorization: `Bearer ${person.token}` };
    return person;
  }

  async call(method, path, body) {
    const response = await fetch(LEGATO_URL + path, {
      method,
      headers: { ...this.headers, ...(body && { "content-type": "application/json" }) },
      body: body && JSON.stringify(body),
    });
    assert.equal(response.status, 200, `${method} ${path}`);
    return response.json();
  }

  async send(message, more) {
    return (await this.call("POST", "/api/chat/send", { message, ...more })).message_id;
  }

  cancel(id) {
    return this.call("POST", `/api/chat/${id}/cancel`);
  }

  /** The reply's state as stored, once it has ended. */
  async stored(id) {
    return until("the end of the reply", async () => {
      const reply = await this.call("GET", `/api/chat/${id}`);
      return ["complete", "failed", "cancelled"].includes(reply.status) && reply;
    });
  }

  /** The query with which a page reads one reply without a header. */
  async query(id) {
    return `?token=${(await this.call("POST", `/api/chat/${id}/token`)).token}`;
  }
}

/** A line to the server. `cut()` breaks all its connections; new ones are accepted. */
export async function line() {
  const { hostname, port } = new URL(LEGATO_URL);
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => sockets.forEach((one) => one.destroy()),
    close: () => {
      sockets.forEach((one) => one.destroy());
      server.close();
    },
  };
}
