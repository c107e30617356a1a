import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { watch, type Watched } from "../src/watchdog.js";

let silences: [string, number][];
let watched: Map<string, Watched>;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setInterval"] });
  silences = [];
  watched = new Map();
});

const look = (progress: Readonly<Record<string, string>>): void => {
  watch(watched, new Map(Object.entries(progress)), 100, (key) => {
    silences.push([key, watched.get(key)?.count ?? 0]);
  });
};

test("silence is counted for as long as nothing moves", () => {
  look({ a: "0" });
  mock.timers.tick(99);
  assert.deepEqual(silences, []);
  mock.timers.tick(1);
  mock.timers.tick(100);
  mock.timers.tick(100);
  assert.deepEqual(silences, [
    ["a", 1],
    ["a", 2],
    ["a", 3],
  ]);
});

test("progress starts the time and the count anew; the same progress does not", () => {
  look({ a: "0" });
  mock.timers.tick(100);
  mock.timers.tick(50);
  look({ a: "1" });
  mock.timers.tick(99);
  look({ a: "1" });
  mock.timers.tick(1);
  assert.deepEqual(silences, [
    ["a", 1],
    ["a", 1],
  ]);
});

test("a silence that is forgiven is not counted, and the next one is the first", () => {
  look({ a: "0" });
  mock.timers.tick(200);
  const entry = watched.get("a");
  assert.equal(entry?.count, 2);
  entry.count = 0;
  mock.timers.tick(100);
  assert.deepEqual(silences.at(-1), ["a", 1]);
});

test("nothing is suspected while tokens come", () => {
  for (let index = 0; index < 50; index += 1) {
    look({ a: String(index) });
    mock.timers.tick(99);
  }
  assert.deepEqual(silences, []);
});

test("what is no longer watched is quiet", () => {
  look({ a: "0", b: "0" });
  look({ b: "0" });
  mock.timers.tick(100);
  assert.deepEqual(silences, [["b", 1]]);
});
