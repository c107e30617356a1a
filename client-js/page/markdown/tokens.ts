/** Tokens of the Markdown parser → nodes. HTML in the text stays text; addresses are of the web or are none. */

import type { MarkedToken, Token, Tokens } from "marked";

import { webAddress, type Source } from "../../src/view.js";
import { decoded } from "./entities.js";
import { element, textOf, type ElementNode, type VNode } from "./nodes.js";

/** Makes the children of a block of code; null for plain text. */
export type Highlighter = (language: string, code: string) => readonly VNode[] | null;

export interface Context {
  /** By the number in a citation's mark. */
  readonly sources: readonly Source[];
  /** The level of the last heading: the next one is at most one deeper. */
  level: number;
  readonly highlight: Highlighter | null;
  /** What stands in a link may hold no other one: citations wait until it has ended. */
  readonly waiting: VNode[] | null;
}

/** A citation in the text that is parsed: its number between characters that nobody else may use. */
export const mark = (index: number): string => `\uE000${String(index)}\uE001`;

/** `text` without the characters of a {@link mark}. */
export const unmarked = (text: string): string => text.replace(/[\uE000\uE001]/g, "\uFFFD");

const MARKS = /\uE000(\d+)\uE001/;
const ALL_MARKS = /\uE000\d+\uE001/g;

/** Headings of a reply stand below that of its turn, which is an `h2`. */
export const TOP_LEVEL = 2;
const LOWEST_LEVEL = 6;

/** Of other languages in an address, such as `data:text/html`, a browser makes a page. */
const IMAGE_DATA = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+$/;

/** The nodes of a block; none for what is not shown, such as the definition of a link. */
export function block(token: Token, context: Context): readonly VNode[] {
  const known = token as MarkedToken;
  switch (known.type) {
    case "paragraph":
      return [element("p", {}, inline(known.tokens, context))];
    case "heading":
      return [heading(known, context)];
    case "code":
      return [code(known, context)];
    case "list":
      return [list(known, context)];
    case "blockquote":
      return [element("blockquote", {}, blocks(known.tokens, context))];
    case "table":
      return [table(known, context)];
    case "hr":
      return [element("hr")];
    case "html":
      return [element("p", {}, texts(known.raw.trim(), context))];
    case "space":
    case "def":
      return [];
    default:
      // A tight item of a list, and what a later version of the parser may add.
      return inline([token], context);
  }
}

const blocks = (tokens: readonly Token[], context: Context): VNode[] =>
  tokens.flatMap((token) => block(token, context));

const inline = (tokens: readonly Token[], context: Context): VNode[] =>
  tokens.flatMap((token) => piece(token as MarkedToken, context));

function piece(token: MarkedToken, context: Context): readonly VNode[] {
  switch (token.type) {
    case "text":
      return token.tokens ? inline(token.tokens, context) : texts(decoded(token.text), context);
    case "escape":
      return texts(token.text, context);
    case "strong":
    case "em":
    case "del":
      return [element(token.type, {}, inline(token.tokens, context))];
    case "codespan":
      return [element("code", {}, texts(token.text, context))];
    case "br":
      return [element("br")];
    case "link":
      return link(token, context);
    case "image":
      return image(token, context);
    case "checkbox":
      return [checkbox(token.checked), " "];
    default:
      return blockInside(token, context);
  }
}

/** Some items hold blocks where pieces of text are expected. */
function blockInside(token: Token, context: Context): readonly VNode[] {
  const isBlock = ["paragraph", "list", "blockquote", "code", "table", "heading", "hr", "space"];
  return isBlock.includes(token.type) ? block(token, context) : texts(token.raw, context);
}

/** Text, with its marks made citations. */
function texts(text: string, context: Context): VNode[] {
  const pieces = text.split(MARKS);
  return pieces.flatMap((found, index): VNode[] => {
    if (index % 2 === 0) return found === "" ? [] : [found];
    const source = context.sources[Number(found)];
    if (!source) return [];
    const made = citation(source);
    if (!context.waiting) return [made];
    context.waiting.push(made);
    return [];
  });
}

