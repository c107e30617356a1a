/** `legato-client/reducer`: the conversation as a pure function, without HTTP, storage or clock. */

export {
  frameTypes,
  parseFrame,
  parseReplyLog,
  type Frame,
  type PartFrame,
  type ReplyLog,
  type ServerStatus,
} from "./frames.js";
export { MAX_HISTORY, MAX_HISTORY_CHARACTERS, MAX_MESSAGE } from "./limits.js";
export {
  EMPTY,
  history,
  isActive,
  isUnsent,
  missingFrom,
  reduce,
  type Action,
  type ChatState,
  type Effect,
  type HistoryItem,
  type MessageOptions,
  type PartRules,
  type PendingRequest,
  type Reply,
  type Status,
  type Turn,
  type UserTurn,
} from "./reducer.js";
