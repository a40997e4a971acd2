// Changes the installed windmill-cli so that it can be compiled into one program. Each change has to fit in exactly one
// place: another version of the package, to which it does not fit, fails the build. The package is under the Apache
// License 2.0, which wants a changed file to say so; it does, in its first lines.
// usage: node adapt.mjs node_modules/windmill-cli/esm/main.js
import { readFileSync, writeFileSync } from "node:fs";

const changes = [
  {
    what: "The program starts unconditionally: compiled, the test for being the main module fails, and nothing would be done.",
    from: "if (isMain()) {\n  main2().then(",
    to: "{\n  main2().then(",
  },
];

const file = process.argv[2];
const original = readFileSync(file, "utf8");
const changed = changes.reduce((text, { what, from, to }) => {
  const parts = text.split(from);
  if (parts.length !== 2) {
    throw new Error(`${file}: fits ${parts.length - 1} times instead of once: ${what}`);
  }
  return parts.join(to);
}, original);
const notice = ["Changed by windmill-git-sync, whose image/adapt.mjs has the changes:", ...changes.map(({ what }) => what)];
const [first, ...rest] = changed.split("\n");
const lines = notice.map((line) => `// ${line}`);
writeFileSync(file, (first.startsWith("#!") ? [first, ...lines, ...rest] : [...lines, first, ...rest]).join("\n"));