function citation({ number, href, label }: Source): ElementNode {
  const shown = [String(number)];
  const known = { class: "cite", "data-testid": "citation", title: label };
  if (href === null) return element("sup", known, shown);
  const name = `Source ${String(number)}: ${label}`;
  return element("sup", {}, [
    element("a", { ...known, ...leading(href), "aria-label": name }, shown),
  ]);
}

/** To another page, which learns nothing of this one. */
const leading = (href: string): Record<string, string> => ({
  href,
  target: "_blank",
  rel: "noopener noreferrer",
});

function heading({ depth, tokens }: Tokens.Heading, context: Context): ElementNode {
  context.level = Math.min(depth + TOP_LEVEL, context.level + 1, LOWEST_LEVEL);
  const attributes = { "data-depth": String(depth) };
  return element(`h${String(context.level)}`, attributes, inline(tokens, context));
}

function code({ lang, text }: Tokens.Code, { highlight }: Context): ElementNode {
  const plain = text.replace(ALL_MARKS, "");
  const language = /^[\w+#.-]*/.exec(lang ?? "")?.[0].toLowerCase() ?? "";
  const name = language === "" ? "Code" : `Code, ${language}`;
  return element("figure", { class: "code" }, [
    element("figcaption", {}, [
      element("span", {}, [language === "" ? "text" : language]),
      element("button", { type: "button", class: "copy", "aria-label": "Copy code" }),
    ]),
    element("pre", { tabindex: "0", role: "group", "aria-label": name }, [
      element("code", {}, highlight?.(language, plain) ?? [plain]),
    ]),
  ]);
}

function list({ ordered, start, items }: Tokens.List, context: Context): ElementNode {
  const attributes = ordered && start !== "" && start !== 1 ? { start: String(start) } : {};
  const children = items.map((item) =>
    element("li", item.task ? { class: "task" } : {}, blocks(item.tokens, context)),
  );
  return element(ordered ? "ol" : "ul", ordered ? attributes : {}, children);
}

/** Not an input: nobody can change it. */
function checkbox(checked: boolean): ElementNode {
  const name = checked ? "Done" : "Not done";
  return element("span", { class: "box", role: "img", "aria-label": name }, [checked ? "☑" : "☐"]);
}

function table({ header, rows }: Tokens.Table, context: Context): ElementNode {
  const row = (cells: readonly Tokens.TableCell[], tag: string): ElementNode =>
    element(
      "tr",
      {},
      cells.map(({ align, tokens }) =>
        element(tag, align ? { "data-align": align } : {}, inline(tokens, context)),
      ),
    );
  const body = rows.map((cells) => row(cells, "td"));
  // It scrolls by itself when it is wider than the page; so it can be reached by keyboard.
  return element("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, [
    element("table", {}, [
      element("thead", {}, [row(header, "th")]),
      ...(body.length > 0 ? [element("tbody", {}, body)] : []),
    ]),
  ]);
}

function link({ href, title, tokens, autolink }: Tokens.Link, context: Context): readonly VNode[] {
  const waiting: VNode[] = [];
  const children = inline(tokens, { ...context, waiting });
  const target = linkAddress(autolink ? href : decoded(href));
  // A link that leads nowhere is shown as its text.
  if (target === null || context.waiting) return [...children, ...waiting];
  const named = title ? { title: decoded(title) } : {};
  return [element("a", { ...leading(target), ...named }, children), ...waiting];
}

function linkAddress(text: string): string | null {
  const clean = text.replace(ALL_MARKS, "").trim();
  return /^mailto:[^\s<>"]+@[^\s<>"]+$/i.test(clean) ? clean : webAddress(clean);
}

/** An image from elsewhere would tell its host who reads this: it becomes a link. */
function image({ href, text }: Tokens.Image, context: Context): readonly VNode[] {
  const source = href.replace(ALL_MARKS, "");
  const label = textOf(texts(decoded(text), { ...context, sources: [], waiting: null }));
  if (IMAGE_DATA.test(source)) return [element("img", { src: source, alt: label })];
  const target = webAddress(decoded(source));
  if (target === null || context.waiting) return label === "" ? [] : [label];
  const host = new URL(target).host;
  const shown = label === "" ? `Image on ${host}` : `${label} (image on ${host})`;
  return [element("a", { class: "image", ...leading(target) }, [shown])];
}
