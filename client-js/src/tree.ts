/** The branches of a conversation that the server keeps: turns name the one that they follow. Pure functions. */

import { isOpen, type Branch } from "./reply.js";
import { isReply, type Turn } from "./state.js";

type Role = Turn["role"];

/** The key of a turn that comes from the server, the same in each page. */
export const keyOf = (role: Role, messageId: string): string =>
  `${role === "user" ? "u" : "a"}-${messageId}`;

/** How turns name a turn of this role: by its message or its key. */
const name = (role: Role, text: string): string => `${role} ${text}`;

/** What each turn follows and what follows it. */
export interface Tree {
  /** All turns, in the order in which they are known. */
  readonly turns: readonly Turn[];
  /** Undefined if it is not known, or there is none. */
  parentOf(turn: Turn): Turn | undefined;
  /** The turns that follow the same one, with `turn` itself. */
  siblingsOf(turn: Turn): readonly Turn[];
  /** The turn with this key, or with the key that it would have from the server. */
  find(key: string): Turn | undefined;
}

export function treeOf(turns: readonly Turn[]): Tree {
  const named = new Map<string, Turn>();
  for (const turn of turns) {
    named.set(name(turn.role, turn.key), turn);
    if (turn.messageId) named.set(name(turn.role, turn.messageId), turn);
  }
  const parentOf = ({ role, parent }: Turn): Turn | undefined =>
    parent === undefined
      ? undefined
      : named.get(name(role === "user" ? "assistant" : "user", parent));
  /** What siblings have in common. What stands nowhere yet has none. */
  const slotOf = (turn: Turn): string =>
    name(turn.role, parentOf(turn)?.key ?? turn.parent ?? `beside ${turn.key}`);
  const slots = new Map<string, Turn[]>();
  for (const turn of turns) {
    const slot = slotOf(turn);
    slots.set(slot, [...(slots.get(slot) ?? []), turn]);
  }
  return {
    turns,
    parentOf,
    siblingsOf: (turn) => slots.get(slotOf(turn)) ?? [],
    find: (key) =>
      turns.find(
        (turn) => turn.key === key || (turn.messageId && keyOf(turn.role, turn.messageId) === key),
      ),
  };
}

/** The way from the beginning to this turn. Ends where what comes before is not known, or where it has been. */
export function pathTo(tree: Tree, turn: Turn | undefined): readonly Turn[] {
  const path = new Set<Turn>();
  for (let at = turn; at && !path.has(at); at = tree.parentOf(at)) path.add(at);
  return [...path].reverse();
}

/** The newest turn that is `within` or behind it; without one, the newest of all. */
export function newestIn(tree: Tree, within: Turn | undefined): Turn | undefined {
  const last = tree.turns.at(-1);
  if (!within) return last;
  return [...tree.turns].reverse().find((turn) => pathTo(tree, turn).includes(within)) ?? last;
}

const MARKED = new WeakMap<Turn, Turn>();

/** The turn with its branch: the same object for as long as neither changes. */
function marked(turn: Turn, { index, count }: Branch): Turn {
  const before = MARKED.get(turn);
  if (before?.branch?.index === index && before.branch.count === count) return before;
  const now = { ...turn, branch: { index, count } };
  MARKED.set(turn, now);
  return now;
}

/** What is shown if the branch with the turn `leaf` is open: the path to its newest leaf, each turn with its branch. */
export function shownOf(turns: readonly Turn[], leaf: string | null): readonly Turn[] {
  const tree = treeOf(turns);
  const within = leaf === null ? undefined : tree.find(leaf);
  const path = pathTo(tree, newestIn(tree, within));
  // What a reply answers is shown with it, once it is known.
  const whole = path[0] && isReply(path[0]) ? path.slice(1) : path;
  return whole.map((turn) => {
    const siblings = tree.siblingsOf(turn);
    const count = siblings.length;
    return count < 2 ? turn : marked(turn, { index: siblings.indexOf(turn) + 1, count });
  });
}

/**
 * The known turns with those of a page of the server's, both oldest first. A turn that is known stays the object that
 * it is, unless the server knows better.
 *
 * @param isEarlier whether the page is older than all that is known
 */
export function merged(
  turns: readonly Turn[],
  page: readonly Turn[],
  isEarlier: boolean,
): readonly Turn[] {
  const known = new Map(
    turns.flatMap((turn) => (turn.messageId ? [[name(turn.role, turn.messageId), turn]] : [])),
  );
  const taken = page.map((turn) => {
    const before = known.get(name(turn.role, turn.messageId ?? ""));
    return before ? better(before, turn) : turn;
  });
  const keys = new Set(taken.map((turn) => turn.key));
  const others = turns.filter((turn) => !keys.has(turn.key));
  if (isEarlier) return [...taken, ...others];
  const isLocal = (turn: Turn): boolean => !turn.messageId;
  return [...others.filter((turn) => !isLocal(turn)), ...taken, ...others.filter(isLocal)];
}

function better(known: Turn, told: Turn): Turn {
  if (!isReply(known) || !isReply(told))
    return known.text === "" && told.text !== "" ? { ...known, text: told.text } : known;
  if (isOpen(told) || known.status === told.status) return known;
  const { status, text, error, errorKind, endedAt, model, usage } = told;
  return { ...known, status, text, error, errorKind, endedAt, model, usage, held: {} };
}
