// A receipt, checked in the browser against a chain; and what that check computes, beside what other programs do.

import { readFile } from 'node:fs/promises';
import * as curve from '../../src/hub/page/curve.js';

const vectors = JSON.parse(process.env.VECTORS ?? '{}'), rpc = process.env.RPC;

/// Keccak as `cast` has it, digests and signatures as the node makes them, trees as the contract reads them.
async function computes(check) {
  for (const [text, hash] of vectors.hashes) check(curve.hex(curve.keccakText(text)) === hash, 'keccak of ' + text.length);
  for (const { document, digest } of vectors.receipts) {
    check(curve.fault(document) === null, 'a form is right');
    check(curve.hex(curve.digestOf(document)) === digest, 'a digest');
    check(curve.signer(curve.bytes(digest), curve.bytes(document.signature)) === document.message.node.toLowerCase(), 'a signer');
  }
  const { cases } = JSON.parse(await readFile(new URL('../../contracts/test/vectors/receipts.json', import.meta.url)));
  for (const { digests, root, proofs } of cases) {
    for (const at of digests.keys()) {
      const path = await curve.pathOf(digests.map((it) => curve.leafOf(curve.bytes(it))), at);
      check(path.root === root && path.path.join() === proofs[at].join(), 'a path of a tree of ' + digests.length);
    }
  }
  const { document, digest } = vectors.receipts[0], signature = curve.bytes(document.signature);
  const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
  const other = curve.word(order - BigInt(curve.hex(signature.slice(32, 64))));
  const refused = (bytes, what) => { try { curve.signer(curve.bytes(digest), bytes); check(false, what); } catch { /* as it should */ } };
  refused(curve.join(signature.slice(0, 32), other, [signature[64] ^ 7]), 'a signature in its other form is refused');
  refused(curve.join(signature.slice(0, 64), [0]), 'a last byte of 0 is refused');
  refused(curve.join(new Uint8Array(32), signature.slice(32)), 'a number of 0 is refused');
  refused(signature.slice(1), 'a short one is refused');
}

const steps = (page) => page.$$eval('.steps li', (all) => Object.fromEntries(all.map((it) => [it.querySelector('b').firstChild.data, { state: it.querySelector('svg').getAttribute('class').slice(2), text: it.querySelector('p').textContent }])));

