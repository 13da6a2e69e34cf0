// Bundle scripts and styles into ../assets, beside the page. Run by `make explorer`, which copies the sources to a folder of their own first.

import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";

const out = process.argv[2];
const license = readFileSync("node_modules/preact/LICENSE", "utf8").trim();
const version = JSON.parse(readFileSync("node_modules/preact/package.json", "utf8")).version;
const { outputFiles } = await build({
  entryPoints: ["src/app.tsx", "src/style.css"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  write: false,
  outdir: "out",
});
for (const file of outputFiles) {
  const script = file.path.endsWith(".js");
  const notice = script ? `/*! sources ${process.argv[3]}\n\npreact ${version}\n${license}\n*/\n` : "";
  writeFileSync(`${out}/explorer.${script ? "js" : "css"}`, notice + file.text);
}
