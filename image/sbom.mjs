// Writes the image's SBOM (CycloneDX) to stdout, from the reports of the other build stages: `crates` and `rustc` (the
// sources of our program), `bundle.json` and `package-lock.json` (the sources of wmill), `changes` (our changes to
// wmill), `packages` (the Debian packages that files come from). It has no time and no random number, so the same image
// has the same SBOM.
import { readFileSync } from "node:fs";

const lines = (name) => readFileSync(name, "utf8").split("\n").filter((line) => line !== "");
const component = (type, name, version, purl, more = {}) => ({ type, "bom-ref": purl, name, version, purl, ...more });
const licences = (expression) => (expression ? { licenses: [{ expression }] } : {});

function fromCrates() {
  const seen = new Map();
  for (const line of lines("crates")) {
    const [, name, version, licence] = line.match(/^(\S+) v(\S+)[^|]*\|(.*)$/);
    seen.set(`${name} ${version}`, [name, version, licence.replace(/ \(\*\)$/, "").replaceAll("/", " OR ")]);
  }
  const rust = lines("rustc")[0].split(" ")[1];
  const standard = component("library", "rust-std", rust, `pkg:generic/rust-std@${rust}`, licences("MIT OR Apache-2.0"));
  const crates = [...seen.values()].map(([name, version, licence]) =>
    component("library", name, version, `pkg:cargo/${name}@${version}`, licences(licence)));
  const ours = crates.shift();
  return { ours: { ...ours, type: "application" }, crates: [...crates, standard] };
}

function fromBundle() {
  const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
  const folders = new Set();
  for (const input of Object.keys(JSON.parse(readFileSync("bundle.json", "utf8")).inputs)) {
    const found = input.match(/^.*node_modules\/(@[^/]+\/[^/]+|[^/]+)/);
    if (found) folders.add(found[0]);
  }
  // The runtime that is compiled into wmill. npm chose the one for this processor.
  const bun = process.arch === "arm64" ? "bun-linux-aarch64" : "bun-linux-x64-baseline";
  folders.add(`node_modules/@oven/${bun}`);
  return [...folders].sort().map((folder) => {
    const name = folder.replace(/^.*node_modules\//, "");
    const { version, license } = packages[folder];
    const purl = `pkg:npm/${name.replace("@", "%40")}@${version}`;
    const more = license ? { licenses: [{ license: { name: license } }] } : {};
    if (name === "windmill-cli") more.pedigree = { notes: lines("changes").join("\n") };
    return component("library", name, version, purl, more);
  });
}

function fromDebian() {
  return lines("packages").map((line) => {
    const [name, version, architecture, source, sourceVersion] = line.split(" ");
    const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=debian-13`;
    const properties = [{ name: "debian:source", value: `${source} ${sourceVersion}` }];
    return component("library", name, version, purl, { properties });
  });
}

const { ours, crates } = fromCrates();
const components = [...crates, ...fromBundle(), ...fromDebian()];
const sbom = { bomFormat: "CycloneDX", specVersion: "1.6", version: 1, metadata: { component: ours }, components };
console.log(JSON.stringify(sbom, null, 1));
