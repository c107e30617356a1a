/**
 * The parts of a reply besides its text: reasoning, tool calls, citations, steps.
 *
 * All entries of a reply, text included, share one number, the `offset`. A part also has the `tokenIndex` of the
 * text that follows it, which says where it stands. What is shown is a pure function of the events that are known,
 * in the order of their offsets: however they came, the result is the same.
 */

import {
  isBoolean,
  isCount,
  isNumber,
  isObjectOf,
  isOptional,
  isString,
  pick,
  type Check,
  type Fields,
} from "./checks.js";

/** Tokens of a request to the model, as the provider counts them. */
export interface Usage {
  readonly input?: number;
  readonly output?: number;
  readonly cacheRead?: number;
  readonly cacheWrite?: number;
}

export interface Place {
  readonly offset: number;
  readonly tokenIndex: number;
}

/** `truncated`: a snapshot has left out a field, because it would have been too large. */
interface EventPlace extends Place {
  readonly truncated?: boolean;
}

interface PartData {
  "reasoning.received": { readonly delta?: string };
  "tool.started": { readonly call: string; readonly name: string };
  "tool.input_received": { readonly call: string; readonly delta?: string };
  "tool.called": { readonly call: string; readonly name: string; readonly input?: unknown };
  "tool.approval_requested": {
    readonly call: string;
    readonly name: string;
    readonly expiresAt: number;
    readonly input?: unknown;
  };
  "tool.approval_decided": {
    readonly call: string;
    readonly approve: boolean;
    readonly note?: string;
    readonly expired?: boolean;
  };
  "tool.finished": {
    readonly call: string;
    readonly name: string;
    readonly ok: boolean;
    readonly output?: unknown;
    readonly error?: string;
    readonly denied?: boolean;
  };
  "citation.received": {
    readonly url?: string;
    readonly title?: string;
    readonly text?: string;
    readonly source?: string;
  };
  "step.completed": {
    readonly step: number;
    readonly stopReason: string;
    readonly usage: Usage;
  };
  "parts.retracted": { readonly from: number };
}

export type PartEventType = keyof PartData;

type EventOf<Type extends PartEventType> = { readonly type: Type } & EventPlace & PartData[Type];

/** One event of a part, without its `messageId`. */
export type PartEvent = { [Type in PartEventType]: EventOf<Type> }[PartEventType];

/**
 * How a tool call stands. `writing`: the model writes its input. `called`: it has written it. `running`: the model's
 * step is over, and the tool works. `waiting`: for a person's decision.
 */
export type ToolState =
  | "writing"
  | "called"
  | "waiting"
  | "approved"
  | "denied"
  | "expired"
  | "running"
  | "finished"
  | "failed";

export interface ReasoningPart extends Place {
  readonly type: "reasoning";
  readonly text: string;
}

/** All that is known of one call; its place is that of its first event. */
export interface ToolPart extends Place {
  readonly type: "tool";
  /** Unique id of the call. */
  readonly call: string;
  readonly name: string;
  readonly state: ToolState;
  /** JSON text as far as the model has written it; empty once `input` is there. */
  readonly inputText: string;
  /** Absent until it is known, and if the server hides it. */
  readonly input?: unknown;
  /** Absent until the call has finished, and if the server hides it. */
  readonly output?: unknown;
  readonly error: string;
  /** What the person who decided wrote. */
  readonly note: string;
  /** Unix time in seconds until which a decision is awaited; null for calls that need none. */
  readonly expiresAt: number | null;
}

export interface CitationPart extends Place {
  readonly type: "citation";
  readonly url: string;
  readonly title: string;
  /** The cited words. */
  readonly text: string;
  /** Identifier of the document, where there is no address. */
  readonly source: string;
}

/** The end of one request to the model. */
export interface StepPart extends Place {
  readonly type: "step";
  readonly step: number;
  readonly stopReason: string;
  readonly usage: Usage;
}

export type Part = ReasoningPart | ToolPart | CitationPart | StepPart;

/** What is known: everything below `offset` at once, from a snapshot, and later events one by one. */
export interface PartLog {
  readonly offset: number;
  /** By offset, each once. */
  readonly events: readonly PartEvent[];
  /** True for a reply of which only the text is known, from the server's database. */
  readonly isUnread?: boolean;
}

const PLACE: Fields = {
  offset: isCount,
  tokenIndex: isCount,
  truncated: isOptional(isBoolean),
};

