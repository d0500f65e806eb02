// Answers samples with an exported folder: node check.mjs FOLDER SAMPLES ANSWERS
import { readFileSync, writeFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";

const [folder, samples, answers] = process.argv.slice(2);
const at = (name) => pathToFileURL(`${folder}/${name}`).href;
const ort = await import(at("ort/ort.wasm.min.mjs"));
const { Embedded, RequestError } = await import(at("runtime.mjs"));
const { functions } = await import(at("functions.mjs"));
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = at("ort/");
ort.env.wasm.wasmBinary = readFileSync(`${folder}/ort/ort-wasm-simd-threaded.wasm`);
const document = JSON.parse(readFileSync(`${folder}/model.json`));
const sessions = {};
for (const name of document.models) sessions[name] = await ort.InferenceSession.create(readFileSync(`${folder}/${name}.onnx`));
const model = new Embedded(document, sessions, functions, ort);
const told = [];
for (const { request, given } of JSON.parse(readFileSync(samples))) {
  const begin = performance.now();
  const answer = await model.answer(request, given).catch((error) => {
    if (error instanceof RequestError) return { answered_by: error.message };
    throw error;
  });
  told.push({ answer, seconds: (performance.now() - begin) / 1e3 });
}
writeFileSync(answers, JSON.stringify(told));
