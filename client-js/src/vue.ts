/** `legato-client/vue`: a chat as a composable. */

import {
  computed,
  getCurrentInstance,
  onMounted,
  onScopeDispose,
  shallowRef,
  type ComputedRef,
} from "vue";

import { createChat, type Chat, type ChatOptions, type ChatSnapshot } from "./chat.js";

/** What is shown, as refs, and what can be done. */
export type UsedChat = {
  readonly [Name in keyof ChatSnapshot]: ComputedRef<ChatSnapshot[Name]>;
} & Omit<Chat, "getSnapshot" | "subscribe">;

/**
 * Use a chat: one that was made with `createChat` and that several components may share, or, with options, one of
 * this component alone. It listens from when the component is mounted until it is gone.
 */
export function useChat(given: Chat | ChatOptions): UsedChat {
  const chat = "getSnapshot" in given ? given : createChat(given);
  const snapshot = shallowRef(chat.getSnapshot());
  let unsubscribe: (() => void) | undefined;
  const subscribe = (): void => {
    const show = (): void => {
      snapshot.value = chat.getSnapshot();
    };
    unsubscribe = chat.subscribe(show);
    show();
  };
  if (getCurrentInstance()) onMounted(subscribe);
  else subscribe();
  onScopeDispose(() => unsubscribe?.());
  return {
    ...chat,
    turns: computed(() => snapshot.value.turns),
    connection: computed(() => snapshot.value.connection),
    activeStreams: computed(() => snapshot.value.activeStreams),
    canSend: computed(() => snapshot.value.canSend),
    error: computed(() => snapshot.value.error),
    conversation: computed(() => snapshot.value.conversation),
  };
}
