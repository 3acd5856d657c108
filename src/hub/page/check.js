// A receipt, checked in the browser: its signature, and that its node had put it under a root on the chain. What was
// checked against what is said step by step; what was not checked is said too.

import { ask, h, hms, icon, iso, main, n0, say, short, straight } from './ui.js';
import { bytes, digestOf, fault, hex, keccakText, leafOf, pair, pathOf, signer, word } from './curve.js';

const PATH_MAX = 32;
/// How many blocks one question about events covers, and how many questions are asked.
const BLOCKS = 1000;
const WINDOWS_MAX = 30;
/// What a search may cost, in hashes (one takes a quarter of a millisecond), and after how much the page gets its turn.
const COST_MAX = 40_000;
const TURN = 100;
const EVENT = hex(keccakText('ReceiptsCommitted(address,bytes32,uint32,uint32)'));
const SCORE = hex(keccakText('reputationOf(address)').slice(0, 4));
const low = (it) => String(it).toLowerCase();
const stepped = (n) => n + (n === 1 ? ' step' : ' steps');
const same = (a, b) => low(a) === low(b);
const plain = (part) => { try { return decodeURIComponent(part ?? ''); } catch { return ''; } };

try { const theme = localStorage.getItem('theme'); if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme; } catch { /* a private window keeps nothing */ }

