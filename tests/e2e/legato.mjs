// What the scenarios share: where the server is, and how to wait.

import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { isDeepStrictEqual } from "node:util";

const url = process.env.LEGATO_URL;
if (!url) {
  console.error("LEGATO_URL must name a running `legato up`, such as http://127.0.0.1:8080");
  process.exit(2);
}

export const LEGATO_URL = url.replace(/\/$/, "");

const { hostname, port } = new URL(LEGATO_URL);

/** What the `pusher` SDK takes for the application of `legato up`. */
export const SDK_OPTIONS = {
  appId: "1",
  key: "app-key",
  secret: "app-secret",
  host: hostname,
  port,
  useTLS: false,
};

/** What an Echo of its users takes, beside its pusher-js. */
export const echoOptions = (bearerToken) => ({
  broadcaster: "reverb",
  key: "app-key",
  wsHost: hostname,
  wsPort: Number(port),
  wssPort: Number(port),
  forceTLS: false,
  enabledTransports: ["ws", "wss"],
  authEndpoint: `${LEGATO_URL}/broadcasting/auth`,
  bearerToken,
});

/** A user of its own for each scenario, so that none hears another. */
export const newUser = () => randomInt(1_000, 2 ** 40);

export async function getToken(user) {
  const response = await fetch(`${LEGATO_URL}/dev/token?sub=${user}`);
  if (!response.ok) throw new Error(`/dev/token answered ${response.status}`);
  return (await response.json()).token;
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Wait until `condition` gives something true, and return it. The limit is for a machine that is very busy. */
export async function until(what, condition, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s in vain for: ${what}`);
    await pause(20);
  }
}

/** Wait until `look` gives what is expected. */
export async function becomes(look, expected, seconds = 60) {
  let found;
  const isSo = async () => isDeepStrictEqual((found = await look()), expected);
  await until("", isSo, seconds).catch(() => assert.deepEqual(found, expected));
}

/** The scripted provider's words from `first` up to, not including, `end`. */
export const words = (first, end) =>
  Array.from({ length: end - first }, (_, offset) => `w${first + offset} `);