const isUsage = isObjectOf({
  input: isOptional(isCount),
  output: isOptional(isCount),
  cacheRead: isOptional(isCount),
  cacheWrite: isOptional(isCount),
});

const isAnything: Check = () => true;
const maybeText = isOptional(isString);

/** The fields of each event besides `messageId`. */
export const PART_FIELDS: Readonly<Record<PartEventType, Fields>> = {
  "reasoning.received": { ...PLACE, delta: maybeText },
  "tool.started": { ...PLACE, call: isString, name: isString },
  "tool.input_received": { ...PLACE, call: isString, delta: maybeText },
  "tool.called": { ...PLACE, call: isString, name: isString, input: isAnything },
  "tool.approval_requested": {
    ...PLACE,
    call: isString,
    name: isString,
    expiresAt: isNumber,
    input: isAnything,
  },
  "tool.approval_decided": {
    ...PLACE,
    call: isString,
    approve: isBoolean,
    note: maybeText,
    expired: isOptional(isBoolean),
  },
  "tool.finished": {
    ...PLACE,
    call: isString,
    name: isString,
    ok: isBoolean,
    output: isAnything,
    error: maybeText,
    denied: isOptional(isBoolean),
  },
  "citation.received": {
    ...PLACE,
    url: maybeText,
    title: maybeText,
    text: maybeText,
    source: maybeText,
  },
  "step.completed": { ...PLACE, step: isCount, stopReason: isString, usage: isUsage },
  "parts.retracted": { ...PLACE, from: isCount },
};

const isPartEventType = (name: unknown): name is PartEventType =>
  typeof name === "string" && Object.hasOwn(PART_FIELDS, name);

/** One part of a snapshot, whose event's name is in `field`; null for an event that is unknown or not as it should be. */
export function parsePart(data: unknown, field: "event" | "type" = "event"): PartEvent | null {
  const type = (data as Record<string, unknown> | null | undefined)?.[field];
  if (!isPartEventType(type)) return null;
  const fields = pick(PART_FIELDS[type], data);
  return fields && ({ type, ...fields } as PartEvent);
}

/** Add one event; the log itself if it is known already. */
export function withEvent(log: PartLog, event: PartEvent): PartLog {
  if (event.offset < log.offset) return log;
  const { events } = log;
  let place = events.length; // from behind: most come in order
  while (place > 0 && (events[place - 1]?.offset ?? -1) > event.offset) place -= 1;
  if (events[place - 1]?.offset === event.offset) return log;
  return { ...log, events: [...events.slice(0, place), event, ...events.slice(place)] };
}

/** Everything below `offset` is now `events`, which need not be in order; the log itself if it knows more. */
export function withSnapshot(log: PartLog, offset: number, events: readonly PartEvent[]): PartLog {
  if (offset < log.offset) return log;
  const covered = events.filter((event) => event.offset < offset);
  covered.sort((a, b) => a.offset - b.offset);
  const later = log.events.filter((event) => event.offset >= offset);
  return { offset, events: [...covered, ...later] };
}

/** True if a snapshot or the database has left something out, which `GET /api/chat/{id}` has. */
export const isTruncated = ({ events, isUnread = false }: PartLog): boolean =>
  isUnread || events.some((event) => event.truncated === true);

/** What the events of a log make, given what those of `before` made. */
export function shown(log: PartLog, before: PartLog, parts: readonly Part[]): readonly Part[] {
  if (log === before) return parts;
  const last = log.events.at(-1);
  const isNext =
    last !== undefined &&
    log.offset === before.offset &&
    log.events.length === before.events.length + 1 &&
    last !== before.events.at(-1);
  return isNext && last.type !== "parts.retracted" ? add(parts, last) : fold(log.events);
}

/** The parts that events make, in order; without those that are void. */
export function fold(events: readonly PartEvent[]): readonly Part[] {
  const retractions = events.filter((event) => event.type === "parts.retracted");
  const isVoid = ({ offset }: PartEvent): boolean =>
    retractions.some((event) => event.from <= offset && offset < event.offset);
  const valid = retractions.length > 0 ? events.filter((event) => !isVoid(event)) : events;
  return valid.reduce<readonly Part[]>(add, []);
}

