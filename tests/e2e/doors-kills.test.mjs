// The stock clients of all doors while workers and nodes are killed, by a seed: each comes back as its protocol allows, and
// has the text of the log and one ending.
//
// SEEDS="1-50" runs these one after the other, with the hooks in Chromium, too.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { ignoreRejections, Thread } from "./doors/ag-ui.mjs";
import { Listener } from "./doors/echo.mjs";
import { ENDS, open } from "./doors/events.mjs";
import { Hooks } from "./doors/hooks.mjs";
import { Completion } from "./doors/openai.mjs";
import { Reading } from "./doors/streams.mjs";
import { Talk } from "./doors/ui.mjs";
import { insist, Person } from "./doors.mjs";
import { pause, until, words } from "./legato.mjs";
import { dice } from "./recovery/dice.mjs";
import { kill, processes } from "./recovery/processes.mjs";

const { SEEDS = "1-1" } = process.env;
const [FIRST, LAST] = SEEDS.split("-").map(Number);
const IS_PROOF = LAST > FIRST;
/** Tokens a second, and of a reply at least: enough for a node to be back before the end, mostly. */
const [RATE, LENGTH] = IS_PROOF ? [100, 500] : [40, 240];
/** A node or a worker is back after some seconds; a busy machine needs more. */
const PATIENCE = 60;

const counts = {};
const count = (what, by = 1) => (counts[what] = (counts[what] ?? 0) + by);

console.warn = console.error = () => {}; // what the clients say of broken lines

/** Assert that a text is another; otherwise say where they part. */
function isSame(what, text, expected) {
  if (text === expected) return;
  const same = [...expected].findIndex((character, at) => character !== text[at]);
  const from = Math.max(0, (same < 0 ? expected.length : same) - 20);
  const near = (one) => `…${one.slice(from, from + 60)} (${one.length} characters)`;
  assert.fail(`${what}: ${near(text)} instead of ${near(expected)}`);
}

/** Assert that a text breaks off, but has nothing that the whole has not. */
const isBeginning = (what, part, whole) => isSame(what, part, whole.slice(0, part.length));

/** One person, who asks the same by each door that starts a reply, and reads it by all others. */
class Crowd {
  constructor(person, { reasons, tokens }) {
    this.person = person;
    this.script = `#script rate=${RATE} reason=${reasons} tokens=${tokens}`;
    this.text = words(0, tokens).join("");
    this.reasoning = words(0, reasons).join("").replaceAll("w", "r");
  }

  /** `useChat`: an error is seen, and `resumeStream()` has all of the reply. */
  async ui() {
    const talk = (this.talk = await Talk.start(this.person));
    await talk.chat.sendMessage({ text: this.script });
    if (talk.chat.status === "error") count("useChat resumed");
    await insist("to resume", async () => {
      if (talk.chat.status !== "error") return;
      await talk.chat.resumeStream();
      if (talk.chat.status === "error") throw talk.chat.error;
    });
    assert.equal(talk.chat.status, "ready");
    assert.equal(talk.finished.filter(({ finishReason }) => finishReason === "stop").length, 1);
    assert.equal(talk.chat.messages.length, 2);
    const reasoning = talk.reply.parts.filter(({ type }) => type === "reasoning");
    assert.equal(reasoning.map(({ text }) => text).join(""), this.reasoning);
    return ["useChat", talk.text, talk.reply.id];
  }

  /** `EventSource` comes back by itself. */
  async events(id) {
    const page = await insist("a token", () => open(this.person, id));
    await until(
      "the end of the events",
      () => page.names.some((name) => ENDS.includes(name)),
      PATIENCE,
    );
    await page.ends("stream.completed");
    return ["EventSource", page.text, id];
  }

  /** The client repeats requests, but no answer that breaks off: the page goes on at the offset. */
  async stream(id, live) {
    const reading = Reading.follow(this.person, id, { live });
    await reading.isOver;
    await reading.ends(this.person, id, "completed");
    if (reading.breaks) count(`Durable Streams by ${live} gone on with`);
    return [`Durable Streams by ${live}`, reading.text, id];
  }

  /** `HttpAgent` rejects the run, and the same `runId` goes on with it. */
  async agUi() {
    const thread = await Thread.start(this.script, { person: this.person });
    await thread.run().catch(() => {
      count("AG-UI run gone on with");
      return insist("a run", () => thread.run());
    });
    assert.deepEqual(thread.outcome, { type: "success" });
    const reasoning = thread.of("reasoning").map(({ content }) => content);
    assert.equal(reasoning.join(""), this.reasoning);
    return ["HttpAgent", thread.text, thread.id];
  }

