/** Limits on what is sent: the defaults of the server's settings `chat.max_...`. Lengths are in characters. */

export const MAX_MESSAGE = 100_000;
export const MAX_HISTORY = 100;
export const MAX_HISTORY_CHARACTERS = 160_000;

interface Item {
  readonly role: "user" | "assistant";
  readonly content: string;
}

/**
 * The newest items that keep to the limits of a history: whole ones, the first of them the user's, as models expect.
 *
 * Counts UTF-16 units, of which there are at least as many as characters.
 */
export function newest<T extends Item>(items: readonly T[]): T[] {
  let start = items.length;
  let room = MAX_HISTORY_CHARACTERS;
  for (const item of items.slice(-MAX_HISTORY).reverse()) {
    room -= item.content.length;
    if (room < 0) break;
    start -= 1;
  }
  const kept = items.slice(start);
  const first = kept.findIndex((item) => item.role === "user");
  return first < 0 ? [] : kept.slice(first);
}

/** Why a message cannot be sent, for people; empty if it can. */
export function tooLong(text: string, limit = MAX_MESSAGE): string {
  const length = text.length <= limit ? 0 : characters(text); // counting is for the few that may be too long
  if (length <= limit) return "";
  return `The message is too long: ${length.toLocaleString("en")} of at most ${limit.toLocaleString("en")} characters.`;
}

/** As the server counts them: a surrogate pair is one. */
const characters = (text: string): number =>
  text.length - (text.match(/[\uD800-\uDBFF][\uDC00-\uDFFF]/g)?.length ?? 0);
