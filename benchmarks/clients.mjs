// Ask a running service with the JavaScript clients people use, and print what each of them got.
//
// In a folder of its own: `npm install openai ai @ai-sdk/openai-compatible zod`, then from there
// `node .../benchmarks/clients.mjs http://127.0.0.1:8000/v1`. The exit code is 1 if a client failed.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const installed = createRequire(`${process.cwd()}/`);
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const { default: OpenAI } = await load("openai");
const { generateObject, generateText, streamText } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { z } = await load("zod");

const url = process.argv[2];
const question = "Name a colour.";
const messages = [{ role: "user", content: question }];
const model = (await (await fetch(`${url}/models`)).json()).data[0].id;
const openai = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const provider = createOpenAICompatible({ name: "ours", baseURL: url, supportsStructuredOutputs: true });
const schema = {
  type: "object",
  properties: { color: { type: "string", maxLength: 20 } },
  required: ["color"],
  additionalProperties: false,
};

async function joined(stream, text) {
  let said = "";
  for await (const part of stream) said += text(part) ?? "";
  return said;
}

const checks = {
  openai: {
    chat: async () =>
      (await openai.chat.completions.create({ model, messages, max_tokens: 40 })).choices[0].message.content,
    stream: async () =>
      joined(
        await openai.chat.completions.create({ model, messages, max_tokens: 40, stream: true }),
        (chunk) => chunk.choices[0]?.delta.content,
      ),
    json_schema: async () => {
      const response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
      const reply = await openai.chat.completions.create({ model, messages, max_tokens: 60, response_format });
      return JSON.parse(reply.choices[0].message.content).color;
    },
    completions: async () =>
      (await openai.completions.create({ model, prompt: ["a", "b"], max_tokens: 4 })).choices[1].text,
    refusal: async () => {
      try {
        await openai.chat.completions.create({ model, messages, max_tokens: 10 ** 6 });
      } catch (error) {
        if (error.code === "context_length_exceeded") return error.code;
        throw error;
      }
      throw new Error("a request beyond the context was not refused as one");
    },
  },
  "AI SDK": {
    generateText: async () =>
      (await generateText({ model: provider(model), prompt: question, maxOutputTokens: 40 })).text,
    streamText: async () =>
      joined(streamText({ model: provider(model), prompt: question, maxOutputTokens: 40 }).textStream, (text) => text),
    generateObject: async () => {
      const asked = { model: provider(model), prompt: question, maxOutputTokens: 60 };
      return (await generateObject({ ...asked, schema: z.object({ color: z.string().max(20) }).strict() })).object.color;
    },
  },
};

let failed = 0;
console.log("| client | asks | got |\n|---|---|---|");
for (const [name, asks] of Object.entries(checks)) {
  for (const [what, ask] of Object.entries(asks)) {
    let got;
    try {
      got = JSON.stringify(await ask());
      if (!got || got === '""') throw new Error(`nothing: ${got}`);
      got = got.slice(0, 60);
    } catch (error) {
      failed += 1;
      got = `FAILED ${error.name}: ${error.message}`.slice(0, 160);
    }
    console.log(`| ${name} (JavaScript) | ${what} | ${got} |`);
  }
}
process.exit(failed ? 1 : 0);
