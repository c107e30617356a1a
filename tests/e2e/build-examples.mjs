// `node build-examples.mjs FOLDER`: builds the examples with a package.json there, against LEGATO_URL, with the
// packages of these tests instead of a `node_modules` each. tests/test_examples.py compares the versions.

import { build as bundle } from "esbuild";
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { build } from "vite";

import { LEGATO_URL } from "./legato.mjs";

const EXAMPLES = resolve("../../docs/examples");
const CLIENT = resolve("../../client-js");
const [folder] = process.argv.slice(2);

/** What the chat page has and these tests have not: these are the packages that Legato's own page is built with. */
const OF_THE_PAGE = ["@alpinejs", "highlight.js", "lowlight", "marked"];

/** The build's variables instead of those in the examples' `.env`. */
const { hostname, port } = new URL(LEGATO_URL);
const VARIABLES = {
  VITE_LEGATO_URL: LEGATO_URL,
  VITE_REVERB_APP_KEY: "app-key",
  VITE_REVERB_HOST: hostname,
  VITE_REVERB_PORT: port,
  VITE_REVERB_SCHEME: "http",
};
Object.assign(process.env, VARIABLES);

/** The packages of these tests, and `legato-client` as `npm pack` would have it. */
async function install() {
  const modules = join(folder, "node_modules");
  await mkdir(modules);
  const link = (from, names) =>
    Promise.all(names.map((name) => symlink(resolve(from, name), join(modules, name))));
  await link("node_modules", (await readdir("node_modules")).filter((name) => !name.startsWith(".")));
  await link(join(CLIENT, "node_modules"), OF_THE_PAGE);
  for (const part of ["package.json", "dist/esm", "dist/cjs"])
    await cp(join(CLIENT, part), join(modules, "legato-client", part), { recursive: true });
  await mkdir(join(folder, "html"));
  await cp(join(CLIENT, "dist/browser/legato.min.js"), join(folder, "html/legato.min.js"));
}

/** `vite build`. */
async function buildExample(name, options = {}) {
  const root = join(folder, name);
  await cp(join(EXAMPLES, name), root, { recursive: true });
  await build({ root, logLevel: "warn", ...options });
}

/** The chat page, whose sources are copied as its README says. */
async function buildPage() {
  const root = join(folder, "page");
  await cp(join(EXAMPLES, "page"), root, { recursive: true });
  for (const part of ["page", "src"]) await cp(join(CLIENT, part), join(root, part), { recursive: true });
  await build({ configFile: join(root, "vite.config.js"), logLevel: "warn" });
}

/** As Laravel's Vite would; with the page of the Alpine example, where back ends have the files of their pages. */
async function buildForLaravel() {
  const dist = join(folder, "article/dist");
  const page = await readFile(join(EXAMPLES, "alpine/index.html"), "utf8");
  await writeFile(join(dist, "laravel.html"), page.replace("/src/main.js", "bootstrap.js"));
  const variables = Object.entries(VARIABLES);
  await bundle({
    entryPoints: [join(EXAMPLES, "laravel/resources/js/bootstrap.js")],
    outfile: join(dist, "bootstrap.js"),
    bundle: true,
    format: "esm",
    nodePaths: [join(folder, "node_modules")],
    define: Object.fromEntries(
      variables.map(([name, value]) => [`import.meta.env.${name}`, JSON.stringify(value)]),
    ),
  });
}

await install();
await Promise.all([
  cp(join(EXAMPLES, "html"), join(folder, "html"), { recursive: true }),
  // StrictMode does nothing in a production build of React.
  buildExample("react", { base: "./", define: { "process.env.NODE_ENV": '"development"' } }),
  buildExample("vue", { base: "./" }),
  buildExample("alpine", { base: "./" }),
  buildExample("article").then(buildForLaravel),
  buildPage(),
]);
