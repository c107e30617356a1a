// The hooks of @laravel/stream-react, @laravel/stream-vue and @ai-sdk/react in Chromium, bundled as an application bundles
// them, against a real worker.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { Hooks } from "./doors/hooks.mjs";
import { LIMIT, Person, SCRIPTS } from "./doors.mjs";
import { until, words } from "./legato.mjs";

let hooks;
let visited;
let page;

before(async () => {
  hooks = await Hooks.start();
});

after(() => hooks.close());

afterEach(() => page.close());

async function visit(script) {
  visited = await hooks.visit(script);
  page = visited.page;
}

const shown = async () => JSON.parse((await page.innerText("output")) || "{}");
const shows = (what, holds) =>
  until(what, async () => {
    const state = await shown();
    return holds(state) && state;
  });

const told = () => page.evaluate(() => window.told);
const isTold = async (expected) =>
  until("the end", async () => isDeepStrictEqual(await told(), expected));

async function useEventStream(name, options, script) {
  const person = await Person.start();
  const [message, text] = SCRIPTS[name];
  const id = await person.send(message);
  await visit(script);
  const query = await person.query(id);
  const url = `/api/chat/${id}/updates${query}${options.replace ? "&mode=replace" : ""}`;
  const mount = () => page.evaluate(readWithHook, { url, options });
  await mount();
  return { person, id, text, mount };
}

/** In the page. */
function readWithHook({ url, options }) {
  window.told = { completed: 0, failed: 0 };
  window.mount(() => {
    const { message } = window.hooks.useEventStream(url, {
      ...options,
      onComplete: () => (window.told.completed += 1),
      onError: () => (window.told.failed += 1),
    });
    return { message };
  });
}

for (const [what, options, script] of [
  ["useEventStream shows the text", { glue: "" }],
  ["useEventStream shows the text, mode replace", { replace: true }],
  ["useEventStream of Vue shows the text", { glue: "" }, "stream-vue"],
]) {
  test(what, LIMIT, async () => {
    const { text } = await useEventStream("plain", options, script);
    await isTold({ completed: 1, failed: 0 });
    await shows("the text", ({ message }) => message === text);
  });
}

test(
  "useEventStream has all of the text after a reload, and keeps it when cancelled",
  LIMIT,
  async () => {
    const { person, id, mount } = await useEventStream("endless", { glue: "" });
    await shows("some text", ({ message }) => message?.includes("w2 "));
    await visited.reload();
    await mount();
    await shows("more text", ({ message }) => message?.includes("w9 "));
    await person.cancel(id);
    const { text } = await person.stored(id);
    await isTold({ completed: 1, failed: 0 });
    await shows("the text", ({ message }) => message === text);
  },
);

test("useEventStream of a reply that fails keeps its text, and says so", LIMIT, async () => {
  const { text } = await useEventStream("failing", { glue: "" });
  await isTold({ completed: 0, failed: 1 });
  await shows("the text", ({ message }) => message === text);
});

/** Send a message with `useStream`, and wait for what it comes to. */
async function useStream(message, person, script) {
  await visit(script);
  await page.evaluate(
    ({ headers, message }) => {
      window.told = { id: "", failed: "", finished: 0, cancelled: 0 };
      let sent = false;
      window.mount(() => {
        const stream = window.hooks.useStream("/api/chat/text", {
          headers,
          onResponse: (response) => (window.told.id = response.headers.get("x-message-id")),
          onError: ({ message }) => (window.told.failed = message),
          onFinish: () => (window.told.finished += 1),
          onCancel: () => (window.told.cancelled += 1),
        });
        window.stream = stream;
        if (!sent) setTimeout(() => stream.send({ message }));
        sent = true;
        return { data: stream.data, isStreaming: stream.isStreaming };
      });
    },
    { headers: person.headers, message },
  );
}

for (const [what, script] of [["useStream"], ["useStream of Vue", "stream-vue"]]) {
  test(`${what} sends a message and shows the text`, LIMIT, async () => {
    const person = await Person.start();
    const [message, text] = SCRIPTS.tool;
    await useStream(message, person, script);
    await shows("the text", ({ data, isStreaming }) => data === text && !isStreaming);
    await until("the finish", async () => (await told()).finished === 1);
    const { id, failed } = await told();
    assert.equal(failed, "");
    assert.equal((await person.stored(id)).text, text);
  });

  test(`cancel() of ${what} cancels the reply`, LIMIT, async () => {
    const person = await Person.start();
    await useStream(SCRIPTS.endless[0], person, script);
    await shows("some text", ({ data }) => data?.includes("w2 "));
    await page.evaluate(() => window.stream.cancel());
    assert.equal((await person.stored((await told()).id)).status, "cancelled");
  });
}

test("useStream shows the sentence of a refusal", LIMIT, async () => {
  await useStream(" ", await Person.start());
  await until(
    "the refusal",
    async () => (await told()).failed === "Expected text that is not blank",
  );
});

test("useStream of a reply that fails keeps its text, and says so", LIMIT, async () => {
  const [message, text] = SCRIPTS.failing;
  await useStream(message, await Person.start());
  await until("the failure", async () => (await told()).failed);
  await shows("the text", ({ data }) => data === text);
});

/** A page with `useChat({ resume: true })`, as the AI SDK's documents have it. */
async function useChat(person, id) {
  await page.evaluate(
    ({ headers, id }) => {
      const transport = new window.hooks.DefaultChatTransport({ headers });
      window.mount(() => {
        const chat = window.hooks.useChat({ id, transport, resume: true });
        window.chat = chat;
        const parts = chat.messages.findLast(({ role }) => role === "assistant")?.parts ?? [];
        return { status: chat.status, text: parts.map(({ text }) => text ?? "").join("") };
      });
    },
    { headers: person.headers, id },
  );
}

test("useChat shows the whole reply after a reload in its middle", LIMIT, async () => {
  const person = await Person.start();
  const id = crypto.randomUUID();
  await visit();
  await useChat(person, id);
  await shows("an idle chat", ({ status }) => status === "ready");
  await page.evaluate(() => {
    void window.chat.sendMessage({ text: "#script rate=30 tokens=90" });
  });
  await shows("some text", ({ text }) => text?.includes("w2 "));
  await visited.reload();
  await useChat(person, id);
  const { text } = await shows(
    "the end of the reply",
    ({ status, text }) => status === "ready" && text.includes("w89 "),
  );
  assert.equal(text, words(0, 90).join(""));
});
