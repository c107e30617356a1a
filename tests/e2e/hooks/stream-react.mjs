// What a page of an application has that uses the stream hooks: `window.mount(use)` runs hooks, and shows what
// `use()` returns as JSON. It returns what removes them.

import { useChat } from "@ai-sdk/react";
import * as stream from "@laravel/stream-react";
import { DefaultChatTransport } from "ai";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

window.hooks = { ...stream, useChat, DefaultChatTransport };
window.mount = (use) => {
  const Component = () => JSON.stringify(use());
  const root = createRoot(document.body.appendChild(document.createElement("output")));
  root.render(createElement(Component));
  return () => root.unmount();
};

/** Wait until the text that a hook shows has stayed the same for a moment: React shows it later than it says so. */
window.settled = async (seen) => {
  for (let text; text !== seen.text;) {
    text = seen.text;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
};
