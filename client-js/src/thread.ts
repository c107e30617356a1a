/** How turns follow each other if the server keeps the conversation: what `serverConversations()` is to a chat. */

import type { Api } from "./api.js";
import type { ErrorKind } from "./errors.js";
import type { Place, Reply, UserTurn } from "./reply.js";
import type { Turn } from "./state.js";

/** Why the last message was not taken, or the turns could not be read. */
export interface ChatError {
  readonly kind: ErrorKind;
  /** For people. */
  readonly text: string;
}

/** The conversation that is open. */
export interface ConversationState {
  /** Null for a new one, of which nothing was sent yet. */
  readonly id: string | null;
  readonly title: string | null;
  /** False if the server keeps none: then the conversation is that of this browser, and goes along as history. */
  readonly isStored: boolean;
  /** True while its turns are read. */
  readonly isLoading: boolean;
  /** True if there are older turns than those that are shown. */
  readonly hasEarlier: boolean;
  /** True if it was deleted, or never was. The next message begins another one. */
  readonly isGone: boolean;
  /** Why its turns could not be read. While there is a connection, that is tried again. */
  readonly error: ChatError | null;
}

/** What is kept over a refresh. `sessionId` names the conversation to the server. */
export interface Saved {
  readonly sessionId: string;
  readonly turns: readonly Turn[];
  /** In one that the server keeps: the turn whose branch is open, empty for the newest; null if it is new. */
  readonly leaf?: string | null | undefined;
}

/** What a thread may use of its chat. */
export interface ThreadHost {
  readonly api: Api;
  /** All turns that are known, shown or not. */
  turns(): readonly Turn[];
  /** Replace them, and show that. */
  update(turns: readonly Turn[]): void;
  show(conversation: ConversationState): void;
  /** Read what the server has of a reply. */
  refetch(key: string): Promise<void>;
  /** Go on without a server that keeps conversations. */
  fallBack(): void;
}

export interface Thread {
  /** Whether messages may be sent: it is known that the server keeps conversations. */
  isReady(): boolean;
  /** The turns that are shown. */
  path(): readonly Turn[];
  /** Where the user's turn `key` will stand, whose branch is shown: behind what is shown, or beside `instead`. */
  place(key: string, instead?: string): Place;
  /** Make a sibling of a reply that has ended, or, unless `again`, failed; false if the server has none such. */
  again(key: string, again: boolean): boolean;
  /** The fields of a request instead of a history; undefined while it has to wait. */
  to(reply: Reply, user: UserTurn): object | undefined;
  headers(): object;
  /** Note that the request for a reply was answered with its id. */
  accepted(key: string): void;
  /** Take an event that is none of a reply. */
  receive(name: string, data: unknown): void;
  setLive(isLive: boolean, socketId: string | undefined): void;
  restore(saved: Saved | null): void;
  /** What is to be kept; null for no change. */
  saved(): Saved | null;
  open(id: string | null): void;
  switchBranch(key: string, step: number): void;
  loadEarlier(): Promise<void>;
  close(): void;
}

/** For the `conversations` option of a chat. */
export type ServerConversations = (host: ThreadHost) => Thread;
