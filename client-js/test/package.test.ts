/** What `npm pack` makes in a fresh clone, and what becomes of it in somebody's empty folder. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build, type Loader } from "esbuild";
import { compileScript, parse } from "vue/compiler-sfc";

const run = promisify(execFile);
const ROOT = process.cwd();
const BIN = path.join(ROOT, "node_modules", ".bin");

/** In bytes, minified and gzipped. */
const MAX_SIZES = { "legato-client": 7.5 * 1024, "legato-client/core": 6 * 1024 };

/** What a clone has that matters for the package. */
const CLONED = ["src", "build.mjs", "package.json", "tsconfig.json", "README.md", "LICENSE"];

interface Manifest {
  readonly exports: Readonly<Record<string, unknown>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
  readonly dependencies?: object;
}

let place: string;
let tarball: string;
let installed: string;
let manifest: Manifest;

before(async () => {
  place = await mkdtemp(path.join(tmpdir(), "legato-client-"));
  const clone = path.join(place, "clone");
  await mkdir(clone);
  for (const name of CLONED) await cp(name, path.join(clone, name), { recursive: true });
  await symlink(path.join(ROOT, "node_modules"), path.join(clone, "node_modules"));
  const { stdout } = await run("npm", ["pack", "--silent", "--pack-destination", place], {
    cwd: clone,
  });
  tarball = path.join(place, stdout.trim().split("\n").at(-1) ?? "");

  const modules = path.join(place, "app", "node_modules");
  installed = path.join(modules, "legato-client");
  await mkdir(installed, { recursive: true });
  await run("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"]);
  manifest = JSON.parse(await readFile(path.join(installed, "package.json"), "utf8")) as Manifest;
  for (const name of Object.keys(manifest.peerDependencies))
    await symlink(path.join(ROOT, "node_modules", name), path.join(modules, name));
});

after(() => rm(place, { recursive: true, force: true }));

/** The script of a single-file component, with its template. */
function scriptOf(component: string): string {
  const { descriptor, errors } = parse(component);
  assert.deepEqual(errors, []);
  return compileScript(descriptor, { id: "example", inlineTemplate: true }).content;
}

const subpaths = (): string[] =>
  Object.keys(manifest.exports)
    .filter((name) => !name.endsWith(".json"))
    .map((name) => `legato-client${name.slice(1)}`);

/** What a program prints in the app's folder. */
async function printed(name: string, source: string): Promise<string> {
  const file = path.join(place, "app", name);
  await writeFile(file, source);
  return (await run(process.execPath, [file])).stdout.trim();
}

describe("the package", () => {
  test("has its licence, its readme and its modules, and no source or test", async () => {
    const files = await readdir(installed, { recursive: true });
    for (const name of [
      "LICENSE",
      "README.md",
      "dist/esm/index.js",
      "dist/cjs/index.d.ts",
      "dist/browser/legato.min.js",
    ])
      assert.ok(files.includes(name), name);
    assert.deepEqual(
      files.filter((name) => /(^|\/)(src|test|page)(\/|$)|node_modules/.test(name)),
      [],
    );
  });

  test("needs nothing else", () => {
    assert.equal(manifest.dependencies, undefined);
  });

  test("gives the same names to import and to require, in each subpath", async () => {
    const names = JSON.stringify(subpaths());
    const imported = await printed(
      "all.mjs",
      `const all = {};
       for (const name of ${names}) all[name] = Object.keys(await import(name)).filter((key) => key !== "default").sort();
       console.log(JSON.stringify(all));`,
    );
    const required = await printed(
      "all.cjs",
      `const all = {};
       for (const name of ${names}) all[name] = Object.keys(require(name)).sort();
       console.log(JSON.stringify(all));`,
    );
    assert.equal(imported, required);
    const all = JSON.parse(imported) as Record<string, string[]>;
    assert.deepEqual(all["legato-client"], ["ApiError", "createChat", "tooLong"]);
    assert.deepEqual(all["legato-client/core"], ["createChat"]);
    assert.deepEqual(all["legato-client/react"], ["useChat"]);
    assert.deepEqual(all["legato-client/vue"], ["useChat"]);
    assert.deepEqual(all["legato-client/alpine"], ["legatoAlpine"]);
  });

  test("builds the examples of its readme", async () => {
    const readme = await readFile("README.md", "utf8");
    const examples = [...readme.matchAll(/^```(js|jsx|vue)\n(.*?)^```$/gms)];
    const kinds = new Set(examples.map(([, kind]) => kind));
    assert.deepEqual([...kinds].sort(), ["js", "jsx", "vue"]);
    for (const [, kind = "", code = ""] of examples) {
      await build({
        stdin: {
          contents: kind === "vue" ? scriptOf(code) : code,
          loader: (kind === "vue" ? "js" : kind) as Loader,
          resolveDir: path.join(place, "app"),
        },
        ...{ bundle: true, format: "esm", jsx: "automatic", write: false, logLevel: "silent" },
        external: ["alpinejs", "laravel-echo", "pusher-js", "react", "vue"],
      });
    }
  });

  test("loads neither React nor Vue without being asked", async () => {
    const names = subpaths().filter((name) => !/react|vue/.test(name));
    for (const name of Object.keys(manifest.peerDependencies))
      await rm(path.join(place, "app", "node_modules", name));
    try {
      const source = names.map((name) => `await import("${name}");`).join("\n");
      assert.equal(await printed("alone.mjs", `${source}\nconsole.log("fine");`), "fine");
    } finally {
      for (const name of Object.keys(manifest.peerDependencies))
        await symlink(
          path.join(ROOT, "node_modules", name),
          path.join(place, "app", "node_modules", name),
        );
    }
  });

  test("is small, and its core smaller", async (t) => {
    const readme = await readFile("README.md", "utf8");
    for (const [name, limit] of Object.entries(MAX_SIZES)) {
      const { outputFiles } = await build({
        stdin: { contents: `export * from "${name}";`, resolveDir: path.join(place, "app") },
        ...{ bundle: true, minify: true, format: "esm", target: "es2022", write: false },
      });
      const size = gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
      t.diagnostic(`${name} has ${String(size)} bytes, minified and gzipped`);
      assert.ok(size <= limit, `${name} has ${String(size)} bytes`);
      const [, said] = new RegExp(`\`${name}\` .*?([\\d.]+) KB gzipped`).exec(readme) ?? [];
      const isRight = Math.abs(Number(said) * 1000 - size) < 100;
      assert.ok(isRight, `the readme says that ${name} has ${String(said)} KB`);
    }
  });

  test("satisfies publint", async () => {
    const { stdout } = await run(path.join(BIN, "publint"), [
      "run",
      "--strict",
      "--pack",
      "false",
      installed,
    ]);
    assert.match(stdout, /All good!/);
  });

  test("satisfies Are the types wrong", async () => {
    const { stdout } = await run(path.join(BIN, "attw"), [tarball, "--format", "json"]).catch(
      (error: unknown) => error as { stdout: string },
    );
    const { problems } = JSON.parse(stdout) as { problems: object };
    assert.deepEqual(problems, {});
  });
});
