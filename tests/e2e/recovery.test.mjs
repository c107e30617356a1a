// Chromium, the package and a stock Echo through what happens to people: every tab ends up with the whole reply.
//
// SEEDS="1-50" runs the scenarios one after the other, many people at once. Of one seed, three scenarios run at once;
// which ones is up to the seed, or to ONLY="part of the name".

import assert from "node:assert/strict";
import { copyFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { build } from "esbuild";

import { launch } from "./browser.mjs";
import { pause, until } from "./legato.mjs";
import { endOf, faultsIn, hasEnd, subscriptions } from "./recovery/audit.mjs";
import { Links } from "./recovery/links.mjs";
import { Person, RATE } from "./recovery/people.mjs";
import { kill, processes, weight } from "./recovery/processes.mjs";

const { PAGE_DIR, SEEDS = "1-1", RESULTS } = process.env;
const [FIRST, LAST] = SEEDS.split("-").map(Number);
const IS_PROOF = LAST > FIRST;
const AT_ONCE = Number(process.env.PEOPLE ?? 5);
const OFFLINE_MS = IS_PROOF ? 10_000 : 3_000;

const CLIENT = "../../client-js/src";

const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 3,
  isMobile: true,
  hasTouch: true,
};

/** Long enough for a busy machine. */
const length = (person) => person.between(700, 900) + (IS_PROOF ? 800 : 0);

let browser;
let links;
const results = {};

before(async () => {
  await build({
    entryPoints: ["recovery/tab.mjs"],
    outfile: `${PAGE_DIR}/recovery.js`,
    bundle: true,
    format: "esm",
    alias: {
      "legato-client": `${CLIENT}/index.ts`,
      "legato-client/auth": `${CLIENT}/auth.ts`,
      "legato-client/conversations": `${CLIENT}/conversations.ts`,
      "legato-client/storage": `${CLIENT}/storage.ts`,
    },
    mainFields: ["browser", "module", "main"],
  });
  await copyFile("recovery/tab.html", `${PAGE_DIR}/recovery.html`);
  [browser, links] = await Promise.all([launch(), Links.start()]);
});

after(async () => {
  links?.close();
  await browser?.close();
  if (RESULTS) await writeFile(RESULTS, JSON.stringify(results, undefined, 2));
});

/** Kill one node after the other, as soon as the one before has been replaced. */
async function killNodes(person) {
  for (const pid of processes("broadcaster")) {
    await pause(person.between(300, 2_000));
    await kill([pid], "broadcaster");
  }
}

const COMPARISON = "two fast tabs, to compare";

/** Name -> what one person does, and `all`: what happens to everybody meanwhile, by the first one's seed. */
const SCENARIOS = {
  "reload in mid-answer": async (person) => {
    person.isPlain = person.seed % 2 === 0;
    const tab = await person.open(await person.device());
    await person.asks(tab, length(person));
    for (let times = person.between(1, 3); times > 0; times -= 1) {
      await pause(person.between(100, 2_000));
      await tab.reload();
    }
  },

  "offline for 10 s": async (person) => {
    person.isPlain = person.seed % 2 === 0;
    const link = await person.link();
    const context = await person.device();
    const tab = await person.open(context, link.url);
    await person.asks(tab, (OFFLINE_MS / 1000 + person.between(2, 5)) * RATE);
    await pause(person.between(200, 2_000));
    await Promise.all([link.mute(), context.setOffline(true)]);
    await pause(OFFLINE_MS);
    await Promise.all([link.heal(), context.setOffline(false)]);
  },

  "a second tab joins late": async (person) => {
    const context = await person.device();
    const [tab, late] = await Promise.all([person.open(context), person.load(context)]);
    await person.asks(tab, length(person));
    await pause(person.between(100, 3_500));
    await person.join(late);
  },

  "a phone joins late, and loses its network for a moment": async (person) => {
    const [laptop, context, link] = await Promise.all([
      person.device(),
      person.device(PHONE),
      person.link(),
    ]);
    const [tab, phone] = await Promise.all([person.open(laptop), person.load(context, link.url)]);
    const session = await context.newCDPSession(phone.page);
    await session.send("Emulation.setCPUThrottlingRate", { rate: 4 });
    await person.asks(tab, length(person));
    await pause(person.between(100, 2_500));
    await person.join(phone);
    await pause(person.between(100, 1_000));
    await Promise.all([link.mute(), context.setOffline(true)]);
    await pause(person.between(200, 2_000));
    await Promise.all([link.heal(), context.setOffline(false)]);
  },

  "the nodes are killed": async (person, isFirst) => {
    const context = await person.device();
    const tab = await person.open(context);
    await person.open(context);
    await person.asks(tab, length(person));
    if (isFirst) await killNodes(person);
  },

  "the workers are killed": async (person, isFirst) => {
    const tab = await person.open(await person.device());
    await person.asks(tab, length(person));
    if (!isFirst) return;
    await pause(person.between(500, 4_000));
    await kill(processes("worker"), "worker");
  },

  "a slow tab beside a fast one": (person) => beside(person, 2_048),

  [COMPARISON]: (person) => beside(person, 0),
};

