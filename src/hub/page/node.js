// One node: its three clocks and what they come from, its beats of the last hours, its cards, its jobs.

import { age, ago, ask, badge, capital, empty, evidence, failed, gib, h, hints, hms, icon, iso, jobLink, keys, kv, leave, loading, main, mono, n0, nodeHref, now, say, section, short, site, span, table, title, word } from './ui.js';
import { cards, column, isLate, model } from './columns.js';
import { neighbour, placeOf } from './fleet.js';
import { eventTable } from './events.js';
import { on } from './live.js';
import { seenSection } from './seen.js';
import { dayPlots } from './plot.js';
import { chainFigures } from './earned.js';

const SLOT_MS = 300_000;
/// How long the page waits after a change before it asks for the history anew.
const SETTLE_MS = 2_000;

const REMEDY = {
  zombie: 'The program still pays for its heartbeats but takes no job. Look at its NATS credentials and outgoing port: `lamda-node doctor` on the machine.',
  down: 'Look at the power and the network of the machine first; then at the log of its agent.',
  not_watched: 'The hub was away, or has just begun to listen. The node may be well. This fills by itself.',
  clash: 'Stop one of the two programs. Until then neither should be given a job.',
};

export async function nodePage(name) {
  title(name);
  hints('j', 'k', 'u');
  keys.page = (k) => {
    const step = { j: 1, k: -1 }[k], other = step && neighbour(name, step);
    if (other) location.hash = nodeHref(other);
    return !!step;
  };
  const abort = new AbortController();
  leave(() => abort.abort());
  const page = h('div.page', { tabindex: 0, role: 'region', 'aria-label': 'Node ' + name }, head(name), loading('the node'));
  main.replaceChildren(page);
  let whole = null, timer = 0, isLeft = false;
  leave(() => { isLeft = true; clearTimeout(timer); });

  async function load() {
    try {
      whole = await ask('/api/fleet/node', { name }, abort.signal);
      if (!isLeft) show();
    } catch (err) {
      if (err.name !== 'AbortError' && !isLeft) page.replaceChildren(head(name), failed(err, err.status === 404 ? null : load));
    }
  }
  function show() {
    const { row } = whole, top = page.scrollTop;
    live.replaceChildren(...upper(row));
    clocks.replaceChildren(...three(row));
    page.replaceChildren(live, h('div.cols', null,
      h('div', null, cardsOf(whole), section('h-u', 'Used by its jobs', ['last 24 h in slots of 10 min, hatched where no watched job ran · ', h('a.a', { href: '#/earnings?' + new URLSearchParams({ node: row.name }) }, 'earnings and idle time')], usage), chain(whole), beats(whole), seen, section('h-j', 'Jobs', null, jobs), section('h-v', 'Events', null, events)),
      h('div', null, section('h-k', 'Three clocks', null, clocks), said(whole), history(whole), gswarm(whole))));
    page.scrollTop = top;
  }
  const seen = seenSection(name, abort.signal);
  const live = h('div.phead'), clocks = h('dl.kv'), jobs = h('div', null, loading('jobs')), usage = h('div', null, loading('what its jobs use')), events = h('div', null, loading('events'));

  async function part(into, path, params, fill) {
    try { into.replaceChildren(fill(await ask(path, params, abort.signal))); } catch (err) {
      if (err.name !== 'AbortError') into.replaceChildren(failed(err, () => part(into, path, params, fill)));
    }
  }
  const more = () => {
    dayPlots(name, abort.signal).then((parts) => usage.replaceChildren(...[parts].flat())).catch((err) => { if (err.name !== 'AbortError') usage.replaceChildren(failed(err)); });
    part(jobs, '/api/jobs', { node: name }, ({ rows }) => rows.length ? table('Jobs', ['Job', 'State', '>Begun', '>Time'], rows.map((job) => [jobLink(name, job.job), badge(job.status), ago(job.first, 'first status'), span(job.last - job.first)])) : empty('The hub has heard of no job of this node.'));
    part(events, '/api/events', { node: name }, ({ rows, names }) => rows.length ? eventTable(rows.slice(0, 20), names, true) : empty('The hub has heard no event of this node.'));
  };
  const later = () => { clearTimeout(timer); timer = setTimeout(() => { load(); more(); }, SETTLE_MS); };
  leave(on('fleet', ({ rows, beats: heard, gone }) => {
    if (!whole) return;
    // It may have been opened by its account.
    const own = whole.row.name, row = rows.find((it) => it.name === own), beat = heard.find((it) => it[0] === own);
    if (gone.includes(own)) { whole.row.gone = true; show(); return; }
    if (beat) [, whole.row.own, whole.row.nats, whole.row.nats_seq, whole.row.chain, whole.row.chain_block] = beat;
    if (row) { whole.row = row; later(); }
    if (row || beat) { live.replaceChildren(...upper(whole.row)); clocks.replaceChildren(...three(whole.row)); }
  }));
  leave(on('snapshot', () => { if (whole) later(); }));
  const tick = setInterval(() => { if (whole && !document.hidden) clocks.replaceChildren(...three(whole.row)); }, 1000);
  leave(() => clearInterval(tick));
  load();
  more();
}

