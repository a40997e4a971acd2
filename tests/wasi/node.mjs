// Runs a wasm32-wasip1 program under Node's WASI: node tests/wasi/node.mjs PROGRAM.wasm [argument...]
// It sees the environment, and of the disk the folder that it is run in.
import { readFile } from "node:fs/promises";
import { argv, cwd, env, exit } from "node:process";
import { setFlagsFromString } from "node:v8";
import { WASI } from "node:wasi";

// With V8's fast calls into WASI, Node.js 20 crashes after some of the unit tests (SIGSEGV, often at its very end).
setFlagsFromString("--no-turbo-fast-api-calls");

const [program, ...options] = argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...options], env, preopens: { "/": cwd() } });
const module = await WebAssembly.compile(await readFile(program));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
exit(wasi.start(instance));
