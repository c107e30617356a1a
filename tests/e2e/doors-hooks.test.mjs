// The hooks of @laravel/stream-react and of @ai-sdk/react in Chromium, bundled as an application bundles them, against a real
// worker.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { build } from "esbuild";

import { launch } from "./browser.mjs";
import { LIMIT, Person, SCRIPTS } from "./doors.mjs";
import { LEGATO_URL, until, words } from "./legato.mjs";

let browser;
let bundle;
let page;

before(async () => {
  const { outputFiles } = await build({
    entryPoints: ["hooks/doors.mjs"],
    bundle: true,
    write: false,
    format: "iife",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  bundle = outputFiles[0].text;
  browser = await launch();
});

after(() => browser.close());

afterEach(() => page.close());

/** A page of the application, on the server's own origin. */
async function visit() {
  page = await browser.newPage();
  await page.route(`${LEGATO_URL}/application`, (route) =>
    route.fulfill({ contentType: "text/html", body: "<!doctype html><body></body>" }),
  );
  await page.goto(`${LEGATO_URL}/application`);
  await page.addScriptTag({ content: bundle });
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

async function useEventStream(name, options) {
  const person = await Person.start();
  const [message, text] = SCRIPTS[name];
  const id = await person.send(message);
  await visit();
  const query = await person.query(id);
  await page.evaluate(
    ({ url, options }) => {
      window.told = { completed: 0, failed: 0 };
      window.mount(() => {
        const { message } = window.hooks.useEventStream(url, {
          ...options,
          onComplete: () => (window.told.completed += 1),
          onError: () => (window.told.failed += 1),
        });
        return { message };
      });
    },
    { url: `/api/chat/${id}/updates${query}${options.replace ? "&mode=replace" : ""}`, options },
  );
  return { person, id, text };
}

for (const [mode, options] of Object.entries({ delta: { glue: "" }, replace: { replace: true } })) {
  test(`useEventStream shows the text, mode ${mode}`, LIMIT, async () => {
    const { text } = await useEventStream("plain", options);
    await isTold({ completed: 1, failed: 0 });
    await shows("the text", ({ message }) => message === text);
  });
}

test("useEventStream of a reply that is cancelled keeps its text", LIMIT, async () => {
  const { person, id } = await useEventStream("endless", { glue: "" });
  await shows("some text", ({ message }) => message?.includes("w2 "));
  await person.cancel(id);
  const { text } = await person.stored(id);
  await isTold({ completed: 1, failed: 0 });
  await shows("the text", ({ message }) => message === text);
});

test("useEventStream of a reply that fails keeps its text, and says so", LIMIT, async () => {
  const { text } = await useEventStream("failing", { glue: "" });
  await isTold({ completed: 0, failed: 1 });
  await shows("the text", ({ message }) => message === text);
});

/** Send a message with `useStream`, and wait for what it comes to. */
async function useStream(message, person) {
  await visit();
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

test("useStream sends a message and shows the text", LIMIT, async () => {
  const person = await Person.start();
  const [message, text] = SCRIPTS.tool;
  await useStream(message, person);
  await shows("the text", ({ data, isStreaming }) => data === text && !isStreaming);
  await until("the finish", async () => (await told()).finished === 1);
  const { id, failed } = await told();
  assert.equal(failed, "");
  assert.equal((await person.stored(id)).text, text);
});

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

test("cancel() of useStream cancels the reply", LIMIT, async () => {
  const person = await Person.start();
  await useStream(SCRIPTS.endless[0], person);
  await shows("some text", ({ data }) => data?.includes("w2 "));
  await page.evaluate(() => window.stream.cancel());
  assert.equal((await person.stored((await told()).id)).status, "cancelled");
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
  await page.reload();
  await page.addScriptTag({ content: bundle });
  await useChat(person, id);
  const { text } = await shows(
    "the end of the reply",
    ({ status, text }) => status === "ready" && text.includes("w89 "),
  );
  assert.equal(text, words(0, 90).join(""));
});
