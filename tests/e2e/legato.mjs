// What the scenarios share: where the server is, and how to wait.

import { randomInt } from "node:crypto";

const url = process.env.LEGATO_URL;
if (!url) {
  console.error("LEGATO_URL must name a running `legato up`, such as http://127.0.0.1:8080");
  process.exit(2);
}

export const LEGATO_URL = url.replace(/\/$/, "");

/** A user of its own for each scenario, so that none hears another. */
export const newUser = () => randomInt(1_000, 2 ** 40);

export async function getToken(user) {
  const response = await fetch(`${LEGATO_URL}/dev/token?sub=${user}`);
  if (!response.ok) throw new Error(`/dev/token answered ${response.status}`);
  return (await response.json()).token;
}

/** Wait until `condition` gives something true, and return it. */
export async function until(what, condition, seconds = 20) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The scripted provider's words from `first` up to, not including, `end`. */
export const words = (first, end) =>
  Array.from({ length: end - first }, (_, offset) => `w${first + offset} `);