async function beside(person, rate) {
  const [link, context] = await Promise.all([person.link(), person.device()]);
  const tab = await person.open(context);
  await person.open(context, link.url);
  await link.limit(rate);
  await person.asks(tab, length(person));
}

function names() {
  const all = Object.keys(SCENARIOS).filter((name) => name.includes(process.env.ONLY ?? ""));
  if (IS_PROOF || process.env.ONLY) return all;
  const telling = all.filter((name) => name !== COMPARISON);
  return [0, 1, 2].map((index) => telling[(FIRST * 3 + index) % telling.length]);
}

const NAMES = names();

const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);

const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const seconds = (ms) => Number((ms / 1000).toFixed(1));

/** Run one scenario for these seeds at once. */
async function run(name, seeds) {
  const people = seeds.map((seed) => new Person(browser, links, seed));
  const found = {
    seeds: seeds.length,
    tabs: 0,
    untold: 0,
    attempts: 0,
    subscriptions: 0,
    tokens: 0,
    pauses: [],
    behind: [],
    heap: 0,
  };
  const errors = [];
  await Promise.all(
    people.map(async (person, index) => {
      try {
        await SCENARIOS[name](person, index === 0);
        const tabs = await person.areWhole();
        found.tabs += tabs.length;
        found.untold += tabs.filter(({ ledgers }) => !hasEnd(ledgers.at(-1), person.id)).length;
        found.tokens += person.tokens;
        found.attempts += person.attempt - 1;
        found.subscriptions += tabs
          .flatMap(({ ledgers }) => ledgers.map(subscriptions))
          .reduce((a, b) => a + b, 0);
        found.pauses.push(...tabs[0].pauses);
        const ends = tabs.map(({ ledgers }) => endOf(ledgers.at(-1), person.id)).filter(Boolean);
        found.behind.push(Math.max(...ends) - Math.min(...ends));
        found.heap = Math.max(found.heap, await person.tabs[0].heap());
      } catch (error) {
        errors.push(new Error(`${name}, seed ${person.seed}: ${error.message}`, { cause: error }));
      } finally {
        await person.close();
      }
    }),
  );
  if (errors.length > 0) throw new AggregateError(errors, errors.join("\n"));
  return found;
}

