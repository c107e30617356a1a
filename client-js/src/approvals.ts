/** What the user decides about tool calls. */

import { ApiError, FAILED_TEXT } from "./errors.js";
import { isOpen, type Answer, type Host, type Reply } from "./reply.js";
import type { ToolPart } from "./parts.js";

/** A decision that is not made again. */
const IN_HAND: readonly (Answer["state"] | undefined)[] = ["sending", "sent", "taken"];

/** What people read when a decision comes too late, by the status of the answer. */
const TOO_LATE: Readonly<Record<string, string | undefined>> = {
  404: "There is no such request for approval any more.",
  409: "This was decided already.",
};

/** What the user decided about a call here, if anything. */
export function answerTo(reply: Reply, call: string): Answer | undefined {
  return Object.hasOwn(reply.answers, call) ? reply.answers[call] : undefined;
}

/** True for a call that the user may decide about, now or when the request under way has failed. */
export function isUndecided(reply: Reply, tool: ToolPart): boolean {
  const answer = answerTo(reply, tool.call)?.state;
  return isOpen(reply) && tool.state === "waiting" && answer !== "sent" && answer !== "taken";
}

/** Decide about a tool call that waits for approval. The same decision again changes nothing. */
export async function decide(
  host: Host,
  messageId: string,
  call: string,
  approve: boolean,
  note: string,
): Promise<void> {
  const reply = host.find(messageId);
  if (!reply || IN_HAND.includes(answerTo(reply, call)?.state)) return;
  const tell = (state: Answer["state"], error = ""): void => {
    host.answered(messageId, call, { approve, state, error });
  };
  const path = `chat/${encodeURIComponent(messageId)}/tools/${encodeURIComponent(call)}`;
  tell("sending");
  try {
    await host.api.call("POST", path, note === "" ? { approve } : { approve, note });
    tell("sent");
  } catch (error) {
    const known = error instanceof ApiError ? error : null;
    const late = TOO_LATE[String(known?.status)];
    tell(late === undefined ? "failed" : "taken", late ?? known?.message ?? FAILED_TEXT);
    if (late !== undefined) await host.refetch(reply.key); // how it was decided, or that the reply has ended
  }
}
