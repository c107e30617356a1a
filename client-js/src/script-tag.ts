/** `dist/browser/legato.min.js`: all but the frameworks, for a page without a build. */

export * from "./index.js";
export { legatoAlpine } from "./alpine.js";
export { channelAuth } from "./auth.js";
export { createConversations, serverConversations } from "./conversations.js";
export { keepIn } from "./storage.js";
export * from "./with-parts.js";
