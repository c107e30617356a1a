/** `legato-client/conversations`: what the server keeps of a user's conversations, with their branches. */

export {
  createConversations,
  type ConversationList,
  type ConversationsOptions,
  type ConversationsSnapshot,
} from "./conversation-list.js";
export { serverConversations, type ServerConversationsOptions } from "./server-conversations.js";
export type { ConversationItem } from "./stored.js";
