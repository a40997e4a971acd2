// Writes a changed copy of the installed windmill-cli: one that can be compiled into one program, and whose pulls keep
// the lock file in memory. Each edit has to fit in exactly one place: another version of the package, to which one does
// not fit, fails the build. The package is under the Apache License 2.0, which wants a changed file to say so; it does,
// in its first lines and in its help. What was changed is told on stdout too.
// usage: node adapt.mjs FROM TO LOCK_IN_MEMORY
//   FROM            node_modules/windmill-cli/esm/main.js
//   TO              the copy, in the same folder, since it imports what FROM imports
//   LOCK_IN_MEMORY  true, or false to leave the pulls as they are
import { readFileSync, writeFileSync } from "node:fs";

const start = {
  what: "The program starts unconditionally: compiled, the test for being the main module fails, and nothing would be done.",
  edits: [["if (isMain()) {\n  main2().then(", "{\n  main2().then("]],
};

// The package does the same in its other loops over many items. What was done until a failure is written then too, as
// without the change; who is killed leaves the lock file as it was before the pull.
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

// The order of these files goes into the hashes of `wmill-lock.yaml`. Node gives the names of a folder sorted by their
// bytes; bun gives them as the file system has them, so that one workspace had several lock files.
const sortedDependencies = {
  what: "The files of dependencies/ are taken in the order in which Node gives them.",
  edits: [
    [
      'const entries = await readdir5("dependencies", { withFileTypes: true });\n    for (const entry of entries) {\n',
      'const entries = await readdir5("dependencies", { withFileTypes: true });\n    entries.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));\n    for (const entry of entries) {\n',
    ],
    // windmill-git-sync looks for this line before it relies on the order.
    [
      'action(async (opts) => {\n  console.log("CLI version: " + VERSION);\n',
      'action(async (opts) => {\n  console.log("Dependencies are sorted");\n  console.log("CLI version: " + VERSION);\n',
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
