// Reads an AsyncAPI document with the official parser, says what is wrong with it, and prints it without references.
// Run in a folder that has @asyncapi/parser: node asyncapi.mjs DOCUMENT

import { createRequire } from "node:module";
import { join } from "node:path";

const { Parser, fromFile } = createRequire(join(process.cwd(), "package.json"))("@asyncapi/parser");

const INFORMATION = 2;

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
const problems = diagnostics
  .filter(({ severity }) => severity < INFORMATION)
  .map(({ path, message }) => `${path.join(".")}: ${message}`);
console.log(JSON.stringify({ problems, document: document?.json() }));
