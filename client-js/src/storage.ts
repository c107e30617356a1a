/** The conversation in the browser: survives a refresh, never breaks the page. */

import type { Turn } from "./reducer.js";

/** What is kept. `sessionId` names the conversation to the server. */
export interface Saved {
  readonly sessionId: string;
  readonly turns: readonly Turn[];
}

/** The part of the Web Storage API that is used. */
export type TextStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

const VERSION = 1;

/** What was saved under `name`, or null: nothing, not readable, or of another version. */
export function load(storage: TextStorage | null, name: string): Saved | null {
  try {
    const saved = JSON.parse(storage?.getItem(name) ?? "null") as Stored | null;
    return saved?.version === VERSION && Array.isArray(saved.turns) ? saved : null;
  } catch {
    return null; // not JSON, or a browser that forbids storage
  }
}

export function save(storage: TextStorage | null, name: string, saved: Saved): void {
  const turns = saved.turns.map((turn) => (turn.role === "user" ? turn : { ...turn, held: {} }));
  const stored: Stored = { version: VERSION, sessionId: saved.sessionId, turns };
  try {
    storage?.setItem(name, JSON.stringify(stored));
  } catch {
    // Full or forbidden: the conversation goes on and only a refresh loses it.
  }
}

interface Stored extends Saved {
  readonly version: number;
}
