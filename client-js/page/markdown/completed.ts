/** What a text that is being written will likely become: without it, half of a mark would show for a moment. */

/** `text` with the marks of its last line closed, and what is only begun of a link left out. */
export function completed(text: string): string {
  if (isInCode(text)) return text;
  const start = text.lastIndexOf("\n") + 1;
  return text.slice(0, start) + closed(withoutHalfLink(text.slice(start)));
}

/** An unclosed fence takes everything behind it, as it stands. */
function isInCode(text: string): boolean {
  let fence = "";
  for (const line of text.matchAll(/^[ >\t]*(?:[-*+] +|\d+[.)] +)?(`{3,}|~{3,})[^\n]*$/gm)) {
    const found = line[1] ?? "";
    if (fence === "") fence = found;
    else if (found.startsWith(fence)) fence = "";
  }
  return fence !== "";
}

/** `see [the docs](https://exa` → `see the docs`. */
const withoutHalfLink = (line: string): string =>
  line.replace(/!?\[([^\]]*)(?:\]\([^()\s]*)?$/, (_whole, label: string) => label);

function closed(line: string): string {
  const ticks = line.match(/`+/g) ?? [];
  if (ticks.length % 2 === 1) return line + (ticks.at(-1) ?? "");
  const plain = line.replace(/`[^`\n]*`/g, (code) => "x".repeat(code.length));
  // One star of two is what a piece of text may end with.
  const stars = plain.endsWith("*") && !plain.endsWith("**") ? plain.length - 1 : plain.length;
  const isOdd = (plain.slice(0, stars).split("**").length - 1) % 2 === 1;
  if (!isOdd) return line;
  return /\*\*\s*$/.test(plain)
    ? line.replace(/\*\*(\s*)$/, "$1")
    : `${line.slice(0, stars).trimEnd()}**`;
}
