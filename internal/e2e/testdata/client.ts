// Sends a file by way of the types that openapi-typescript makes of
// api/openapi.yaml, and prints the upload once it is delivered. It is compiled
// beside those and run as
//
//	node client.js URL NAME FILE

import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./ferry.js";

const [baseUrl, id, path] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl });

/** What the description says of a body of any kind of bytes is that it is a string. */
const body = (await readFile(path)) as unknown as string;

const sent = await client.PUT("/uploads/{id}", {
  params: { path: { id }, query: { label: ["client=typescript"], mode: "0640" }, header: { Prefer: "wait=60" } },
  headers: { "Content-Type": "application/octet-stream" },
  body,
  bodySerializer: (bytes) => bytes,
});
if (sent.error) throw new Error(`sending is answered with ${sent.error.type}: ${sent.error.detail}`);
if (sent.response.status !== 201) throw new Error(`sending is answered with ${sent.response.status}, want 201`);

const upload: components["schemas"]["Upload"] = sent.data;
const shown = await client.GET("/uploads/{id}", { params: { path: { id: upload.id } } });
if (shown.data?.state !== "delivered") throw new Error(`the upload is shown with ${shown.response.status}: ${shown.data?.state}`);

const held = await client.POST("/uploads/{id}/hold", { params: { path: { id: upload.id } } });
if (held.error?.type !== "/problems/state") throw new Error(`holding what is delivered is answered with ${held.response.status}`);

console.log(JSON.stringify(shown.data));
