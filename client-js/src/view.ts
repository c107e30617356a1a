/** What a page shows of a reply besides its status: its text and parts in order, in words. Pure functions. */

import type { CitationPart, ReasoningPart, ToolPart, ToolState } from "./parts.js";
import { position } from "./places.js";
import { answerTo, isUndecided } from "./approvals.js";
import { isOpen, type Reply, type UserTurn } from "./reply.js";

/** A piece of text, or a mark of a citation amid it. `key` is unique in its block. */
export type Run =
  | { readonly type: "text"; readonly key: string; readonly text: string }
  | { readonly type: "citation"; readonly key: string; readonly source: Source };

/** Text up to the next part that is not a citation. */
export interface TextBlock {
  readonly type: "text";
  readonly runs: readonly Run[];
}

export type BlockContent = TextBlock | ReasoningPart | ToolPart;

/** `key` is unique in its reply, and stable. */
export interface Block {
  readonly key: string;
  readonly content: BlockContent;
}

/** A source that citations name, numbered from 1 in the order of the text. */
export interface Source {
  readonly number: number;
  /** Only if it is one of http or https; else null: it is then shown as text. */
  readonly href: string | null;
  readonly label: string;
}

/** How a tool call stands, for people. `stopped`: the reply ended before the call did. */
export type ToolView = ToolState | "stopped";

const WORDS: Readonly<Record<ToolView, string>> = {
  writing: "Preparing",
  called: "Running",
  running: "Running",
  waiting: "Waits for your approval",
  approved: "Approved, running",
  denied: "Denied",
  expired: "Not approved in time",
  finished: "Done",
  failed: "Failed",
  stopped: "Stopped",
};

const SETTLED: readonly ToolView[] = ["denied", "expired", "finished", "failed", "stopped"];

/** As much of an input or output is shown, in UTF-16 units. */
export const MAX_SHOWN = 20_000;

/** The text and the parts of a turn in order. Parts that did not change are the same objects as before. */
export function blocks(turn: Reply | UserTurn): readonly Block[] {
  if (turn.role === "user" || turn.parts.length === 0) return plain(turn.text);
  const layout = new Layout(turn.text);
  const numbers = sourcesBy(turn);
  let at = 0;
  for (const part of turn.parts) {
    if (part.type === "step") continue;
    at = Math.max(at, position(turn, part.tokenIndex) ?? at);
    layout.textUpTo(at);
    if (part.type === "citation") {
      const source = numbers.get(identity(part));
      if (source) layout.cite(`c${String(part.offset)}`, source);
    } else {
      layout.part(part);
    }
  }
  layout.textUpTo(turn.text.length);
  return layout.end();
}

const plain = (text: string): readonly Block[] =>
  text === "" ? [] : [textBlock("t0", [{ type: "text", key: "t0", text }])];

const textBlock = (key: string, runs: readonly Run[]): Block => ({
  key,
  content: { type: "text", runs },
});

/** Cuts a text into blocks. Empty lines beside a part are left out: there is space already. */
class Layout {
  private readonly done: Block[] = [];
  private runs: Run[] = [];
  private at = 0;

  constructor(private readonly text: string) {}

  textUpTo(end: number): void {
    const isFirst = this.done.length === 0 || this.runs.length > 0;
    const key = `t${String(this.at)}`;
    const text = this.text.slice(this.at, end);
    const kept = isFirst ? text : text.replace(/^\s*\n/, "");
    this.at = Math.max(this.at, end);
    if (kept !== "") this.runs.push({ type: "text", key, text: kept });
  }

  cite(key: string, source: Source): void {
    this.runs.push({ type: "citation", key, source });
  }

  part(part: ReasoningPart | ToolPart): void {
    const last = this.runs.at(-1);
    if (last?.type === "text") {
      this.runs[this.runs.length - 1] = { ...last, text: last.text.replace(/\n\s*$/, "") };
    }
    this.flush();
    this.done.push({ key: `p${String(part.offset)}`, content: part });
  }

  end(): readonly Block[] {
    this.flush();
    return this.done;
  }

  private flush(): void {
    const runs = this.runs.filter((run) => run.type === "citation" || run.text !== "");
    if (runs[0]) this.done.push(textBlock(runs[0].key, runs));
    this.runs = [];
  }
}

/** The sources that a reply cites, each once. */
export function sources(turn: Reply | UserTurn): readonly Source[] {
  return turn.role === "user" ? [] : [...sourcesBy(turn).values()];
}

