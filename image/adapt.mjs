// Writes a changed copy of the installed windmill-cli, which can be compiled into one program and whose pulls keep the
// lock file in memory. Each edit must match in exactly one place: if it does not match another version of the package,
// the build fails. The package is under the Apache License 2.0, which requires a changed file to state the change: the
// copy does so in its first lines and in its help. The changes are also printed to stdout.
// usage: node adapt.mjs FROM TO LOCK_IN_MEMORY
//   FROM            node_modules/windmill-cli/esm/main.js
//   TO              the copy, in the same folder, because it imports the same files as FROM
//   LOCK_IN_MEMORY  true, or false to leave the pulls unchanged
import { readFileSync, writeFileSync } from "node:fs";

const start = {
  what: "The program starts unconditionally: compiled, the test for being the main module fails, and nothing would be done.",
  edits: [["if (isMain()) {\n  main2().then(", "{\n  main2().then("]],
};

// The package does the same in its other loops over many items. After a failure, the entries so far are written, as
// without the change. A killed pull leaves the lock file as it was before.
const lockInMemory = {
  what: "A pull keeps wmill-lock.yaml in memory while it goes through the changed items, and writes it once, instead of reading and writing all of it for each.",
  edits: [
    [
      "await readLockfile();\n    const tracker = await buildTracker(changes);\n",
      "await beginLockfileBatch();\n    try {\n    const tracker = await buildTracker(changes);\n",
    ],
    [
      "    if (opts.jsonOutput) {\n      const result = {\n        success: true,\n        message: `All ${changes.length}",
      "    } finally {\n      await flushLockfileBatch();\n    }\n    if (opts.jsonOutput) {\n      const result = {\n        success: true,\n        message: `All ${changes.length}",
    ],
  ],
};

// The order of these files affects the hashes in `wmill-lock.yaml`. Node returns the names in a folder sorted by bytes.
// Bun returns them in the order of the file system, so one workspace had several lock files.
const sortedDependencies = {
  what: "The files of dependencies/ are taken in the order in which Node gives them.",
  edits: [
    [
      'const entries = await readdir5("dependencies", { withFileTypes: true });\n    for (const entry of entries) {\n',
      'const entries = await readdir5("dependencies", { withFileTypes: true });\n    entries.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));\n    for (const entry of entries) {\n',
    ],
  ],
};

const notice = {
  what: "The help says that this is a changed copy.",
  edits: [['.description("Windmill CLI")', '.description("Windmill CLI, a copy changed by windmill-git-sync")']],
};

const [from, to, lock] = process.argv.slice(2);
if (!["true", "false"].includes(lock)) throw new Error(`lock file in memory: true or false, not \`${lock}\``);
const changes = [start, sortedDependencies, ...(lock === "true" ? [lockInMemory] : []), notice];

let text = readFileSync(from, "utf8");
for (const { what, edits } of changes) {
  for (const [before, after] of edits) {
    const parts = text.split(before);
    if (parts.length !== 2) throw new Error(`${from}: fits ${parts.length - 1} times instead of once: ${what}\n${before}`);
    text = parts.join(after);
  }
}
const told = ["Changed by windmill-git-sync, whose image/adapt.mjs has the changes:", ...changes.map(({ what }) => what)];
const [first, ...rest] = text.split("\n");
const lines = told.map((line) => `// ${line}`);
const copy = first.startsWith("#!") ? [first, ...lines, ...rest] : [...lines, first, ...rest];
writeFileSync(to, copy.join("\n"), { mode: 0o755 });
console.log(told.join("\n"));
