// Pages in Chromium with the hooks of Laravel's stream packages, bundled as an application bundles them.

import { build } from "esbuild";

import { launch } from "../browser.mjs";
import { LEGATO_URL } from "../legato.mjs";

export class Hooks {
  #bundles = {};

  static async start() {
    const hooks = new Hooks();
    hooks.browser = await launch();
    return hooks;
  }

  close() {
    return this.browser.close();
  }

  /** A page of the application, on the server's own origin. `script`: its file in `hooks`. */
  async visit(script = "stream-react") {
    this.#bundles[script] ??= await bundled(`hooks/${script}.mjs`);
    const page = await this.browser.newPage();
    await page.route(`${LEGATO_URL}/application`, (route) =>
      route.fulfill({ contentType: "text/html", body: "<!doctype html><body></body>" }),
    );
    await page.goto(`${LEGATO_URL}/application`);
    await page.addScriptTag({ content: this.#bundles[script] });
    return new HookPage(page, this.#bundles[script]);
  }
}

async function bundled(entry) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "iife",
    define: {
      "process.env.NODE_ENV": '"production"',
      __VUE_OPTIONS_API__: "false",
      __VUE_PROD_DEVTOOLS__: "false",
      __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
    },
  });
  return outputFiles[0].text;
}

class HookPage {
  constructor(page, bundle) {
    this.page = page;
    this.bundle = bundle;
  }

  async reload() {
    await this.page.reload();
    await this.page.addScriptTag({ content: this.bundle });
  }

  close() {
    return this.page.close();
  }

  /** Read until the hook says that it is over. */
  useEventStream(url) {
    const use = (url) =>
      new Promise((resolve) => {
        const seen = { text: "", completed: 0, failed: 0 };
        const end = async () => {
          await window.settled(seen);
          unmount();
          resolve(seen);
        };
        const tell = (name) => () => {
          seen[name] += 1;
          void end();
        };
        const options = { glue: "", onComplete: tell("completed"), onError: tell("failed") };
        const unmount = window.mount(() => {
          seen.text = window.hooks.useEventStream(url, options).message ?? "";
        });
      });
    return this.page.evaluate(use, url);
  }

  /** Send a message, and read until the hook says that it is over. */
  useStream(message, { headers }) {
    const use = ({ message, headers }) =>
      new Promise((resolve) => {
        const seen = { id: "", text: "", failed: "", finished: 0 };
        const end = async () => {
          await window.settled(seen);
          unmount();
          resolve(seen);
        };
        const options = {
          headers,
          onResponse: (response) => (seen.id = response.headers.get("x-message-id")),
          onError: (error) => (seen.failed = error.message),
          onFinish: () => {
            seen.finished += 1;
            void end();
          },
        };
        let isSent = false;
        const unmount = window.mount(() => {
          const { data, send } = window.hooks.useStream("/api/chat/text", options);
          seen.text = data;
          if (!isSent) setTimeout(() => send({ message }));
          isSent = true;
        });
      });
    return this.page.evaluate(use, { message, headers });
  }
}
