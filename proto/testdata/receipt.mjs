// Another reader of receipts: Node's crypto and JSON, nothing of Ferry's.
// It reads an envelope from its input, checks it with the pin alone, and prints
// what it says.
//
//   node receipt.mjs PIN < envelope

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';

const pin = process.argv[2];
const text = fs.readFileSync(0, 'utf8');

const envelope = JSON.parse(text);
assert.equal(JSON.stringify(envelope), text, 'the envelope has one form');
assert.deepEqual(Object.keys(envelope), ['payloadType', 'payload', 'signatures']);
assert.equal(envelope.payloadType, 'application/vnd.in-toto+json');
assert.equal(envelope.signatures.length, 1);
const [{ keyid, sig }] = envelope.signatures;
assert.deepEqual(envelope.signatures, [{ keyid, sig }]);

const payload = Buffer.from(envelope.payload, 'base64');
assert.equal(payload.toString('base64'), envelope.payload);
const statement = JSON.parse(payload.toString('utf8'));
assert.equal(JSON.stringify(statement), payload.toString('utf8'), 'the payload has one form');
assert.deepEqual(Object.keys(statement), ['_type', 'subject', 'predicateType', 'predicate']);
assert.equal(statement._type, 'https://in-toto.io/Statement/v1');
assert.equal(statement.predicateType, 'https://ferry.invalid/receipt/v1');
assert.deepEqual(Object.keys(statement.predicate), ['client', 'serverKey', 'files']);

const der = Buffer.from(statement.predicate.serverKey, 'base64');
const sum = 'sha256:' + crypto.createHash('sha256').update(der).digest('hex');
assert.equal(sum, pin, 'the key in the receipt is the one that the pin is of');
assert.equal(keyid, pin);

// DSSE's pre-authentication encoding.
const pae = Buffer.concat([
  Buffer.from(`DSSEv1 ${envelope.payloadType.length} ${envelope.payloadType} ${payload.length} `),
  payload,
]);
const key = crypto.createPublicKey({ key: der, format: 'der', type: 'spki' });
const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256';
assert.ok(crypto.verify(hash, pae, key, Buffer.from(sig, 'base64')), 'the signature is good');

const { client, files } = statement.predicate;
assert.equal(files.length, statement.subject.length);
console.log(JSON.stringify({
  client: client.name,
  id: client.id,
  files: files.map((f, i) => ({ name: statement.subject[i].name, sha256: statement.subject[i].digest.sha256, ...f })),
}));
