/** A reply for a screen reader: in pieces of some sentences, each as soon as it is written. */

import { isActive, type Turn } from "../src/reducer.js";
import { isOpen } from "../src/reply.js";

/** A piece ends at the first end of a sentence behind this many characters. */
const LEAST = 120;

/** Without an end of a sentence it ends here. */
const MOST = 400;

export interface Said {
  readonly pieces: readonly string[];
  /** How far the text is said. */
  readonly at: number;
}

/** What can be said of `text` from `at` on; of a text that goes on, no unfinished sentence. */
export function pieces(text: string, at: number, isWhole: boolean): Said {
  const found: string[] = [];
  let place = at;
  for (;;) {
    const end = endOf(text, place, isWhole);
    if (end === null) return { pieces: found, at: place };
    const piece = spoken(text.slice(place, end));
    if (piece !== "") found.push(piece);
    place = end;
  }
}

/** Where the piece from `at` on ends; null if it is not written yet, or there is none. */
function endOf(text: string, at: number, isWhole: boolean): number | null {
  const rest = text.slice(at);
  if (rest === "") return null;
  const fence = /^\s*(`{3,}|~{3,})/.exec(rest);
  if (fence) {
    const close = rest.indexOf(`\n${fence[1] ?? ""}`, fence[0].length);
    const end = close < 0 ? -1 : rest.indexOf("\n", close + 1);
    if (end >= 0) return at + end + 1;
    return isWhole ? text.length : null;
  }
  const block = /\n\s*\n|\n(?=\s*(?:```|~~~))/.exec(rest);
  const length = block ? block.index + block[0].length : rest.length;
  if (length > LEAST) {
    const sentence = /[.!?:;…]["”’)]?\s|\n/g;
    sentence.lastIndex = LEAST;
    const stop = sentence.exec(rest.slice(0, Math.min(length, MOST)));
    if (stop) return at + stop.index + stop[0].length;
    if (length > MOST) return at + (rest.lastIndexOf(" ", MOST) + 1 || MOST);
  }
  return block || isWhole ? at + length : null;
}

/** Without the marks of Markdown. */
function spoken(text: string): string {
  const code = /^\s*(?:`{3,}|~{3,})\s*([\w+#.-]*)[^\n]*\n([\s\S]*)$/.exec(text);
  if (code) {
    const lines = (code[2] ?? "").trimEnd().split("\n").length - 1;
    const language = code[1] ? ` in ${code[1]}` : "";
    return `Code${language}, ${String(lines)} ${lines === 1 ? "line" : "lines"}.`;
  }
  return text
    .replace(/!?\[([^\]\n]*)\]\([^()\n]*\)/g, "$1")
    .replace(/^\s*\|?[\s:|-]+\|?\s*$/gm, "")
    .replace(/^\s{0,3}(?:#{1,6}|>|[-*+])\s+/gm, "")
    .replace(/\*\*|__|~~|`/g, "")
    .replace(/\s*\|\s*/g, ", ")
    .replace(/\s+/g, " ")
    .replace(/^[,\s]+|[,\s]+$/g, "");
}

export interface Piece {
  readonly id: number;
  readonly text: string;
}

/** So many stand in the region at a time; older ones have been read. */
const MAX_PIECES = 3;

/** A reply of which more is there when it is first seen was read in another tab, or before a reload. */
const KNOWN = 200;

/** Which part of which reply has been said. */
export class Speech {
  readonly #at = new Map<string, number>();
  #lastId = 0;
  #shown: readonly Piece[] = [];

  /** What is there when the page opens is not news. */
  skip(turns: readonly Turn[]): void {
    for (const turn of turns) this.#at.set(turn.key, turn.text.length);
  }

  clear(): void {
    this.#shown = [];
  }

  /** The last pieces: the same list as before if there is nothing new. */
  news(turns: readonly Turn[]): readonly Piece[] {
    const last = turns.at(-1);
    if (last?.role !== "assistant") return this.#shown;
    const isNews = isActive(last) && last.text.length < KNOWN;
    const from = this.#at.get(last.key) ?? (isNews ? 0 : last.text.length);
    const { pieces: found, at } = pieces(last.text, from, !isOpen(last));
    this.#at.set(last.key, at);
    if (found.length === 0) return this.#shown;
    const made = found.map((text) => ({ id: (this.#lastId += 1), text }));
    this.#shown = [...this.#shown, ...made].slice(-MAX_PIECES);
    return this.#shown;
  }
}
