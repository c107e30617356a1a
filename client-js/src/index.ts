export { Api, ApiError, type ApiOptions, type SendBody } from "./api.js";
export {
  legatoChat,
  type ChatComponent,
  type ChatOptions,
  type Connection,
  type EchoChannel,
  type EchoLike,
} from "./chat.js";
export { Conversation, type ConversationOptions, type Gap } from "./conversation.js";
export { parseFrame, parseReplyLog, FRAME_TYPES, type Frame, type ReplyLog } from "./frames.js";
export { MAX_HISTORY, MAX_HISTORY_CHARACTERS, MAX_MESSAGE } from "./limits.js";
export {
  EMPTY,
  history,
  isActive,
  missingFrom,
  reduce,
  type Action,
  type ChatState,
  type Effect,
  type HistoryItem,
  type PendingRequest,
  type Reply,
  type Status,
  type Turn,
} from "./reducer.js";
