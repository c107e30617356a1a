import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Watchdog } from "../src/watchdog.js";

let silences: [string, number][];
let watchdog: Watchdog;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  silences = [];
  watchdog = new Watchdog(100, (key) => {
    silences.push([key, watchdog.silences(key)]);
  });
});

test("silence is counted for as long as nothing moves", () => {
  watchdog.watch("a", "0");
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
  watchdog.watch("a", "0");
  mock.timers.tick(100);
  mock.timers.tick(50);
  watchdog.watch("a", "1");
  mock.timers.tick(99);
  watchdog.watch("a", "1");
  mock.timers.tick(1);
  assert.deepEqual(silences, [
    ["a", 1],
    ["a", 1],
  ]);
});

test("a silence that is forgiven is not counted, and the next one is the first", () => {
  watchdog.watch("a", "0");
  mock.timers.tick(200);
  watchdog.forgive("a");
  assert.equal(watchdog.silences("a"), 0);
  mock.timers.tick(100);
  assert.deepEqual(silences.at(-1), ["a", 1]);
});

test("nothing is suspected while tokens come", () => {
  for (let index = 0; index < 50; index += 1) {
    watchdog.watch("a", String(index));
    mock.timers.tick(99);
  }
  assert.deepEqual(silences, []);
});

test("what is no longer watched is quiet", () => {
  watchdog.watch("a", "0");
  watchdog.watch("b", "0");
  watchdog.keepOnly(new Set(["b"]));
  mock.timers.tick(100);
  assert.deepEqual(silences, [["b", 1]]);
});
