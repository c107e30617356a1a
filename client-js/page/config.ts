/** What the server tells the page before it starts. */

import type { AttachmentLimits } from "./attachments.js";
import type { Prices } from "./cost.js";

/** `/dev/config`: who answers. Kept, so that the page can show itself without a network. */
export interface Config {
  readonly key: string;
  readonly provider: string;
  readonly model: string | null;
}

/** `GET /api/chat/config`: what this user may do. */
export interface ChatConfig {
  readonly conversations: boolean;
  readonly max_message_characters: number;
  /** The options that a message may have. */
  readonly allow: readonly string[];
  /** Empty: any. */
  readonly models: readonly string[];
  readonly attachments: AttachmentLimits | null;
  readonly prices: Prices | null;
}

const KEPT = "legato-config";

const DEFAULTS: ChatConfig = {
  ...{ conversations: true, max_message_characters: 100_000, allow: [], models: [] },
  ...{ attachments: null, prices: null },
};

/** The folder of the page, without a slash at its end: everything of the server is below it. */
export const base = new URL(".", location.href).pathname.replace(/\/$/, "");

async function getJson(path: string, headers: Record<string, string> = {}): Promise<unknown> {
  const response = await fetch(base + path, {
    headers: { Accept: "application/json", ...headers },
  });
  if (!response.ok) throw new Error(`${path} answered ${String(response.status)}`);
  return response.json();
}

/** A function that gives the token of `user`, and another one when the server has refused it. */
export function tokenOf(user: string): (refused?: string) => Promise<string> {
  let token: Promise<string> | null = null;
  let last = "";
  return async (refused) => {
    if (refused !== undefined && refused === last) token = null;
    token ??= getJson(`/dev/token?sub=${encodeURIComponent(user)}`).then(
      (answer) => (answer as { token: string }).token,
    );
    try {
      last = await token;
      return last;
    } catch (error) {
      token = null;
      throw error;
    }
  };
}

/** The server's answers; without a network, those of the last time, if there was one. */
export async function readConfig(
  token: () => Promise<string>,
): Promise<{ config: Config; chat: ChatConfig }> {
  try {
    const [config, chat] = await Promise.all([getJson("/dev/config"), readChatConfig(token)]);
    const read = { config: config as Config, chat };
    keep(read);
    return read;
  } catch (error) {
    const kept = lastTime();
    if (!kept || !(error instanceof TypeError)) throw error;
    return kept;
  }
}

async function readChatConfig(token: () => Promise<string>): Promise<ChatConfig> {
  const answer = await getJson("/api/chat/config", { Authorization: `Bearer ${await token()}` });
  return { ...DEFAULTS, ...(answer as Partial<ChatConfig>) };
}

function keep(read: object): void {
  try {
    localStorage.setItem(KEPT, JSON.stringify(read));
  } catch {
    // Without it the page needs a network to start.
  }
}

function lastTime(): { config: Config; chat: ChatConfig } | null {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "null") as ReturnType<typeof lastTime>;
  } catch {
    return null;
  }
}
