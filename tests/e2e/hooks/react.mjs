import * as hooks from "@laravel/echo-react";
import { createElement, StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { offer } from "./page.mjs";

function mount(element, use) {
  const Component = () => (use() ?? []).join(" ");
  const root = createRoot(element);
  // In development this runs each effect twice: subscribe, leave, subscribe.
  root.render(createElement(StrictMode, null, createElement(Component)));
  return () => root.unmount();
}

offer(hooks, mount);