/** Run one scenario for all seeds, and keep what was measured. */
async function runAll(name) {
  const all = [];
  const weights = [];
  const weigh = setInterval(() => weights.push(weight(processes("broadcaster"))), 1_000).unref();
  try {
    for (let first = FIRST; first <= LAST; first += AT_ONCE) {
      const count = Math.min(AT_ONCE, LAST - first + 1);
      all.push(
        await run(
          name,
          Array.from({ length: count }, (_, index) => first + index),
        ),
      );
    }
  } finally {
    clearInterval(weigh);
  }
  const sum = (key) => all.reduce((total, each) => total + each[key], 0);
  const pauses = all.flatMap((each) => each.pauses).sort((a, b) => a - b);
  const behind = all.flatMap((each) => each.behind);
  const at = (share) => Math.round(pauses[Math.floor(pauses.length * share)] ?? 0);
  results[name] = {
    ...{
      seeds: sum("seeds"),
      tabs: sum("tabs"),
      "tabs subscribed after the end": sum("untold"),
      tokens: sum("tokens"),
    },
    "replies that another worker went on with": sum("attempts"),
    subscriptions: sum("subscriptions"),
    "ms between tokens of the first tab": {
      ...{ median: at(0.5), "99 %": at(0.99), most: Math.round(most(pauses)) },
      "above 250 per 10,000": (10_000 * pauses.filter((ms) => ms > 250).length) / pauses.length,
    },
    "s between the ends of a person's tabs": {
      ...{ median: seconds(middle(behind)), most: seconds(most(behind)) },
    },
    "MB of a tab's heap, at most": Number(most(all.map(({ heap }) => heap)).toFixed(1)),
    "MB of the nodes": weights.length ? [Math.round(weights[0]), Math.round(most(weights))] : [],
  };
  console.log(name, JSON.stringify(results[name]));
}

test("the audit finds what is missing, comes twice, or comes late", () => {
  const token = (index, count = 1) => [0, "token", "m", index, count];
  const snapshot = (next, status = "streaming") => [0, "snapshot", "m", next, 0, status];
  const [subscribed, end] = [
    [0, "subscribed"],
    [0, "completed", "m"],
  ];
  for (const right of [
    [subscribed, token(0), token(1, 3), token(4), end],
    [subscribed, token(0), subscribed, token(2), snapshot(3), token(3), end],
    [subscribed, token(0), subscribed, snapshot(9, "complete")],
    [subscribed, token(0), subscribed],
    [subscribed, token(0), end, snapshot(1, "complete")],
  ]) {
    assert.deepEqual(faultsIn(right, "m", true), []);
  }
  for (const [wrong, fault] of [
    [[subscribed, token(0), token(2), end], "token 2 instead of 1"],
    [[subscribed, token(0), token(1, 2), token(2), end], "token 2 instead of 3"],
    [[subscribed, token(0), end, token(1)], "token after the end"],
    [[subscribed, token(0), end, end], "completed after the end"],
    [[subscribed, token(0), end, snapshot(1)], "snapshot after the end"],
    [[subscribed, token(5), token(6), end], "no snapshot"],
    [[subscribed, token(5), snapshot(5), token(5), end], "a snapshot up to 5 behind 6"],
    [[subscribed, snapshot(5), token(4), end], "token 4 instead of 5"],
    [[subscribed, token(0), token(1)], "no end"],
  ]) {
    assert.ok(faultsIn(wrong, "m", true).includes(fault), fault);
  }
});

/** Memory is bounded: in megabytes. */
function staysSmall(name) {
  const { "MB of a tab's heap, at most": heap, "MB of the nodes": nodes } = results[name];
  assert.ok(heap < 10, `a tab's heap: ${heap}`);
  if (nodes.length > 0) assert.ok(nodes[1] - nodes[0] < 100, `the nodes: ${nodes}`);
}

if (IS_PROOF) {
  for (const name of NAMES) {
    test(name, async () => {
      await runAll(name);
      staysSmall(name);
    });
  }
} else {
  test("every tab has the whole reply in the end", { timeout: 500_000 }, async () => {
    const ended = await Promise.allSettled(NAMES.map(runAll));
    assert.deepEqual(ended.map(({ reason }) => reason?.message).filter(Boolean), []);
  });
}