function add(parts: readonly Part[], event: PartEvent): readonly Part[] {
  const { offset, tokenIndex } = event;
  switch (event.type) {
    case "reasoning.received":
      return addReasoning(parts, event);
    case "citation.received": {
      const { url = "", title = "", text = "", source = "" } = event;
      return [...parts, { type: "citation", offset, tokenIndex, url, title, text, source }];
    }
    case "step.completed": {
      const { step, stopReason, usage } = event;
      return [...parts.map(started), { type: "step", offset, tokenIndex, step, stopReason, usage }];
    }
    case "parts.retracted":
      return parts; // `fold` has left out what is void
    default:
      return addToTool(parts, event);
  }
}

/** Successive pieces are one part; a snapshot has joined them already. */
function addReasoning(
  parts: readonly Part[],
  { offset, tokenIndex, delta = "" }: EventOf<"reasoning.received">,
): readonly Part[] {
  const last = parts.at(-1);
  if (last?.type !== "reasoning" || last.tokenIndex !== tokenIndex) {
    return [...parts, { type: "reasoning", offset, tokenIndex, text: delta }];
  }
  return [...parts.slice(0, -1), { ...last, text: last.text + delta }];
}

const started = (part: Part): Part =>
  part.type === "tool" && part.state === "called" ? { ...part, state: "running" } : part;

type ToolEvent = Extract<PartEvent, { call: string }>;

function addToTool(parts: readonly Part[], event: ToolEvent): readonly Part[] {
  const isIt = (part: Part): boolean => part.type === "tool" && part.call === event.call;
  if (parts.some(isIt)) {
    return parts.map((part) => (part.type === "tool" && isIt(part) ? changed(part, event) : part));
  }
  const { offset, tokenIndex, call } = event;
  const blank: ToolPart = {
    ...{ type: "tool", offset, tokenIndex, call, name: "", state: "writing" },
    ...{ inputText: "", error: "", note: "", expiresAt: null },
  };
  return [...parts, changed(blank, event)];
}

function changed(tool: ToolPart, event: ToolEvent): ToolPart {
  switch (event.type) {
    case "tool.started":
      return { ...tool, name: event.name };
    case "tool.input_received":
      return { ...tool, inputText: tool.inputText + (event.delta ?? "") };
    case "tool.called":
      return { ...tool, ...inputOf(event), name: event.name, state: "called", inputText: "" };
    case "tool.approval_requested": {
      const { name, expiresAt } = event;
      return { ...tool, ...inputOf(event), name, expiresAt, state: "waiting", inputText: "" };
    }
    case "tool.approval_decided":
      return { ...tool, note: event.note ?? "", state: decided(event) };
    case "tool.finished":
      return {
        ...tool,
        ...("output" in event ? { output: event.output } : {}),
        name: event.name,
        error: event.error ?? "",
        state: finished(tool, event),
      };
  }
}

const inputOf = (event: { readonly input?: unknown }): { readonly input?: unknown } =>
  "input" in event ? { input: event.input } : {};

function decided({ approve, expired }: EventOf<"tool.approval_decided">): ToolState {
  if (expired) return "expired";
  return approve ? "approved" : "denied";
}

function finished({ state }: ToolPart, { ok, denied }: EventOf<"tool.finished">): ToolState {
  if (ok) return "finished";
  if (denied) return state === "expired" ? state : "denied";
  return "failed";
}

/** The events with successive pieces of reasoning, or of one input, joined as in a snapshot; without what is void. */
export function joined(events: readonly PartEvent[]): readonly PartEvent[] {
  const retractions = events.filter((event) => event.type === "parts.retracted");
  const kept: PartEvent[] = [];
  for (const event of events) {
    const last = kept.at(-1);
    if (event.type === "parts.retracted") continue;
    if (retractions.some((r) => r.from <= event.offset && event.offset < r.offset)) continue;
    const whole = last && joinedWith(last, event);
    if (whole) kept[kept.length - 1] = whole;
    else kept.push(event);
  }
  return kept;
}

const textOf = ({ delta = "" }: { readonly delta?: string }): string => delta;

function joinedWith(last: PartEvent, event: PartEvent): PartEvent | null {
  if (last.tokenIndex !== event.tokenIndex) return null;
  if (last.type === "reasoning.received" && event.type === last.type)
    return { ...last, delta: textOf(last) + textOf(event) };
  if (last.type === "tool.input_received" && event.type === last.type && event.call === last.call)
    return { ...last, delta: textOf(last) + textOf(event) };
  return null;
}
