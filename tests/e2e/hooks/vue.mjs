import * as hooks from "@laravel/echo-vue";
import { createApp, unref } from "vue";

import { offer } from "./page.mjs";

function mount(element, use) {
  const setup = () => {
    const values = use() ?? [];
    return () => values.map(unref).join(" ");
  };
  const app = createApp({ setup });
  app.mount(element);
  return () => app.unmount();
}

offer(hooks, mount);
