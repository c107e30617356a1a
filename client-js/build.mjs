// `node build.mjs`: dist/esm, dist/cjs, dist/browser and dist/page. `library`: without the page. `test`: the tests, so
// that Node 20 can run them.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { cp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { extname } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";

const shared = { target: "es2022", logLevel: "warning" };
const bundled = { ...shared, bundle: true, format: "esm" };

async function buildTests() {
  await rm("dist/test", { recursive: true, force: true });
  const files = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...bundled,
    entryPoints: files.map((name) => `test/${name}`),
    outdir: "dist/test",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    packages: "external",
    // React and Vue look for a document when they are loaded; what is bundled runs after what is not.
    external: ["./dom.mjs"],
    sourcemap: "inline",
  });
  await cp("test/dom.mjs", "dist/test/dom.mjs");
}

const PAGE = "dist/page";
const PACKED = /\.(html|js|css|svg|webmanifest)$/;

/** The page: what has a hash in its name is below `assets/`, and the rest names that. */
async function buildPage() {
  await rm(PAGE, { recursive: true, force: true });
  await cp("page/static", PAGE, { recursive: true });
  const { metafile } = await build({
    ...bundled,
    entryPoints: { page: "page/main.ts", style: "page/styles/main.css" },
    outdir: PAGE,
    entryNames: "assets/[name]-[hash]",
    chunkNames: "assets/[name]-[hash]",
    splitting: true,
    metafile: true,
    minify: true,
    // pusher-js names its Node build `main`; the page needs the browser's.
    mainFields: ["browser", "module", "main"],
    legalComments: "none",
  });
  const made = Object.keys(metafile.outputs).map((path) => path.slice(PAGE.length + 1));
  const hashed = (name) =>
    made.find(
      (path) =>
        path.startsWith(`assets/${name.replace(/\..*/, "-")}`) && extname(path) === extname(name),
    );
  const html = (await readFile("page/index.html", "utf8")).replace(
    /(href|src)="(style\.css|page\.js)"/g,
    (_, attribute, name) => `${attribute}="${hashed(name)}"`,
  );
  await writeFile(`${PAGE}/index.html`, html);
  // Colours for code and icons are not needed to start.
  const needed = made.filter((path) => !path.includes("/highlight-"));
  await buildWorker(["", "icon.svg", "manifest.webmanifest", ...needed], html);
  await pack(PAGE);
}

/** The service worker: it keeps the files of this build, and another build has another version. */
async function buildWorker(paths, html) {
  const SHELL = paths.map((path) => `./${path}`);
  const VERSION = createHash("sha256").update(html).update(SHELL.join()).digest("hex").slice(0, 12);
  await build({
    ...bundled,
    entryPoints: ["page/sw.ts"],
    outfile: `${PAGE}/sw.js`,
    format: "iife",
    minify: true,
    define: { SHELL: JSON.stringify(SHELL), VERSION: JSON.stringify(VERSION) },
  });
}

/** Beside each text its compressed forms, so that the server need not make them. */
async function pack(folder) {
  const names = await readdir(folder, { recursive: true });
  await Promise.all(
    names
      .filter((name) => PACKED.test(name))
      .map(async (name) => {
        const bytes = await readFile(`${folder}/${name}`);
        await writeFile(`${folder}/${name}.br`, brotliCompressSync(bytes));
        await writeFile(`${folder}/${name}.gz`, gzipSync(bytes, { level: 9 }));
      }),
  );
}

// One file for each module, so that the subpaths share what they have in common.
async function buildModules(format, type) {
  const outdir = `dist/${format}`;
  await build({ ...shared, format, entryPoints: ["src/*.ts"], outdir });
  await writeFile(`${outdir}/package.json`, `{ "type": "${type}", "sideEffects": false }\n`);
}

// For a page without a build: `legato.createChat`, `legato.legatoAlpine`.
async function buildForScriptTag() {
  await build({
    ...bundled,
    entryPoints: ["src/script-tag.ts"],
    outfile: "dist/browser/legato.min.js",
    format: "iife",
    globalName: "legato",
    minify: true,
  });
}

// Each module by itself, as `isolatedDeclarations` has it: `npm run check` is what looks at them together.
async function buildTypes(formats) {
  const { default: ts } = await import("typescript");
  const { config } = ts.readConfigFile("tsconfig.json", ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, ".");
  for (const fileName of await readdir("src")) {
    const source = await readFile(`src/${fileName}`, "utf8");
    const made = ts.transpileDeclaration(source, {
      fileName,
      compilerOptions: options,
      reportDiagnostics: true,
    });
    const [problem] = made.diagnostics;
    if (problem)
      throw new Error(`${fileName}: ${ts.flattenDiagnosticMessageText(problem.messageText, " ")}`);
    const types = fileName.replace(/\.ts$/, ".d.ts");
    for (const format of formats) await writeFile(`dist/${format}/${types}`, made.outputText);
  }
}

async function buildLibrary() {
  await Promise.all([
    buildModules("esm", "module"),
    buildModules("cjs", "commonjs"),
    buildForScriptTag(),
  ]);
  await buildTypes(["esm", "cjs"]);
}

switch (process.argv[2]) {
  case "test":
    await buildTests();
    break;
  case "library":
    await buildLibrary();
    break;
  default:
    await Promise.all([buildLibrary(), buildPage()]);
}