const head = (name) => h('div.phead', null, crumb(name), h('div.ttl', null, h('h1', null, name)));
const crumb = (name) => h('nav.crumb', { 'aria-label': 'Path' }, h('a', { href: '#/fleet' }, 'Fleet'), h('span', { 'aria-hidden': 'true' }, '/'), h('span', null, placeOf(name) || 'node'));

function upper(row) {
  const at = now(), bad = row.standing === 'down' || row.standing === 'clash';
  const facts = [];
  if (row.address) facts.push(['Account', h('span.m', { ev: row.address }, short(row.address, 10, 6))]);
  if (row.ip) facts.push(['Address', h('span.m', { ev: `${row.ip} · told by its last beat` }, row.ip)]);
  if (row.meta) facts.push(['About', h('span', { ev: `${row.meta} · told by its last beat` }, row.meta)]);
  if (row.version) facts.push(['Version', h('span', { ev: 'presence on NATS' }, row.version)]);
  facts.push(['Known since', ago(row.first, 'first heard')], ['Tags', row.tags?.join(', ') || '–']);
  const copy = h('button', { type: 'button', onclick: async () => {
    try { await navigator.clipboard.writeText(row.address || row.name); copy.textContent = 'Copied'; } catch { copy.textContent = 'The browser refuses'; }
  } }, row.address ? 'Copy account' : 'Copy name');
  return [crumb(row.name),
    h('div.ttl', null, h('h1', null, row.name), badge(row.gone ? 'gone' : row.standing), h('span.mu', { ev: `since ${iso(row.since)}` }, 'for ' + age(at - row.since)), h('span.sp'), copy),
    h('dl.facts', null, facts.map(([name, value]) => kv(name, value))),
    row.gone ? h('div.say', null, h('p', null, h('b', null, 'The hub has forgotten this node.')))
      : REMEDY[row.standing] && h('div.say' + (bad ? '.bad' : ''), null, h('p', null, h('b', null, `${capital(word(row.standing))}${row.why ? ': ' + row.why : ''}.`)), h('p', null, say(REMEDY[row.standing])))].filter(Boolean);
}

function three(row) {
  const at = now(), { own, nats, chain } = site.patience;
  const clock = (name, key, patience) => {
    const t = row[key], late = isLate(t, at, patience), c = column(key);
    const isOne = key === 'own' ? row.own != null || !row.address : !!row.address; // only our nodes are on NATS and the chain
    const state = t == null ? 'not_watched' : late ? (row.standing === 'not_watched' ? 'not_watched' : 'warning') : 'ok';
    return h('div', null, h('dt', null, name), h('dd', { ev: c.ev(row, at) }, h('span.st', null, icon(state), h('b', null, t != null ? age(at - t) + ' ago' : isOne ? 'never heard' : 'not a clock of this node'), patience && isOne ? h('span.mu', null, 'late after ' + age(patience)) : '')));
  };
  return [clock('Own beat', 'own', own), clock('NATS', 'nats', nats), clock('Chain', 'chain', chain), kv('Together', row.why || word(row.standing))];
}

