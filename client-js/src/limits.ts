/** Limits on what is sent: the defaults of the server's settings `chat.max_...`. Lengths are in characters. */

export const MAX_MESSAGE = 100_000;
export const MAX_HISTORY = 100;
export const MAX_HISTORY_CHARACTERS = 160_000;

/** Of a request's text, in bytes; the server's `server.max_request_bytes` has room for the rest as well. */
const MAX_BYTES = 2 ** 20 - 2 ** 14;

interface Item {
  readonly role: "user" | "assistant";
  readonly content: string;
}

/**
 * The newest items that keep to the limits of a history: whole ones, the first of them the user's, as models expect.
 *
 * Counts UTF-16 units, of which there are at least as many as characters.
 *
 * @param rest what else the request has
 */
export function newest<T extends Item>(items: readonly T[], rest: unknown = ""): T[] {
  const kept: T[] = [];
  let room = MAX_HISTORY_CHARACTERS;
  let bytes = MAX_BYTES - bytesOf(rest);
  for (const item of items.slice(-MAX_HISTORY).reverse()) {
    room -= item.content.length;
    bytes -= bytesOf(item);
    if (room < 0 || bytes < 0) break;
    kept.unshift(item);
  }
  while (kept[0]?.role === "assistant") kept.shift();
  return kept;
}

/** Why a message cannot be sent, for people; empty if it can. */
export function tooLong(text: string, limit: number = MAX_MESSAGE): string {
  const length = text.length <= limit ? 0 : characters(text); // counting is for the few that may be too long
  if (length <= limit) return "";
  return `The message is too long: ${length.toLocaleString("en")} of at most ${limit.toLocaleString("en")} characters.`;
}

/** An escape such as `\u0000` has six of them. */
const bytesOf = (value: unknown): number => new Blob([JSON.stringify(value)]).size + 1;

/** As the server counts them: a surrogate pair is one. */
const characters = (text: string): number =>
  text.length - (text.match(/[\uD800-\uDBFF][\uDC00-\uDFFF]/g)?.length ?? 0);
