// `node build.mjs`: dist/legato.js and dist/page/. `node build.mjs test`: the tests, so that Node 20 can run them.
import { build } from "esbuild";
import { cp, mkdir, readdir, rm } from "node:fs/promises";

const shared = { bundle: true, format: "esm", target: "es2022", logLevel: "warning" };

async function buildTests() {
  await rm("dist/test", { recursive: true, force: true });
  const files = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: files.map((name) => `test/${name}`),
    outdir: "dist/test",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    packages: "external",
    sourcemap: "inline",
  });
}

async function buildPage() {
  await mkdir("dist/page", { recursive: true });
  await build({
    ...shared,
    entryPoints: { page: "page/main.ts", style: "page/style.css" },
    outdir: "dist/page",
    format: "iife",
    minify: true,
    // pusher-js names its Node build `main`; the page needs the browser's.
    mainFields: ["browser", "module", "main"],
    legalComments: "none",
  });
  await cp("page/index.html", "dist/page/index.html");
}

async function buildLibrary() {
  await build({ ...shared, entryPoints: ["src/index.ts"], outfile: "dist/legato.js" });
}

if (process.argv[2] === "test") {
  await buildTests();
} else {
  await Promise.all([buildLibrary(), buildPage()]);
}
