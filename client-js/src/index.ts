/** `legato-client`: a chat as an observable store over a stock Echo. What is more than text is in subpaths. */

export { ApiError, type ApiOptions, type TokenSource } from "./api.js";
export { createChat, tooLong, type Chat, type ChatOptions, type ChatSnapshot } from "./chat.js";
export type { Connection, EchoLike, PusherLike } from "./connection.js";
export type { Keeper } from "./conversation.js";
export type { ErrorKind } from "./errors.js";
export type { Gap } from "./exchange.js";
export type {
  HistoryItem,
  MessageOptions,
  PartRules,
  Reply,
  Status,
  Turn,
  UserTurn,
} from "./reducer.js";
export type { ChatError, ConversationState, Saved, ServerConversations } from "./thread.js";
