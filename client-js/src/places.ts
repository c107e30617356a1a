/** Where parts stand in a reply's text. A part names a token, and text has no marks between its tokens. */

import type { Part } from "./parts.js";

/** What is used of a reply. */
export interface Placed {
  readonly text: string;
  readonly nextIndex: number;
  readonly parts: readonly Part[];
  /** `tokenIndex` of a part → the characters of `text` before that token; only those above 0. */
  readonly cuts: Readonly<Record<number, number>>;
}

/** The characters of the text before token `index`, if they are known. */
export function position(reply: Placed, index: number): number | undefined {
  if (index === 0) return 0;
  return index === reply.nextIndex ? reply.text.length : reply.cuts[index];
}

/** The reply with the place where its text ends now noted, if a part stands there. */
export function noted<R extends Placed>(reply: R): R {
  const { nextIndex, text, cuts } = reply;
  if (nextIndex === 0 || nextIndex in cuts || !standsAt(reply, nextIndex)) return reply;
  return { ...reply, cuts: { ...cuts, [nextIndex]: text.length } };
}

/** The reply with the places that these tokens of it show; the first has index `first`. */
export function measured<R extends Placed>(reply: R, first: number, tokens: readonly string[]): R {
  let at = position(reply, first);
  if (at === undefined || unplacedFrom(reply) === null) return reply;
  const cuts = { ...reply.cuts };
  tokens.forEach((token, n) => {
    const index = first + n;
    if (index > 0 && index < reply.nextIndex && standsAt(reply, index)) cuts[index] ??= at ?? 0;
    at = (at ?? 0) + token.length;
  });
  return { ...reply, cuts };
}

/** The token from which on the tokens are needed one by one, to know where the parts stand; null if it is known. */
export function unplacedFrom(reply: Placed): number | null {
  const unplaced = reply.parts.find(
    (part) =>
      isShown(part) &&
      part.tokenIndex < reply.nextIndex &&
      position(reply, part.tokenIndex) === undefined,
  );
  if (!unplaced) return null;
  const known = Object.keys(reply.cuts).map(Number);
  return Math.max(0, ...known.filter((index) => index < unplaced.tokenIndex));
}

const standsAt = ({ parts }: Placed, index: number): boolean =>
  parts.some((part) => part.tokenIndex === index && isShown(part));

const isShown = (part: Part): boolean => part.type !== "step";
