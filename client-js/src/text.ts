/** Text that UTF-8 can carry. */

/**
 * `text` with U+FFFD for each half of a surrogate pair that stands alone, as `toWellFormed` gives it where a browser
 * has that. `JSON.stringify` escapes halves, and servers refuse them.
 */
export function wellFormed(text: string): string {
  return text.replace(/[\uD800-\uDBFF][\uDC00-\uDFFF]|[\uD800-\uDFFF]/g, (found) =>
    found.length === 2 ? found : "\uFFFD",
  );
}
