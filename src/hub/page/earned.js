// Earnings and idle time: how long cards were there, held by jobs and computing, day by day and node by node.

import { ago, ask, empty, failed, h, hints, iso, leave, loading, main, n0, nodeHref, section, table, title } from './ui.js';

const HOUR = 3_600_000;
const hours = (ms) => ms < HOUR ? (ms / 60_000).toFixed(ms && ms < 600_000 ? 1 : 0) + ' min' : ms < 100 * HOUR ? (ms / HOUR).toFixed(1) + ' h' : n0(ms / HOUR) + ' h';
const share = (part, whole) => whole > 0 ? (part / whole * 100).toFixed(1) + ' %' : '–';
/// How many nodes are shown at first.
const SHOWN = 50;
const RANGES = [7, 14, 30, 90];

const jobs = (it) => `${n0(it.completed)} completed, ${n0(it.failed)} failed, ${n0(it.other)} cancelled or rejected`;
const idle = (it) => Math.max(0, it.cards_there_ms - it.card_ms);
const hasCards = (it) => it.cards_there_ms > 0 || it.card_ms > 0;
// Jobs are told afterwards too; whether a card was there is known only of when the hub watched.
const isKnown = (it) => it.cards_there_ms > 0 && it.card_ms <= it.cards_there_ms;
const UNSEEN = 'not known: jobs held cards while the hub did not watch whether they were there';

function bar(it) {
  const whole = Math.max(it.cards_there_ms, it.card_ms), percent = (ms) => whole ? ms / whole * 100 + '%' : '0%';
  const told = `of ${hours(it.cards_there_ms)} of cards there: ${hours(it.card_ms)} held by jobs, ${hours(it.busy_ms)} computing${it.busy_unknown ? `; of ${hours(it.busy_unknown)} it is not known` : ''}, ${isKnown(it) ? hours(idle(it)) + ' idle' : 'idle time is not known'}`;
  return h('div.share', { role: 'img', 'aria-label': told, ev: told }, h('i.held', { style: { width: percent(it.card_ms) } }), h('i.busy', { style: { width: percent(it.busy_ms) } }));
}
const busy = (it) => !it.card_ms ? '–' : it.busy_unknown >= it.card_ms ? h('span.mu', { ev: 'no watched job has told how long its cards computed' }, 'unknown') : h('span', { ev: it.busy_unknown ? `of ${hours(it.busy_unknown)} more it is not known` : 'signed usage records of the jobs' }, hours(it.busy_ms) + (it.busy_unknown ? ' +' : ''));
const cells = (it) => [h('span', { ev: `${jobs(it)} · terminal statuses on NATS` }, `${n0(it.completed)} / ${n0(it.failed)}`), h('span', { ev: 'receipts in terminal statuses' }, n0(it.receipts)),
  hasCards(it) ? h('span', { ev: 'time in which the node stood up while the hub watched, times the cards that it says it has' }, it.known_ms ? hours(it.cards_there_ms) : 'unknown') : '–', it.card_ms ? h('span', { ev: 'receipts: run time times cards' }, hours(it.card_ms)) : hasCards(it) ? '0 min' : '–', busy(it),
  isKnown(it) ? h('b', { ev: `${hours(idle(it))} idle` }, share(idle(it), it.cards_there_ms)) : h('span.mu', { ev: hasCards(it) ? UNSEEN : 'no cards' }, '–'), hasCards(it) ? bar(it) : '–'];
const HEADS = ['>Done / failed', '>Receipts', '>GPU time there', '>Held by jobs', '>Computing', '>Idle', 'Held, computing'];
const uptime = (it) => it.known_ms ? h('span', { ev: `up for ${hours(it.up_ms)} of ${hours(it.known_ms)} in which the hub watched` }, share(it.up_ms, it.known_ms)) : h('span.mu', { ev: 'the hub did not watch' }, '–');
const score = ({ chain }) => chain ? h('span', { ev: `score ${n0(chain.score)} of 10,000, ${n0(chain.on_time)} heartbeats on time, ${n0(chain.missed)} missed · asked of the contract at ${iso(chain.asked)}` }, n0(chain.score)) : h('span.mu', { ev: 'the hub has no chain, or has not asked yet' }, '–');

