// The chat's state, which lives in the browser. Its transport is Echo, and nothing here knows of Legato.

import Echo from "laravel-echo";

const HISTORY_TURNS = 20;
const UNFINISHED = ["thinking", "streaming"];

const csrfToken = () => document.querySelector('meta[name="csrf-token"]').content;

async function post(url, body = {}) {
  const response = await fetch(url, {
    method: "POST",
    headers: {
      Accept: "application/json",
      "Content-Type": "application/json",
      "X-CSRF-TOKEN": csrfToken(),
    },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.json();
}

export const aiChat = (userId) => ({
  messages: [],
  input: "",
  activeStreams: {},
  echo: null,
  subscribed: false,

  init() {
    this.echo = new Echo({
      broadcaster: "reverb",
      key: import.meta.env.VITE_REVERB_APP_KEY,
      wsHost: import.meta.env.VITE_REVERB_HOST,
      wsPort: import.meta.env.VITE_REVERB_PORT,
      forceTLS: false,
      enabledTransports: ["ws", "wss"],
    });
    this.echo
      .private(`ai-chat.${userId}`)
      .subscribed(() => (this.subscribed = true))
      .listen(".token.received", (event) => this.onToken(event))
      .listen(".stream.completed", (event) => this.onCompleted(event))
      .listen(".stream.failed", (event) => this.onFailed(event));
    window.addEventListener("beforeunload", () => this.echo.disconnect());
  },

  get isStreaming() {
    return Object.keys(this.activeStreams).length > 0;
  },

  async send() {
    const text = this.input.trim();
    if (!text || this.isStreaming) return;
    this.input = "";
    const history = this.history();
    const question = this.push("user", text, "complete");
    const reply = this.push("assistant", "", "thinking");
    try {
      const { message_id } = await post("/api/chat/send", { message: text, history });
      reply.serverId = message_id;
      this.activeStreams[message_id] = true;
    } catch {
      question.status = "failed"; // a message that was refused would have all later ones refused
      this.end(reply, "failed", "Failed to send. Please try again.");
    }
  },

  async cancel() {
    for (const serverId of Object.keys(this.activeStreams)) {
      await post(`/api/chat/${serverId}/cancel`);
      this.end(this.find(serverId), "cancelled");
    }
  },

  /** The newest turns, without replies that are not finished. */
  history() {
    const isSaid = ({ role, status, content }) =>
      content && !UNFINISHED.includes(status) && !(role === "user" && status === "failed");
    return this.messages
      .filter(isSaid)
      .slice(-HISTORY_TURNS)
      .map(({ role, content }) => ({ role, content }));
  },

  /** Gives the turn as Alpine sees it, so that its changes show. */
  push(role, content, status) {
    const turn = { clientId: crypto.randomUUID(), serverId: null, role, content, status };
    this.messages.push({ ...turn, lastIndex: -1, error: "" });
    return this.messages.at(-1);
  },

  find(serverId) {
    return this.messages.find((turn) => turn.serverId === serverId);
  },

  end(reply, status, error = "") {
    reply.status = status;
    reply.error = error;
    delete this.activeStreams[reply.serverId];
  },

  onToken({ messageId, token, tokenIndex }) {
    const reply = this.find(messageId);
    if (!reply || !UNFINISHED.includes(reply.status)) return;
    if (tokenIndex !== reply.lastIndex + 1) {
      console.warn("Gap in the stream", { messageId, expected: reply.lastIndex + 1, tokenIndex });
    }
    reply.status = "streaming";
    reply.content += token;
    reply.lastIndex = tokenIndex;
  },

  onCompleted({ messageId }) {
    const reply = this.find(messageId);
    if (reply) this.end(reply, "complete");
  },

  onFailed({ messageId, error }) {
    const reply = this.find(messageId);
    if (reply) this.end(reply, "failed", error);
  },
});
