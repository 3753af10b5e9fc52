// Builds the console into dist/: one script, one style sheet, both named by their content, the page that loads them, and the
// licences of what others wrote of it.
// Prints what a browser has to fetch, gzipped, and fails when that is more than the console may weigh.
import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/** Most bytes of all files together, gzipped. */
const GZIPPED_BYTES_MAX = 1024 * 1024;

/** Licences that a package of the console may have: those of deny.toml. */
const LICENCES = new Set(["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Zlib"]);

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
const result = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: "dist",
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  format: "esm",
  target: ["chrome105", "firefox110", "safari16"],
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  metafile: true,
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "warning",
});

const outputs = Object.keys(result.metafile.outputs).map((path) => path.replace(/^dist\//, ""));
const named = (ending) => {
  const found = outputs.find((name) => name.startsWith("app-") && name.endsWith(ending));
  if (!found) throw new Error(`the build made no app-*${ending}`);
  return found;
};
const page = (await readFile(join(here, "index.html"), "utf8"))
  .replace("__SCRIPT__", `/console/${named(".js")}`)
  .replace("__STYLE__", `/console/${named(".css")}`);
await writeFile(join(dist, "index.html"), page);

await writeFile(join(dist, "licences.txt"), await licences(packagesOf(result.metafile.inputs)));

let total = 0;
for (const name of (await readdir(dist)).sort()) {
  const bytes = await readFile(join(dist, name));
  const gzipped = gzipSync(bytes, { level: 9 }).length;
  total += gzipped;
  console.log(`${name}: ${bytes.length} bytes, ${gzipped} gzipped`);
}
console.log(`console: ${total} bytes gzipped (limit ${GZIPPED_BYTES_MAX})`);
if (total > GZIPPED_BYTES_MAX) {
  console.error("the console has become too big");
  process.exit(1);
}

/** Folders of the packages that something was taken from. */
function packagesOf(inputs) {
  const folders = new Set();
  for (const path of Object.keys(inputs)) {
    const found = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path);
    if (found) folders.add(found[1]);
  }
  return [...folders].sort();
}

/** Their licences, one after the other. A package without one, or with one that isn't allowed, stops the build. */
async function licences(folders) {
  const parts = [];
  for (const folder of folders) {
    const { name, version, license } = JSON.parse(await readFile(join(here, folder, "package.json"), "utf8"));
    if (!LICENCES.has(license)) throw new Error(`${name} is under ${license}, which isn't allowed`);
    const file = (await readdir(join(here, folder))).find((one) => /^licen[cs]e(\.|$)/i.test(one));
    if (!file) throw new Error(`${name} has no text of its licence`);
    parts.push(`${name} ${version} (${license})\n\n${(await readFile(join(here, folder, file), "utf8")).trim()}\n`);
  }
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}