const [node, job] = location.hash.replace(/^#/, '').split('/').map(plain);
let told = null; // the job's last status with a receipt, by the hub
let site = null; // what the hub says of itself

const box = h('textarea', { id: 'doc', rows: 18, spellcheck: 'false', autocomplete: 'off', required: true });
const url = h('input', { id: 'rpc', type: 'text', inputmode: 'url', spellcheck: 'false', autocomplete: 'off', placeholder: 'none: the chain is not asked' });
const out = h('div', { id: 'out', role: 'status' });
const from = h('p.mu', null, 'A receipt, or a proof as `lamda-node receipt proof JOB_ID` writes it.'.split('`').map((part, k) => k % 2 ? h('code', null, part) : part));
const button = h('button', { type: 'submit' }, 'Check');
main.replaceChildren(h('div.page', { tabindex: 0, role: 'region', 'aria-label': 'Check a receipt' },
  h('div.phead', null, h('nav.crumb', { 'aria-label': 'Path' }, h('a', { href: '/#/fleet' }, 'Fleet'), job && [h('span', { 'aria-hidden': 'true' }, '/'), h('a', { href: '/#/job/' + encodeURIComponent(node) + '/' + encodeURIComponent(job) }, straight(job))]),
    h('div.ttl', null, h('h1', null, 'Check a receipt'))),
  h('div.check', null,
    h('form.ask', { onsubmit: (e) => { e.preventDefault(); run(); } },
      h('label', { for: 'doc' }, 'Receipt or proof'), box, from,
      h('label', { for: 'rpc' }, 'JSON-RPC endpoint of the chain, of your choice'), url,
      h('p.mu', null, 'Not the hub’s: what it answers is all that this page believes about the chain. It must be HTTPS, or on this machine, and answer pages of other sites.'), h('p', null, button)), out)));

async function load() {
  if (!job) return;
  from.textContent = 'Asking the hub…';
  try {
    const { statuses } = await ask('/api/job', { node, job });
    told = (Array.isArray(statuses) ? statuses : []).map((it) => it?.status).findLast((it) => it?.receipt) ?? null;
    if (told) box.value = JSON.stringify({ message: told.receipt.message, ...told.receipt }, null, 1); // what it says first
    from.textContent = told ? 'As the hub has it from the job’s last status. You can paste another one.' : 'The hub has no receipt of this job. You can paste one.';
  } catch (err) { from.textContent = `${err.message} You can paste a receipt.`; }
}

async function run() {
  const steps = [];
  const list = h('ol.steps');
  const step = (state, name, text, ...more) => {
    steps.push(state);
    list.append(h('li', null, icon(state === 'ok' ? 'ok' : state === 'bad' ? 'down' : 'not_watched'), h('div', null, h('b', null, name, h('span.vh', null, { ok: ': holds', bad: ': does not hold', none: ': not checked' }[state])), h('p', null, text, more))));
    return state !== 'bad';
  };
  button.disabled = true;
  out.replaceChildren(h('h2', null, 'Checking…'), list);
  try { site ??= await ask('/api/site'); } catch { /* said in its step */ }
  try { await check(step); } catch (err) { step('bad', 'Not finished', straight(err.message)); }
  button.disabled = false;
  const bad = steps.includes('bad'), open = steps.includes('none');
  out.firstChild.replaceWith(h('h2', null, bad ? 'This does not hold' : open ? 'What was checked holds; not everything was' : 'Everything holds'));
  out.append(h('p.mu', null, 'It shows that the node signed this claim, and, with the chain, that it had committed to it by then. It does not show that the claim is true.'));
  out.dataset.done = bad ? 'bad' : open ? 'part' : 'ok';
}

async function check(step) {
  delete out.dataset.done;
  let given;
  try { given = JSON.parse(box.value); } catch { step('bad', 'Form', 'It is not JSON.'); return; }
  const isProof = given && typeof given === 'object' && given.receipt && given.proof;
  const receipt = given?.receipt?.message ? given.receipt : given;
  const wrong = fault(receipt);
  if (!step(wrong ? 'bad' : 'ok', 'Form', say(wrong ?? `An EIP-712 receipt of this protocol, for chain ${receipt.domain.chainId} and contract ${receipt.domain.verifyingContract}.`))) return;
  const { message, domain } = receipt, digest = digestOf(receipt), leaf = leafOf(digest);
  const differs = isProof && (!same(given.digest, hex(digest)) || !same(given.leaf, leaf));
  step(differs ? 'bad' : 'ok', 'Digest', differs ? 'The document names another digest or leaf than its receipt has: ' : 'Computed here from the receipt: ', h('code', null, hex(digest)));
  let who = '', why = '';
  try { who = signer(digest, bytes(receipt.signature)); } catch (err) { why = err.message; }
  step(same(who, message.node) ? 'ok' : 'bad', 'Signature', why ? `The signature can’t be read: ${why}.` : same(who, message.node) ? 'Its key is that of the node that the receipt names: ' : `It names node ${message.node}, and was signed by `, who && h('code', null, who));
  beside(step, message);
  project(step, domain);
  const rpc = endpoint(step);
  if (!rpc) {
    if (isProof) path(step, given, leaf);
    step('none', 'Chain', 'No endpoint was given, so no chain was asked.');
    return;
  }
  await onChain(step, { rpc, given: isProof ? given : null, receipt, domain, message, digest, leaf });
}

/// The receipt beside what the hub shows of the job.
function beside(step, message) {
  if (!told) { step('none', 'Job', 'The receipt was pasted: there is no job of the hub to compare it with.'); return; }
  // Ids and CIDs differ by case; addresses don't.
  const differ = [['job', told.job_id ?? job, message.jobId], ['node', low(told.agent_address ?? message.node), low(message.node)], ['output', told.output_cid ?? '', message.outputCid], ['exit code', told.exit_code ?? message.exitCode, message.exitCode]].filter(([, a, b]) => a !== b);
  step(differ.length ? 'bad' : 'ok', 'Job', differ.length ? `The job’s status names another ${differ.map(([name]) => name).join(', ')}.` : `Job ${message.jobId}, output and exit code ${message.exitCode} are those of the status that the hub shows.`);
}

/// Whether the receipt is for the contract that the hub reads: everybody can deploy one that says what they like.
function project(step, { chainId, verifyingContract: contract }) {
  if (!site) { step('none', 'Project', 'The hub did not say which contract it reads.'); return; }
  const { chain } = site;
  if (!chain) { step('none', 'Project', 'The hub reads no chain, or does not say which, so whether this contract is that of its project is not known.'); return; }
  const isIt = chain.chain_id === chainId && same(chain.contract, contract), its = [`chain ${chain.chain_id}, contract `, h('code', null, chain.contract)];
  step(isIt ? 'ok' : 'bad', 'Project', isIt ? 'It is for the contract that the hub reads: ' : 'The receipt names a contract of its own, and anybody can deploy one; the hub reads ', its);
}

function endpoint(step) {
  const text = url.value.trim();
  if (!text) return null;
  let parsed = null;
  try { parsed = new URL(text); } catch { /* said below */ }
  const isHere = parsed && /^(localhost|127\.0\.0\.1)$/.test(parsed.hostname);
  if (parsed?.protocol === 'https:' || (parsed?.protocol === 'http:' && isHere)) return text;
  throw new Error('The endpoint is no HTTPS address, and none of this machine.');
}

let asked = 0;
async function call(rpc, method, ...params) {
  let answer;
  try {
    const body = JSON.stringify({ jsonrpc: '2.0', id: ++asked, method, params });
    answer = await fetch(rpc, { method: 'POST', headers: { 'content-type': 'application/json' }, body, credentials: 'omit', referrerPolicy: 'no-referrer', signal: AbortSignal.timeout(20_000) });
  } catch { throw new Error('The endpoint does not answer, or not to pages of other sites (CORS).'); }
  const said = await answer.json().catch(() => null);
  if (said?.error) throw new Error(`The endpoint refuses ${method}: ${said.error.message || 'it does not say why'}`);
  if (!said || !('result' in said)) throw new Error(`The endpoint answers ${method} with no JSON-RPC (HTTP ${answer.status}).`);
  return said.result;
}
const number = (text) => { if (!/^0x[0-9a-f]+$/i.test(text)) throw new Error('The endpoint answers with no number where one is due.'); return Number(text); };

/// The path of a proof up to its root.
function path(step, given, leaf) {
  const way = Array.isArray(given.proof) ? given.proof.map(low) : null;
  if (!way || way.length > PATH_MAX || !way.every((it) => /^0x[0-9a-f]{64}$/.test(it))) return step('bad', 'Path', 'The proof is no list of at most 32 hashes.');
  const root = way.reduce(pair, leaf), isIt = same(root, given.root);
  return step(isIt ? 'ok' : 'bad', 'Path', isIt ? `The receipt’s leaf leads in ${stepped(way.length)} to the root ` : 'The path from the receipt’s leaf does not end at the document’s root, but at ', h('code', null, root));
}

async function onChain(step, { rpc, given, receipt, domain, message, digest, leaf }) {
  if (given && !path(step, given, leaf)) return;
  const id = number(await call(rpc, 'eth_chainId'));
  if (!step(id === domain.chainId ? 'ok' : 'bad', 'Chain', id === domain.chainId ? `The endpoint is of chain ${id}, as the receipt says.` : `The endpoint is of chain ${id}, and the receipt is for chain ${domain.chainId}.`)) return;
  const head = number(await call(rpc, 'eth_blockNumber'));
  await contract(step, rpc, domain, message);
  const found = given ? await committed(rpc, given, domain, message) : await search(rpc, { receipt, domain, message, digest, leaf, head });
  if (found.none || found.wrong) { step(found.none ? 'none' : 'bad', 'Root', say(found.none || found.wrong)); return; }
  if (!given) step('ok', 'Path', `With ${n0(found.count)} receipts of this node that the hub has, the leaf leads in ${stepped(found.way.length)} to the root `, h('code', null, found.root));
  const count = found.completed + found.failed, way = given ? given.proof : found.way;
  if (way.length > 0 && count <= 2 ** (way.length - 1)) { step('bad', 'Root', `The heartbeat counts ${count} receipts, too few for a path of ${way.length} steps.`); return; }
  const block = await call(rpc, 'eth_getBlockByNumber', '0x' + found.block.toString(16), false);
  const at = number(block?.timestamp) * 1000;
  step('ok', 'Root', `The contract’s own event ReceiptsCommitted in block ${n0(found.block)} (${iso(at)}) names this node and this root, for ${found.completed} completed and ${found.failed} other jobs; ${n0(Math.max(0, head - found.block))} blocks follow. Transaction `, h('code', { title: found.tx }, short(String(found.tx), 14, 8)));
}

/// What the contract says of the node now.
async function contract(step, rpc, domain, message) {
  if (await call(rpc, 'eth_getCode', domain.verifyingContract, 'latest') === '0x') { step('bad', 'Contract', 'There is no contract at this address of this chain.'); return; }
  const data = SCORE + hex(word(message.node)).slice(2);
  const said = await call(rpc, 'eth_call', { to: domain.verifyingContract, data }, 'latest').catch((err) => err);
  if (said instanceof Error || !/^0x[0-9a-f]{576}$/i.test(said)) { step('none', 'Contract', 'It keeps no score: it is not this project’s contract, or the deployed one without the addition.'); return; }
  const [since, , onTime, missed, , , , , score] = said.slice(2).match(/.{64}/g).map((it) => Number('0x' + it));
  step(since ? 'ok' : 'bad', 'Contract', since ? `The node is registered since ${iso(since * 1000).slice(0, 10)}; score ${n0(score)} of 10,000, ${n0(onTime)} heartbeats on time, ${n0(missed)} missed.` : 'The node is not registered with it.');
}

/// The commitments among these logs, of this contract and node.
function commitments(logs, domain, message) {
  const fits = (log) => !log.removed && same(log.address, domain.verifyingContract) && same(log.topics?.[0], EVENT) && same(log.topics[1], hex(word(message.node))) && /^0x[0-9a-f]{128}$/i.test(log.data);
  return (Array.isArray(logs) ? logs : []).filter(fits).map((log) => ({ root: low(log.topics[2]), completed: Number('0x' + log.data.slice(2, 66)), failed: Number('0x' + log.data.slice(66)), block: number(log.blockNumber), tx: log.transactionHash }));
}

/// The heartbeat that a proof names.
async function committed(rpc, given, domain, message) {
  const mined = await call(rpc, 'eth_getTransactionReceipt', given.tx_hash);
  let logs = mined?.logs;
  if (mined && number(mined.status) !== 1) return { wrong: 'The transaction that the proof names failed.' };
  if (!mined) {
    const block = '0x' + Number(given.block).toString(16); // endpoints keep events longer than receipts
    logs = await call(rpc, 'eth_getLogs', { address: domain.verifyingContract, topics: [EVENT], fromBlock: block, toBlock: block });
  }
  const found = commitments(logs, domain, message).find((it) => same(it.root, given.root));
  if (!found) return { wrong: 'No event of the contract there names this node and this root.' };
  return found.block === given.block ? found : { wrong: `It is in block ${found.block}, and the proof names block ${given.block}.` };
}

/// Without a proof: the first root of the node since the receipt that is that of receipts which the hub has.
async function search(rpc, { domain, message, digest, head }) {
  if (!told) return { none: 'A receipt alone says nothing of a root. Paste the proof: `lamda-node receipt proof ' + message.jobId + '` on the node.' };
  const { rows } = await ask('/api/receipts', { node, job });
  const leaves = new Map(), work = worker();
  for (const it of rows) if (!fault(it) && same(it.message.node, message.node) && same(it.domain.verifyingContract, domain.verifyingContract) && it.domain.chainId === domain.chainId) { const d = digestOf(it); await work.pay(16); leaves.set(hex(d), { at: it.message.finishedAt, job: it.message.jobId, digest: hex(d), leaf: leafOf(d) }); }
  const all = [...leaves.values()].sort((a, b) => a.at - b.at || (a.job < b.job ? -1 : a.job > b.job ? 1 : a.digest < b.digest ? -1 : 1));
  const own = all.findIndex((it) => it.digest === hex(digest));
  if (own < 0) return { none: 'The hub does not have this receipt, so no root can be searched for it. Paste the proof instead.' };
  let [lo, hi] = [0, head];
  while (lo < hi) { // the first block after the job's end
    const middle = Math.floor((lo + hi) / 2), block = await call(rpc, 'eth_getBlockByNumber', '0x' + middle.toString(16), false);
    if (number(block?.timestamp) * 1000 < message.finishedAt) lo = middle + 1; else hi = middle;
  }
  for (let k = 0, begin = lo; k < WINDOWS_MAX && begin <= head; k++, begin += BLOCKS) {
    const range = { fromBlock: '0x' + begin.toString(16), toBlock: '0x' + Math.min(head, begin + BLOCKS - 1).toString(16) };
    const logs = await call(rpc, 'eth_getLogs', { address: domain.verifyingContract, topics: [EVENT, hex(word(message.node))], ...range });
    for (const found of commitments(logs, domain, message)) {
      const count = found.completed + found.failed;
      for (let first = Math.max(0, own - count + 1); first <= own && first + count <= all.length; first++) {
        if (work.isSpent()) return { none: 'Too many receipts of this node lie beside this one: the search for their root was ended. Paste the proof instead.' };
        const { path: way, root } = await pathOf(all.slice(first, first + count).map((it) => it.leaf), own - first, work.pair);
        if (root === found.root) return { ...found, way, count };
      }
    }
  }
  return { none: `Since the job’s end (${hms(message.finishedAt)}) no root was found that is that of receipts which the hub has. The next heartbeat may bring it; or the hub lacks a receipt beside this one: then paste the proof from the node.` };
}

/// Hashes each pair once. The page gets its turn now and then, and what all may cost has an end.
function worker() {
  const known = new Map();
  let cost = 0, turn = TURN;
  async function pay(some) {
    cost += some;
    if (cost >= turn) { turn = cost + TURN; await new Promise((go) => setTimeout(go)); }
  }
  return {
    pay,
    isSpent: () => cost >= COST_MAX,
    pair: async (a, b) => {
      const key = a + b, had = known.get(key), hash = had ?? pair(a, b);
      if (!had) known.set(key, hash);
      await pay(had ? .05 : 1);
      return hash;
    },
  };
}
load();
