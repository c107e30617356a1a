// The same for `@laravel/stream-vue`: `use` is called once, and what `use()` returns may have refs.

import * as stream from "@laravel/stream-vue";
import { createApp, unref } from "vue";

window.hooks = stream;
window.mount = (use) => {
  const setup = () => {
    const used = use();
    const shown = () => Object.entries(used).map(([name, value]) => [name, unref(value)]);
    return () => JSON.stringify(Object.fromEntries(shown()));
  };
  const app = createApp({ setup });
  app.mount(document.body.appendChild(document.createElement("output")));
  return () => app.unmount();
};
