"use client";

/** `legato-client/react`: a chat as a hook. */

import { useMemo, useSyncExternalStore } from "react";

import { createChat, type Chat, type ChatOptions, type ChatSnapshot } from "./chat.js";

/** What is shown, and what can be done. The functions are always the same. */
export type UsedChat = ChatSnapshot & Omit<Chat, "getSnapshot" | "subscribe">;

const isChat = (given: Chat | ChatOptions): given is Chat => "getSnapshot" in given;

/**
 * Use a chat: one that was made with `createChat` and that several components may share, or, with options, one of
 * this component alone. Options count when the component appears and when `userId` changes.
 */
export function useChat(given: Chat | ChatOptions): UsedChat {
  const identity = isChat(given) ? given : given.userId;
  // A chat that nobody subscribes to does nothing, so one too many, as in StrictMode, costs nothing.
  const chat = useMemo(() => (isChat(given) ? given : createChat(given)), [identity]);
  const initial = useMemo(() => chat.getSnapshot, [chat]);
  const snapshot = useSyncExternalStore(chat.subscribe, chat.getSnapshot, initial);
  return useMemo(() => ({ ...chat, ...snapshot }), [chat, snapshot]);
}