export async function check({ base, check, open, until, shot, hostile }) {
  await computes(check);
  const page = await open();
  page.allowed = new URL(rpc).origin;
  const run = async (document, endpoint) => {
    await page.$eval('#doc', (it, text) => { if (text != null) it.value = text; }, document && (typeof document === 'string' ? document : JSON.stringify(document)));
    await page.$eval('#rpc', (it, text) => { it.value = text; }, endpoint ?? '');
    await page.evaluate(() => { delete document.querySelector('#out').dataset.done; document.querySelector('button').click(); });
    await until(page, 'the check ends', () => document.querySelector('#out').dataset.done);
    return { done: await page.$eval('#out', (it) => it.dataset.done), ...await steps(page) };
  };
  const is = (found, name, state, text, what) => check(found[name]?.state === 's-' + state && found[name].text.includes(text), `${what}: ${JSON.stringify(found)}`);

  await page.goto(`${base}/#/job/${encodeURIComponent(hostile)}/c`);
  await until(page, 'the job has a receipt', () => document.querySelector('.btn'));
  await page.click('.btn');
  await until(page, 'the hub gives it', () => document.querySelector('#doc')?.value.includes('"jobId": "c"'));
  const alone = await run(null);
  check(alone.done === 'part', 'without a chain not all is checked: ' + JSON.stringify(alone));
  is(alone, 'Signature', 'ok', 'Its key is that of the node', 'the signature');
  is(alone, 'Job', 'ok', 'exit code -1', 'the job');
  is(alone, 'Chain', 'not_watched', 'no chain was asked', 'the chain');
  is(alone, 'Project', 'ok', 'for the contract that the hub reads', 'the contract');
  const other = await page.$eval('#doc', (it) => it.value.replace('"jobId": "c"', '"jobId": "C"'));
  is(await run(other), 'Job', 'down', 'another job', 'ids that differ by case are different');
  await page.reload();
  await until(page, 'the hub gives it again', () => document.querySelector('#doc')?.value.includes('"jobId": "c"'));

  const whole = await run(null, rpc);
  check(whole.done === 'ok', 'with a chain everything holds: ' + JSON.stringify(whole));
  is(whole, 'Path', 'ok', 'With 5 receipts of this node that the hub has, the leaf leads in 3 steps', 'a root is found without a proof');
  is(whole, 'Root', 'ok', '0 completed and 5 other jobs', 'the event');
  is(whole, 'Contract', 'ok', 'of 10,000', 'the score');
  await shot(page, 'check-holds');

  const proof = JSON.parse(process.env.PROOF);
  // Its job is that of another page; by itself it was pasted.
  await page.goto('about:blank');
  await page.goto(`${base}/check`);
  await until(page, 'the page', () => document.querySelector('#doc'));
  const pasted = await run(proof, rpc);
  is(pasted, 'Path', 'ok', 'leads in 1 step to the root', 'the path of a proof');
  is(pasted, 'Root', 'ok', 'names this node and this root', 'the root of a proof');
  is(pasted, 'Job', 'not_watched', 'pasted', 'a pasted receipt is compared with no job');
  check(pasted.done === 'part', 'and that is said: ' + pasted.done);
  const edit = (change) => { const other = structuredClone(proof); change(other); return other; };
  is(await run(edit((it) => { it.receipt.message.exitCode = 0; }), rpc), 'Signature', 'down', 'and was signed by', 'an edit');
  is(await run(edit((it) => { it.proof[0] = it.proof[0].replace(/.$/, (c) => c === '0' ? '1' : '0'); }), rpc), 'Path', 'down', 'does not end at', 'another path');
  is(await run(edit((it) => { it.block += 1; }), rpc), 'Root', 'down', 'the proof names block', 'another block');
  is(await run(edit((it) => { it.digest = it.root; }), rpc), 'Digest', 'down', 'names another digest', 'another digest');
  is(await run(edit((it) => { it.receipt.domain.chainId = 1; }), rpc), 'Signature', 'down', '', 'another chain');
  is(await run(edit((it) => { it.receipt.domain.verifyingContract = it.receipt.message.node; }), rpc), 'Project', 'down', 'anybody can deploy one', 'a contract of its own');
  is(await run(edit((it) => { it.receipt.domain.chainId = 1; })), 'Project', 'down', 'the hub reads chain 31337', 'the same address on another chain');
  is(await run(edit((it) => { it.receipt.types.Receipt[7].type = 'uint256'; }), rpc), 'Form', 'down', 'types', 'other types');
  is(await run('{"a":', rpc), 'Form', 'down', 'not JSON', 'no JSON');
  is(await run(proof.receipt, rpc), 'Root', 'not_watched', 'lamda-node receipt proof e', 'a receipt alone');
  is(await run(proof, 'http://192.0.2.1:8545'), 'Not finished', 'down', 'no HTTPS address', 'an endpoint that is not safe');
  page.expected = true;
  page.allowed = 'http://127.0.0.1:1';
  is(await run(proof, 'http://127.0.0.1:1/'), 'Not finished', 'down', 'does not answer', 'an endpoint that is away');

  // Only this page may ask others.
  page.allowed = new URL(rpc).origin;
  await page.goto('about:blank');
  await page.goto(base);
  await until(page, 'the fleet', () => document.querySelector('.grid'));
  const asks = await page.evaluate((rpc) => fetch(rpc, { method: 'POST', body: '{}' }).then(() => 'answered', () => 'refused'), rpc);
  check(asks === 'refused', 'the other pages ask the hub alone: ' + asks);
  const wide = async (path) => (await fetch(base + path)).headers.get('content-security-policy').includes('https:');
  check(await wide('/check') && !await wide('/') && !await wide('/static/check.js'), 'the policy of one page alone is wider');
}
