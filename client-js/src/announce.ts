/** What a screen reader is told of a conversation: what has changed, not each token. */

import { isActive, isReply, type Reply, type Status, type Turn } from "./reducer.js";
import { toolNews } from "./view.js";

const ANNOUNCEMENTS: Record<Status, (reply: Reply, isLive: boolean) => string> = {
  unsent: (_, isLive) =>
    isLive ? "The message waits to be sent." : "Not connected. The message will be sent later.",
  thinking: () => "Waiting for the reply.",
  streaming: () => "The reply is being written.",
  waiting: () => "The reply waits for your approval.",
  complete: (reply) => `Reply: ${reply.text}`,
  failed: (reply) => `The reply failed. ${reply.error ?? ""}`,
  cancelled: () => "The reply was stopped.",
};

/**
 * The news of the reply that changed, wherever it stands: its status and its tools; undefined if there are none.
 *
 * @param isLive whether there is a connection; then what is unsent waits for something else
 */
export function announce(
  before: readonly Turn[],
  after: readonly Turn[],
  isLive: boolean,
): string | undefined {
  if (after.length === 0) return "";
  const earlier = new Map(before.filter(isReply).map((reply) => [reply.key, reply]));
  const news = after
    .filter(isReply)
    .filter((reply) => earlier.get(reply.key) !== reply)
    .map((reply) => newsOf(earlier.get(reply.key), reply, isLive));
  return news.filter((text) => text !== "").at(-1);
}

function newsOf(before: Reply | undefined, after: Reply, isLive: boolean): string {
  const status = before?.status === after.status ? "" : ANNOUNCEMENTS[after.status](after, isLive);
  if (!isActive(after)) return status;
  const tools = toolNews(before, after);
  // A tool that starts or was decided says more than that the reply goes on.
  const words = after.status === "waiting" ? [tools, status] : [tools || status];
  return words.filter((text) => text !== "").join(" ");
}
