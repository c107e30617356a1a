// A page with the SDK of OpenAI.

import OpenAI from "openai";

import { LEGATO_URL } from "../legato.mjs";

export const sdk = (person, url = LEGATO_URL) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: person.token });

/** A completion in a stream. Each `read()` asks for the same one, from its beginning. */
export class Completion {
  #key = crypto.randomUUID();
  text = "";

  constructor(person, message, url) {
    this.client = sdk(person, url);
    this.body = { model: "legato", messages: [{ role: "user", content: message }], stream: true };
  }

  async read() {
    this.text = "";
    this.reasons = [];
    const headers = { "Idempotency-Key": this.#key };
    for await (const { id, choices } of await this.client.chat.completions.create(this.body, {
      headers,
    })) {
      this.id = id.replace("chatcmpl-", "");
      this.text += choices[0].delta.content ?? "";
      if (choices[0].finish_reason) this.reasons.push(choices[0].finish_reason);
    }
    if (this.reasons.length === 0) throw new Error("the stream has ended without a reason");
  }
}
