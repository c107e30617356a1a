// The SDK of OpenAI on replies of a real worker.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Completion, sdk } from "./doors/openai.mjs";
import { LIMIT, line, Person, SCRIPTS } from "./doors.mjs";
import { until, words } from "./legato.mjs";

async function connect() {
  const person = await Person.start();
  return [sdk(person), person];
}

const asked = (message, more) => ({
  model: "legato",
  messages: [
    { role: "system", content: "Be short." },
    { role: "user", content: message },
  ],
  ...more,
});

/** The text and the reasoning of a stream, by the SDK's own accumulator. */
async function reads(name, more) {
  const [client, person] = await connect();
  const [message, text] = SCRIPTS[name];
  const stream = client.chat.completions.stream(asked(message, more));
  let reasoning = "";
  stream.on("chunk", ({ choices }) => (reasoning += choices[0]?.delta.reasoning_content ?? ""));
  const completion = await stream.finalChatCompletion();
  assert.equal(completion.choices[0].message.content, text);
  const id = completion.id.replace("chatcmpl-", "");
  assert.equal((await person.stored(id)).text, text);
  return { completion, reasoning };
}

test("a plain reply in a stream, with its usage", LIMIT, async () => {
  const { completion } = await reads("plain", { stream_options: { include_usage: true } });
  assert.equal(completion.choices[0].finish_reason, "stop");
  assert.ok(completion.usage.completion_tokens > 0);
});

test("reasoning is passed on", LIMIT, async () => {
  assert.equal((await reads("reasoning")).reasoning, "r0 r1 r2 ");
});

test("a tool that the worker runs is not shown", LIMIT, async () => {
  const { completion } = await reads("tool");
  assert.equal(completion.choices[0].message.tool_calls, undefined);
});

test("responses: reasoning and text in a stream, whole, and one that fails", LIMIT, async () => {
  const [client, person] = await connect();
  const [input, text] = SCRIPTS.reasoning;
  const response = await client.responses.stream({ model: "legato", input }).finalResponse();
  assert.equal(response.status, "completed");
  assert.equal(response.output_text, text);
  assert.equal(response.output[0].summary[0].text, "r0 r1 r2 ");
  assert.equal((await person.stored(response.id.replace("resp_", ""))).text, text);
  const whole = await client.responses.create({ model: "legato", input: SCRIPTS.plain[0] });
  assert.equal(whole.output_text, SCRIPTS.plain[1]);
  const failed = { model: "legato", input: SCRIPTS.failing[0], stream: true };
  const events = [];
  for await (const event of await client.responses.create(failed)) events.push(event);
  assert.equal(events.at(-1).type, "response.failed");
  assert.match(events.at(-1).response.error.message, /Response unavailable/);
});

test("responses: a tool is not shown, and one that is cancelled is complete", LIMIT, async () => {
  const [client, person] = await connect();
  const [input, text] = SCRIPTS.tool;
  const whole = await client.responses.stream({ model: "legato", input }).finalResponse();
  assert.equal(whole.output_text, text);
  assert.ok(whole.output.every(({ type }) => type === "message"));
  const stream = client.responses.stream({ model: "legato", input: SCRIPTS.endless[0] });
  let had = "";
  for await (const { type, response, delta } of stream) {
    if (type === "response.created") had = response.id;
    if (type === "response.output_text.delta" && delta === "w2 ")
      await person.cancel(had.replace("resp_", ""));
  }
  const { status, output_text } = await stream.finalResponse();
  assert.equal(status, "completed");
  assert.equal(output_text, (await person.stored(had.replace("resp_", ""))).text);
});

test("a line that breaks is an error, and the same key has all of the reply", LIMIT, async () => {
  const broken = await line();
  const completion = new Completion(await Person.start(), "#script rate=30 tokens=60", broken.url);
  const reading = completion.read();
  await until("some text", () => completion.text.includes("w2 "));
  broken.cut();
  await assert.rejects(reading);
  const { id } = completion;
  await completion.read();
  assert.deepEqual([completion.id, completion.reasons], [id, ["stop"]]);
  assert.equal(completion.text, words(0, 60).join(""));
  broken.close();
});

test("a plain reply, whole", LIMIT, async () => {
  const [client] = await connect();
  const completion = await client.chat.completions.create(asked(SCRIPTS.plain[0]));
  assert.equal(completion.choices[0].message.content, SCRIPTS.plain[1]);
});

test(
  "a reply that fails in the middle is an error, and is not asked for again",
  LIMIT,
  async () => {
    const [client] = await connect();
    const [message, text] = SCRIPTS.failing;
    let had = "";
    await assert.rejects(async () => {
      const stream = await client.chat.completions.create(asked(message, { stream: true }));
      for await (const { choices } of stream) had += choices[0].delta.content ?? "";
    }, /Response unavailable/);
    assert.equal(had, text);
    await assert.rejects(
      client.chat.completions.create(asked(message)),
      /500 Response unavailable/,
    );
  },
);

test("cancelled from elsewhere, and by leaving", LIMIT, async () => {
  const [client, person] = await connect();
  const begin = async () => {
    const read = { text: "" };
    read.stream = await client.chat.completions.create(asked(SCRIPTS.endless[0], { stream: true }));
    read.all = (async () => {
      for await (const { id, choices } of read.stream) {
        read.id = id.replace("chatcmpl-", "");
        read.text += choices[0].delta.content ?? "";
      }
    })();
    await until("some text", () => read.text.includes("w2 "));
    return read;
  };
  const cancelled = await begin();
  await person.cancel(cancelled.id);
  await cancelled.all;
  assert.equal(cancelled.text, (await person.stored(cancelled.id)).text);

  const left = await begin();
  left.stream.controller.abort();
  await left.all;
  assert.equal((await person.stored(left.id)).status, "cancelled");
});

test("the models, and one that does not exist", LIMIT, async () => {
  const [client] = await connect();
  const { data } = await client.models.list();
  assert.deepEqual(
    data.map(({ id }) => id),
    ["legato"],
  );
  await assert.rejects(
    client.chat.completions.create({ ...asked("Hello"), model: "gpt" }),
    ({ status, code }) => status === 404 && code === "model_not_found",
  );
});
