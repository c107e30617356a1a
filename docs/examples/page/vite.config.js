import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { defineConfig, transformWithOxc } from "vite";

const file = (path) => fileURLToPath(new URL(path, import.meta.url));

const LEGATO = process.env.LEGATO_URL ?? "http://127.0.0.1:8080";

/** As `legato up` sends it with its page; whoever serves this one in production sends it, too. */
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
  "connect-src 'self' ws: wss:; manifest-src 'self'; worker-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'";

/** The page names what Legato's own build makes; Vite begins with the sources, and finds the icons in `page/static`. */
const entries = {
  name: "legato-entries",
  transformIndexHtml: {
    order: "pre",
    handler: (html) =>
      html
        .replace('"style.css"', '"/styles/main.css"')
        .replace('"page.js"', '"/main.ts"')
        .replace(/href="(icon|manifest)/g, 'href="/$1'),
  },
};

/** The service worker keeps the files of this build, but for the colours of code, which are not needed to start. */
const serviceWorker = {
  name: "legato-service-worker",
  apply: "build",
  enforce: "post", // when index.html is there
  async generateBundle(_, bundle) {
    const files = Object.keys(bundle).filter((name) => !/^index\.html$|\/highlight-/.test(name));
    const shell = [
      "./",
      "./icon.svg",
      "./manifest.webmanifest",
      ...files.map((name) => `./${name}`),
    ];
    const version = createHash("sha256")
      .update(bundle["index.html"].source)
      .digest("hex")
      .slice(0, 12);
    const path = file("page/sw.ts");
    const { code } = await transformWithOxc(await readFile(path, "utf8"), path);
    const known = `const SHELL = ${JSON.stringify(shell)}, VERSION = "${version}";`;
    this.emitFile({
      type: "asset",
      fileName: "sw.js",
      source: `(() => {\n${known}\n${code}})();\n`,
    });
  },
};

export default defineConfig({
  root: file("page"),
  base: "./",
  publicDir: "static",
  optimizeDeps: { entries: ["main.ts"] },
  build: { outDir: "../dist", emptyOutDir: true, target: "es2022" },
  // The page speaks to the server that it comes from. `preview` does the same.
  server: {
    proxy: { "^/(api|app|broadcasting|dev)/": { target: LEGATO, changeOrigin: true, ws: true } },
  },
  preview: { headers: { "Content-Security-Policy": CSP } },
  plugins: [entries, serviceWorker],
});