function sourcesBy({ parts }: Reply): ReadonlyMap<string, Source> {
  const found = new Map<string, Source>();
  for (const part of parts) {
    if (part.type !== "citation" || found.has(identity(part))) continue;
    const href = webAddress(part.url);
    const host = href === null ? "" : new URL(href).hostname;
    const names = [part.title, host, part.source, part.url, part.text];
    const label = names.find((name) => name !== "") ?? "Source";
    found.set(identity(part), { number: found.size + 1, href, label });
  }
  return found;
}

const identity = ({ url, source, title, text }: CitationPart): string =>
  [url, source, title, text].find((name) => name !== "") ?? "";

/** The address if a page may link to it, else null: `javascript:` and the like are none. */
export function webAddress(text: string): string | null {
  try {
    const { protocol, href } = new URL(text);
    return protocol === "http:" || protocol === "https:" ? href : null;
  } catch {
    return null; // not an absolute address
  }
}

/** How a tool call stands, with what was decided here and has not come back yet. */
export function toolState(reply: Reply, tool: ToolPart): ToolView {
  const answer = answerTo(reply, tool.call);
  const state =
    tool.state === "waiting" && answer?.state === "sent"
      ? answer.approve
        ? "approved"
        : "denied"
      : tool.state;
  return isOpen(reply) || SETTLED.includes(state) ? state : "stopped";
}

/** {@link toolState} for people. */
export function toolWords(reply: Reply, tool: ToolPart): string {
  const isTaken = tool.state === "waiting" && answerTo(reply, tool.call)?.state === "taken";
  return isTaken && isOpen(reply) ? "Decided already" : WORDS[toolState(reply, tool)];
}

/** True if nothing is to be seen of the work on a reply: neither text, nor reasoning, nor a tool at work. */
export function isQuiet(turn: Reply | UserTurn): boolean {
  if (turn.role === "user" || !isOpen(turn)) return false;
  if (turn.status === "thinking") return true;
  const last = turn.parts.filter((part) => part.type !== "step").at(-1);
  if (last?.type !== "tool" || position(turn, last.tokenIndex) !== turn.text.length) return false;
  return turn.parts.every(
    (part) => part.type !== "tool" || SETTLED.includes(toolState(turn, part)),
  );
}

/** True while the model writes this piece of its reasoning. */
export function isThinking(reply: Reply, part: ReasoningPart): boolean {
  const isLast = reply.parts.at(-1) === part && part.tokenIndex === reply.nextIndex;
  return isOpen(reply) && isLast;
}

/** What stands above a piece of reasoning. The time is known of what was seen from its beginning. */
export function reasoningTitle(reply: Reply, part: ReasoningPart): string {
  if (isThinking(reply, part)) return "Thinking…";
  const span = reply.spans[part.offset];
  if (!span) return "Reasoning";
  return `Thought for ${String(Math.max(1, Math.round((span[1] - span[0]) / 1000)))} s`;
}

/** JSON with indents; text as it is. Cut at {@link MAX_SHOWN}. */
export function pretty(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const rest = text.length - MAX_SHOWN;
  return rest <= 0
    ? text
    : `${text.slice(0, MAX_SHOWN)}\n… ${rest.toLocaleString("en")} more characters`;
}

/** The input of a call: as far as it is written, or whole. Empty if the server hides it. */
export const inputText = (tool: ToolPart): string =>
  "input" in tool ? pretty(tool.input) : pretty(tool.inputText);

/** The output of a call, or why there is none. Empty until it has finished, and if the server hides it. */
export const outputText = (tool: ToolPart): string =>
  tool.error !== "" || !("output" in tool) ? pretty(tool.error) : pretty(tool.output);

/** Until when a decision is awaited, for people; empty if it is not. */
export function deadline(reply: Reply, tool: ToolPart): string {
  if (tool.expiresAt === null || !isUndecided(reply, tool)) return "";
  const time = new Date(tool.expiresAt * 1000);
  return Number.isNaN(time.valueOf())
    ? ""
    : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** What a screen reader is told of the tools of a reply that changed; empty if there is nothing. Never an output. */
export function toolNews(before: Reply | undefined, after: Reply): string {
  const news = after.parts.filter((part): part is ToolPart => {
    if (part.type !== "tool") return false;
    return spoken(before, part.call) !== spoken(after, part.call);
  });
  return news.map((tool) => spoken(after, tool.call)).join(" ");
}

function spoken(reply: Reply | undefined, call: string): string {
  const tool = reply?.parts.find((part) => part.type === "tool" && part.call === call);
  if (!reply || tool?.type !== "tool") return "";
  const answer = answerTo(reply, call);
  const error = answer?.state === "failed" ? answer.error : "";
  return `${tool.name || "Tool"}: ${error || `${toolWords(reply, tool)}.`}`;
}
