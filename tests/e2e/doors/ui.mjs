// A page with `Chat` of @ai-sdk/react, which is behind `useChat`, and its default transport.

import assert from "node:assert/strict";
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

import { Person } from "../doors.mjs";
import { LEGATO_URL } from "../legato.mjs";

const SDK = { Chat, DefaultChatTransport };

/** Those of version 5 or 7. */
export async function sdkOf(version) {
  const [{ Chat }, { DefaultChatTransport }] = await Promise.all([
    import(`ai-react${version}`),
    import(`ai${version}`),
  ]);
  return { Chat, DefaultChatTransport };
}

export class Talk {
  /** `sdk`: the `Chat` and the `DefaultChatTransport` of another version. */
  static async start(person, id = crypto.randomUUID(), url = LEGATO_URL, sdk = SDK) {
    const talk = new Talk();
    talk.sdk = sdk;
    talk.person = person ?? (await Person.start());
    talk.finished = [];
    talk.chat = new sdk.Chat({
      id,
      transport: new sdk.DefaultChatTransport({
        api: `${url}/api/chat`,
        headers: talk.person.headers,
      }),
      onFinish: (finish) => talk.finished.push(finish),
    });
    return talk;
  }

  /** As a page that is loaded again: nothing is known but the chat's id. */
  reload(url) {
    return Talk.start(this.person, this.chat.id, url, this.sdk);
  }

  get reply() {
    return this.chat.messages.at(-1);
  }

  get text() {
    return (this.reply?.parts ?? [])
      .filter(({ type }) => type === "text")
      .map(({ text }) => text)
      .join("");
  }

  async stopOnServer() {
    const stop = `/api/chat/${encodeURIComponent(this.chat.id)}/stop`;
    assert.deepEqual(await this.person.call("POST", stop, {}), { success: true });
  }

  async hasStored() {
    assert.equal(this.text, (await this.person.stored(this.reply.id)).text);
  }
}
