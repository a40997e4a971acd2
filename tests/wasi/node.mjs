// Runs a wasm32-wasip1 program under Node's WASI: node tests/wasi/node.mjs PROGRAM.wasm [argument...]
// It sees the environment, and of the disk the folder that it is run in.
import { readFile } from "node:fs/promises";
import process, { argv, cwd, env } from "node:process";
import { WASI } from "node:wasi";

const [program, ...options] = argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...options], env, preopens: { "/": cwd() } });
const module = await WebAssembly.compile(await readFile(program));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
// `exit` would end Node.js while it still compiles parts of the program, which crashes now and then.
process.exitCode = wasi.start(instance);