export function earningsPage(search) {
  const query = new URLSearchParams(search), node = query.get('node') || '', days = Number(query.get('days')) || 14;
  title(node ? 'Earnings of ' + node : 'Earnings');
  hints('u');
  const abort = new AbortController();
  leave(() => abort.abort());
  const to = (n) => '#/earnings?' + new URLSearchParams({ days: n, ...(node && { node }) });
  const body = h('div', null, loading('earnings'));
  main.replaceChildren(h('div.page', { tabindex: 0, role: 'region', 'aria-label': 'Earnings' },
    h('div.phead', null, h('div.ttl', null, h('h1', null, node ? ['Earnings and idle time of ', h('a.a', { href: nodeHref(node) }, node)] : 'Earnings and idle time'), h('span.sp'),
      h('nav.chips', { 'aria-label': 'Days' }, RANGES.map((n) => h('a.chip', { href: to(n), 'aria-current': n === days ? 'true' : null }, `${n} d`))))), body));
  async function load() {
    try {
      const told = await ask('/api/earnings', { days, node }, abort.signal);
      body.replaceChildren(...show(told, node));
    } catch (err) { if (err.name !== 'AbortError') body.replaceChildren(failed(err, load)); }
  }
  load();
}

function show({ days, nodes, total, left_out: leftOut }, node) {
  const figure = (name, value, ev) => h('div', { ev }, h('dt', null, name), h('dd', null, value));
  const facts = h('dl.figures', null,
    figure('GPU time there', hasCards(total) ? hours(total.cards_there_ms) : 'unknown', 'time in which nodes stood up while the hub watched, times the cards that they say they have'),
    figure('Held by jobs', isKnown(total) ? share(total.card_ms, total.cards_there_ms) : hours(total.card_ms), hours(total.card_ms) + ', by receipts'),
    figure('Idle', isKnown(total) ? share(idle(total), total.cards_there_ms) : '–', isKnown(total) ? hours(idle(total)) : UNSEEN),
    figure('Jobs completed', n0(total.completed), jobs(total)), figure('Failed', n0(total.failed), jobs(total)), figure('Receipts', n0(total.receipts), 'in terminal statuses'),
    figure('Uptime', total.known_ms ? share(total.up_ms, total.known_ms) : '–', `up for ${hours(total.up_ms)} of ${hours(total.known_ms)} in which the hub watched`));
  const notes = [`Jobs count when they end; those that still run are not in it yet. Days are UTC.`, total.cards_unknown && !node ? `${n0(total.cards_unknown)} nodes do not say which cards they have; they count in jobs and uptime alone.` : null, total.busy_unknown ? `How long cards computed is known of watched jobs alone: of ${hours(total.busy_unknown)} held it is not.` : null].filter(Boolean);
  const daily = days.toReversed().map((it) => [iso(it.day).slice(0, 10), ...cells(it), uptime(it)]);
  const parts = [facts, h('p.mu', null, notes.join(' ')), section('h-d', 'By day', null, table('Days', ['Day', ...HEADS, '>Uptime'], daily))];
  if (node) {
    const { chain } = nodes[0] || {};
    parts.push(section('h-c', 'Chain', chain && h('span', null, 'the contract, asked ', ago(chain.asked)), chain ? chainFigures(chain) : empty('The hub has no chain, or has not asked it about this node yet.')));
  } else parts.push(section('h-n', 'By node', `${n0(nodes.length + leftOut)} nodes, who holds most cards first${leftOut ? `; ${n0(leftOut)} are not listed, and count above` : ''}`, byNode(nodes)));
  return parts;
}

/// A table of nodes, of which most are shown when somebody asks for them.
function byNode(nodes) {
  if (!nodes.length) return empty('No node is known.');
  const row = (it) => [h('a.a', { href: '#/earnings?' + new URLSearchParams({ node: it.name }) }, it.name), it.cards == null ? '–' : n0(it.cards), ...cells(it), uptime(it), score(it)];
  const of = (some) => table('Nodes', ['Node', '>GPUs', ...HEADS, '>Uptime', '>Score'], some.map(row));
  const box = h('div', null, of(nodes.slice(0, SHOWN)));
  if (nodes.length > SHOWN) box.append(h('p.older', null, h('button', { type: 'button', onclick: () => box.replaceChildren(of(nodes)) }, `${n0(nodes.length - SHOWN)} more`)));
  return box;
}

/// What the contract says of a node.
export function chainFigures(chain) {
  const slots = chain.on_time + chain.missed, figure = (name, value) => h('div', null, h('dt', null, name), h('dd', null, value));
  return h('dl.figures', { ev: `reputationOf on the contract, asked at ${iso(chain.asked)}` }, figure('Score of 10,000', n0(chain.score)), figure('Uptime', share(chain.on_time, slots)), figure('On time', n0(chain.on_time)), figure('Missed', n0(chain.missed)), figure('Streak', n0(chain.streak)), figure('Claimed done', n0(chain.completed_claimed)), figure('Claimed failed', n0(chain.failed_claimed)), figure('Confirmed', n0(chain.confirmed)));
}
