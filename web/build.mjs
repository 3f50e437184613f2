// Builds the pages into src/meshkiln/studio, which is committed and shipped: nobody needs node to install or run.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "src", "meshkiln", "studio");
mkdirSync(out, { recursive: true });
for (const name of readdirSync(out)) if (!name.startsWith("__")) rmSync(join(out, name), { recursive: true });

await build({
  absWorkingDir: here,
  // A script for each page; the viewer apart, for it is loaded only when there is a mesh to look at. What several use
  // becomes a file of its own.
  entryPoints: { studio: "src/studio.tsx", operations: "src/operations.tsx", viewer: "src/viewer.ts", style: "src/style.css" },
  outdir: out,
  chunkNames: "shared-[hash]",
  bundle: true,
  external: ["/studio/*"],
  format: "esm",
  splitting: true,
  minify: true,
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  logLevel: "warning",
});
const sources = readdirSync(join(here, "src"));
for (const name of sources) if (/\.(html|svg)$/.test(name)) writeFileSync(join(out, name), readFileSync(join(here, "src", name)));

// A test compares this with the sources, so that a page built from something older is noticed.
const digest = createHash("sha256");
for (const name of ["build.mjs", "package.json", "package-lock.json", ...sources.map((name) => `src/${name}`)].sort()) {
  digest.update(`${name}\n`).update(readFileSync(join(here, name))).update("\n");
}
writeFileSync(join(out, "built-from"), `${digest.digest("hex")}\n`);
