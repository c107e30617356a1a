// What a stock listener was told of a reply, judged: each index once and in order, whatever happened on the way.

const ENDS = ["completed", "failed", "cancelled"];

/** An end, or a snapshot of a reply that has ended. */
const isEnd = ([, kind, , , , status]) =>
  ENDS.includes(kind) || ["complete", ...ENDS].includes(status);

/** The entries of each subscription, of one message. */
export function sessions(ledger, id) {
  const found = [[]];
  for (const entry of ledger) {
    if (entry[1] === "subscribed") found.push([]);
    else if (entry[2] === id) found.at(-1).push(entry);
  }
  return found;
}

/**
 * What is wrong with a ledger. In one subscription tokens go on where a token or a snapshot ended. A subscription that
 * heard of a reply at all hears of its end, if the ledger `isWhole`: the page was there until then.
 */
export function faultsIn(ledger, id, isWhole) {
  return sessions(ledger, id).flatMap((session, number, all) => {
    const faults = [];
    let next = null;
    let isOwed = false; // a snapshot, by a subscription that began behind the first token
    let isOver = false;
    for (const entry of session) {
      const [, kind, , index, count] = entry;
      // The snapshot of a reply that ends meanwhile may come behind its end, and has all of it.
      if (isOver && !(kind === "snapshot" && isEnd(entry))) faults.push(`${kind} after the end`);
      if (kind === "token") {
        if (next === null) isOwed = index > 0;
        else if (index !== next) faults.push(`token ${index} instead of ${next}`);
        next = index + count;
      } else if (kind === "snapshot") {
        if (next !== null && index !== next)
          faults.push(`a snapshot up to ${index} behind ${next}`);
        next = index;
        isOwed = false;
      } else {
        isOver = ENDS.includes(kind);
      }
    }
    const isLast = number === all.length - 1;
    if (isOwed && (isOver || isLast)) faults.push("no snapshot");
    if (isWhole && isLast && session.length > 0 && !session.some(isEnd)) faults.push("no end");
    return faults;
  });
}

/** How often it subscribed. */
export const subscriptions = (ledger) => ledger.filter(([, kind]) => kind === "subscribed").length;

/** Whether it was told of the end. A page that has subscribed since then is not. */
export const hasEnd = (ledger, id) => sessions(ledger, id).flat().some(isEnd);

/** When it was told of the end, in milliseconds. */
export const endOf = (ledger, id) => sessions(ledger, id).flat().find(isEnd)?.[0];

/** Milliseconds between what arrived of a reply and what arrived of it next, in the same subscription. */
export function pauses(ledger, id) {
  return sessions(ledger, id).flatMap((session) => {
    const times = session.filter(([, kind]) => kind === "token").map(([at]) => at);
    return times.slice(1).map((at, index) => at - times[index]);
  });
}