function chain({ row, scored }) {
  if (!row.address) return [];
  return section('h-x', 'Chain', scored && h('span', null, 'the contract, asked ', ago(scored.asked)), scored ? chainFigures(scored) : empty('What the contract says of it is not known: the hub has no chain, or has not asked yet.'));
}

function beats({ row, slots, first_slot: first }) {
  if (row.own == null) return section('h-b', 'Beats', null, empty('This node sends no beats of its own.'));
  const count = (kind) => slots.filter((it) => it === kind).length, missed = count('missed');
  const from = (k) => hms((first + k) * SLOT_MS).slice(0, 5);
  const last = slots.lastIndexOf('missed');
  const strip = h('div.slots', { role: 'img', 'aria-label': `Beats of the last 5 hours in slots of 5 minutes: ${count('seen')} came, ${missed} missed, ${count('not_watched')} not watched` },
    slots.map((slot, k) => h('span.' + slot, { ev: `${from(k)} UTC: ${{ seen: 'a beat came', missed: 'no beat came, and the hub was there', not_watched: 'no beat came; the hub was not there all the time, or did not know the node', open: 'still open' }[slot]}` })));
  const axis = h('div.slotaxis', { 'aria-hidden': 'true' }, [0, 12, 24, 36, 48].map((k) => h('span', null, from(k))));
  const key = (kind, text) => h('span', null, h('i.' + kind), text);
  return section('h-b', 'Beats', `last 5 h in slots of 5 min: ${missed ? `${missed} missed, last at ${from(last)}` : 'none missed'}`, strip, axis,
    h('div.key', { 'aria-hidden': 'true' }, key('seen', 'came'), key('missed', 'missed'), key('not_watched', 'not watched, or still open')));
}

function cardsOf({ presence }) {
  const gpus = Array.isArray(presence?.gpus) ? presence.gpus : null;
  if (!gpus) return section('h-g', 'GPUs', null, empty('This node does not say which cards it has.'));
  if (!gpus.length) return section('h-g', 'GPUs, none', null, empty('This node takes jobs without cards.'));
  const rows = gpus.map((card, k) => [String(k), model(String(card.model ?? '–')), gib(card.vram_mib), gib(card.free_mib), badge(card.health === 'ok' ? 'ok' : 'warning', String(card.health ?? 'unknown'))]);
  const part = section('h-g', 'GPUs', 'presence on NATS', table('GPUs', ['Card', 'Model', '>Memory', '>Free', 'Health'], rows));
  evidence(part.querySelector('h2'), cards({ count: gpus.length, model: String(gpus[0].model ?? ''), vram_mib: 0 }));
  return part;
}

function said({ presence, row }) {
  if (!presence) return [];
  const cores = presence.milli_cpus == null ? '–' : n0(presence.milli_cpus / 1000);
  const list = (it) => Array.isArray(it) && it.length ? it.join(', ') : '–';
  return section('h-s', 'What it offers', row.nats && h('span', null, 'presence, ', ago(row.nats)), h('dl.kv', null,
    kv('Takes jobs', presence.ready ? badge('ok', 'yes') : badge('warning', 'no: ' + (presence.reason || 'it does not say why'))),
    kv('Slots', presence.slots == null ? '–' : `${n0(presence.slots)}, ${presence.free_slots ?? '–'} free`), kv('Cores', cores), kv('Memory', gib(presence.memory_mib)), kv('Disk', gib(presence.disk_mib)),
    kv('Networks', list(presence.networks)), kv('Sandbox', presence.sandbox || '–'), kv('Pools', list(presence.pools))));
}

function history({ standings }) {
  if (!standings.length) return section('h-h', 'History', null, empty('Its standing has never changed.'));
  return section('h-h', 'History', null, h('ul.hl', null, standings.map((it) => h('li', null, icon(it.standing), h('span', null, word(it.standing)), h('span', null, ago(it.at), h('small', null, it.why))))));
}

function gswarm(whole) {
  const keyed = Object.entries(whole.gswarm || {});
  return keyed.length ? section('h-w', 'Gswarm', 'told by its beats', h('dl.kv', null, keyed.map(([k, v]) => kv(word(k), mono(typeof v === 'string' ? v : JSON.stringify(v)))))) : [];
}