  /** The SDK has no way back: the iteration throws. The same request with the same key has the whole reply. */
  async openai() {
    const completion = new Completion(this.person, this.script);
    await insist("a completion", async () => {
      try {
        await completion.read();
      } catch (error) {
        if (completion.text) count("OpenAI stream that threw");
        isBeginning("a completion that throws", completion.text, this.text);
        throw error;
      }
    });
    assert.deepEqual(completion.reasons, ["stop"]);
    return ["OpenAI", completion.text, completion.id];
  }

  /** Echo subscribes again, and a snapshot has what it has missed. */
  async echo() {
    const listener = await Listener.start(this.person);
    await listener.send(this.script);
    await until("the end for Echo", () => listener.ends.length > 0, PATIENCE);
    listener.close();
    if (listener.subscriptions > 1) count("Echo subscribed again");
    assert.equal(listener.ends.length, 1);
    return ["Echo", listener.text, listener.id];
  }

  /** `useEventStream` never comes back: the page mounts it anew, and it has the text from its beginning. */
  async updates(page, id) {
    for (;;) {
      const query = await insist("a token", () => this.person.query(id));
      const { text, completed, failed } = await page.useEventStream(
        `/api/chat/${id}/updates${query}`,
      );
      isBeginning("useEventStream", text, this.text);
      assert.equal(completed + failed, 1);
      if (completed) return ["useEventStream", text, id];
      count("useEventStream mounted again");
      await pause(200);
    }
  }

  /** `useStream` has no way back: it says that it has failed, and keeps its text. */
  async plain(page) {
    const { id, text, failed, finished } = await page.useStream(this.script, this.person);
    assert.equal(finished, 1);
    if (!failed) return ["useStream", text, id];
    count("useStream failed");
    isBeginning("useStream", text, this.text);
    return undefined;
  }

  async run(hooks) {
    const work = [this.ui(), this.agUi(), this.openai(), this.echo()];
    const page = await hooks?.visit();
    if (page) work.push(this.plain(page));
    const isAnswered = () => this.talk?.reply?.role === "assistant";
    await until("a reply", isAnswered);
    const { id } = this.talk.reply;
    work.push(this.events(id), this.stream(id, "long-poll"), this.stream(id, "sse"));
    if (page) work.push(this.updates(page, id));
    this.begun?.();
    const told = (await Promise.all(work)).filter(Boolean);
    await page?.close();
    for (const [what, text, id] of told) {
      isSame(what, text, this.text);
      isSame("the log", (await this.person.stored(id)).text, this.text);
    }
    count("readers with the text of the log and one ending", told.length);
  }
}

/** What is killed, by the seed: workers, nodes, or both, one or all of them. */
async function disturb(draw) {
  const kinds = [["worker"], ["broadcaster"], ["worker", "broadcaster"], ["broadcaster", "worker"]];
  for (const kind of kinds[IS_PROOF ? Math.floor(draw() * 4) : 2 + Math.floor(draw() * 2)]) {
    await pause(100 + draw() * 1_500);
    const all = processes(kind);
    const victims = draw() < 0.5 ? all : [all[Math.floor(draw() * all.length)]];
    count(`${kind}s killed`, victims.length);
    await kill(victims, kind);
  }
}

async function run(seed, hooks) {
  const draw = dice(seed);
  const crowd = new Crowd(await Person.start(), {
    tokens: Math.floor(LENGTH * (1 + draw() / 2)),
    reasons: draw() < 0.3 ? 60 : 1,
  });
  const begun = new Promise((resolve) => (crowd.begun = resolve));
  await Promise.all([crowd.run(hooks), begun.then(() => disturb(draw))]);
  count("seeds");
}

after(() => console.log(JSON.stringify(counts, undefined, 2)));

test("the text of the log and one ending, whatever is killed", { timeout: 7_200_000 }, async () => {
  ignoreRejections();
  const hooks = IS_PROOF ? await Hooks.start() : undefined;
  try {
    for (let seed = FIRST; seed <= LAST; seed += 1) {
      try {
        await run(seed, hooks);
      } catch (error) {
        throw new Error(`seed ${seed}: ${error.message}`, { cause: error });
      }
    }
  } finally {
    await hooks?.close();
  }
});
