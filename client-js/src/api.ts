/** The HTTP calls of a chat. Every failure is an {@link ApiError} with one line for people. */

import { ApiError, errorOf, TEXTS } from "./errors.js";
import { parseReplyLog, TEXT_PARSER, type PartParser, type ReplyLog } from "./frames.js";
import { wellFormed } from "./text.js";

export { ApiError } from "./errors.js";

/** The current JWT. If the server refused one with 401, that one is `refused`, and a new one is needed. */
export type TokenSource = (refused?: string) => string | Promise<string>;

export interface ApiOptions {
  /** Where `/api/chat` is; default: the page's own origin. */
  readonly baseUrl?: string | undefined;
  /** The JWT, or a function that gives the current one. */
  readonly token: string | TokenSource;
  /** After this long without an answer a call counts as failed; default 30 s. */
  readonly timeoutMs?: number | undefined;
}

/** One earlier turn as `POST /api/chat/send` takes it. */
export interface HistoryItem {
  readonly role: "user" | "assistant";
  readonly content: string;
}

/** With further options of a message, such as `attachments`, if it has any. */
export interface SendBody {
  readonly message?: string | undefined;
  readonly history?: readonly HistoryItem[];
  readonly session_id?: string;
  readonly [option: string]: unknown;
}

export interface Api {
  /**
   * Ask for a reply.
   *
   * @param requestId the same id and body give the same message, so a repeated call costs nothing
   * @returns the message id
   * @throws {ApiError}
   */
  send: (body: SendBody, requestId: string, headers?: object) => Promise<string>;
  /** @throws {ApiError} */
  cancel(messageId: string): Promise<unknown>;
  /**
   * Read what the server has of a reply behind index `after`; -1 for all.
   *
   * @throws {ApiError} `gone` when it is no longer kept
   */
  fetchReply(messageId: string, after: number): Promise<ReplyLog>;
  /**
   * Make a call below `/api/`. A token that is refused is asked for once more.
   *
   * @returns the answer's JSON, or null if it is none
   * @throws {ApiError}
   */
  call(method: string, path: string, body?: unknown, headers?: object): Promise<unknown>;
}

export function createApi(
  { baseUrl = "", token, timeoutMs = 30_000 }: ApiOptions,
  parts: PartParser = TEXT_PARSER,
): Api {
  const call: Api["call"] = async (method, path, body, headers) => {
    const text = body === undefined ? null : JSON.stringify(body, carried);
    const attempt = async (refused?: string): Promise<Response> => {
      const bearer = typeof token === "function" ? await token(refused) : token;
      const response = await fetch(`${baseUrl}/api/${path}`, {
        method,
        headers: {
          Accept: "application/json",
          Authorization: `Bearer ${bearer}`,
          ...(text === null ? {} : { "Content-Type": "application/json" }),
          ...headers,
        },
        body: text,
        signal: AbortSignal.timeout(timeoutMs),
      });
      const again = refused === undefined && typeof token === "function";
      return again && response.status === 401 ? attempt(bearer) : response;
    };
    const response = await attempt().catch((): never => {
      throw new ApiError(TEXTS.offline, null);
    });
    const answer: unknown = await response.json().catch(() => null);
    if (!response.ok) throw errorOf(response.status, answer);
    return answer;
  };
  const pathOf = (messageId: string): string => `chat/${encodeURIComponent(messageId)}`;

  return {
    call,
    async send(body, requestId, headers) {
      const named = { "Idempotency-Key": requestId, ...headers };
      const answer = await call("POST", "chat/send", body, named);
      const id = (answer as { message_id?: unknown } | null)?.message_id;
      if (typeof id !== "string") throw notUnderstood();
      return id;
    },
    cancel: (messageId) => call("POST", `${pathOf(messageId)}/cancel`),
    async fetchReply(messageId, after) {
      const query = after < 0 ? "" : `?after=${String(after)}`;
      const log = parseReplyLog(await call("GET", pathOf(messageId) + query), parts);
      if (!log) throw notUnderstood();
      return log;
    },
  };
}

const notUnderstood = (): ApiError => new ApiError("The server's answer was not understood.", 200);

/** For `JSON.stringify`: texts that were kept by an earlier version may hold halves of a character. */
const carried = (_name: string, value: unknown): unknown =>
  typeof value === "string" ? wellFormed(value) : value;
