// What jobs use, as small plots: the mean as a line over its range; a gap where nobody looked, never a line over it.

import { ask, empty, gib, h, hms, iso, n0, short, word } from './ui.js';

const NS = 'http://www.w3.org/2000/svg';
const WIDTH = 240, HEIGHT = 36;
let made = 0;
const WHY = { off: 'the job’s profile does not ask for it', not_supported: 'not supported there', denied: 'not allowed to the node’s user', too_old: 'the driver is too old', gone: 'it had ended', failed: 'it could not be read', missed: 'not all was seen' };
export const because = (why) => WHY[why] || word(why);

function svg(tag, attributes, ...kids) {
  const element = document.createElementNS(NS, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...kids);
  return element;
}

const one = (x) => x >= 100 ? n0(x) : x >= 10 ? x.toFixed(1) : x.toFixed(2);
export const UNIT = {
  cores: (x) => one(x) + (x === 1 ? ' core' : ' cores'),
  bytes: (x) => x < 1048576 ? n0(x / 1024) + ' KiB' : x < 1073741824 ? one(x / 1048576) + ' MiB' : gib(x / 1048576),
  percent: (x) => n0(x) + ' %',
  cards: (x) => one(x),
  watts: (x) => n0(x) + ' W',
};

/// One plot. A point is `{from, until, low, mean, high}`; one that is not there is a gap.
export function plot(name, unit, points, [begin, end], unknown) {
  const say = UNIT[unit], known = points.filter((it) => it.mean != null);
  if (!known.length) return h('figure.plot', null, h('figcaption', null, h('span', null, name), h('b.mu', null, 'unknown')), h('p.mu', null, unknown ? 'unknown: ' + because(unknown) : 'no sample yet'));
  const peak = Math.max(...known.map((it) => it.high)), top = unit === 'percent' ? Math.max(100, peak) : peak || 1;
  const time = known.reduce((sum, it) => sum + it.until - it.from, 0);
  const mean = time > 0 ? known.reduce((sum, it) => sum + it.mean * (it.until - it.from), 0) / time : known[0].mean;
  const x = (t) => ((t - begin) / Math.max(1, end - begin) * WIDTH).toFixed(1), y = (v) => (HEIGHT - 1 - v / top * (HEIGHT - 3)).toFixed(1);
  // Runs of points that follow each other.
  const runs = [];
  for (const it of known) {
    const last = runs.at(-1)?.at(-1);
    if (last && it.from - last.until < 1500) runs.at(-1).push(it); else runs.push([it]);
  }
  const steps = (run, key) => run.map((it) => `${x(it.from)},${y(it[key])} L${x(it.until)},${y(it[key])}`).join(' L');
  const line = runs.map((run) => 'M' + steps(run, 'mean')).join(' ');
  const band = runs.map((run) => `M${steps(run, 'high')} L${run.toReversed().map((it) => `${x(it.until)},${y(it.low)} L${x(it.from)},${y(it.low)}`).join(' L')}Z`).join(' ');
  const area = runs.map((run) => `M${x(run[0].from)},${HEIGHT} L${steps(run, 'mean')} L${x(run.at(-1).until)},${HEIGHT}Z`).join(' ');
  // Hatching where nobody looked.
  const gaps = [], id = 'gap' + ++made;
  let seen = begin;
  for (const run of [...runs, [{ from: end, until: end }]]) {
    if (run[0].from - seen > (end - begin) / 200) gaps.push(svg('rect', { x: x(seen), y: 0, width: x(run[0].from - seen + begin), height: HEIGHT, class: 'gap', fill: `url(#${id})` }));
    seen = run.at(-1).until;
  }
  if (gaps.length) gaps.unshift(svg('pattern', { id, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, svg('rect', { width: 1.4, height: 5, class: 'hatch' })));
  const told = `${name}: mean ${say(mean)}, peak ${say(peak)}${unknown ? '; part of it is unknown: ' + because(unknown) : ''}`;
  const figure = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${told}, from ${hms(begin)} to ${hms(end)}` }, ...gaps, svg('path', { d: area, class: 'area' }), svg('path', { d: band, class: 'band' }), svg('path', { d: line, class: 'line' }));
  return h('figure.plot', { ev: `${told} · ${n0(known.length)} rollups from ${iso(begin)} to ${iso(end)} · stream USAGE` }, h('figcaption', null, h('span', null, name), h('b', null, say(mean)), h('span.mu', null, 'peak ' + say(peak))), figure, unknown ? h('p.mu', null, 'partly unknown: ' + because(unknown)) : null);
}

const values = (rolled, scale) => Array.isArray(rolled) ? { low: rolled[0] / scale, mean: rolled[1] / scale, high: rolled[2] / scale } : {};
const whyOf = (all) => all.find((it) => typeof it === 'string');

/// A job's plots: the job as a whole, then each of its cards.
export function jobPlots({ points, metrics, card_metrics: cardMetrics, span_s: span, missed, seq }, isOver) {
  if (!points?.length) return empty(isOver ? 'No figures came: the job was not watched.' : 'No figures have come: the job is not watched, or its first batch is under way.');
  const range = [points[0].from, points.at(-1).from + points.at(-1).ms];
  const place = (it) => ({ from: it.from, until: it.from + it.ms });
  const of = (row, unit, name, pick, scale) => plot(name, unit, points.map((it) => ({ ...place(it), ...values(pick(it), scale) })), range, whyOf(points.map(pick)));
  const at = Object.fromEntries(metrics.map((name, k) => [name, k])), onCard = Object.fromEntries(cardMetrics.map((name, k) => [name, k]));
  const cores = points.map((it) => { const us = it.job[at.cpu_us], mean = Number.isFinite(us) && it.ms > 0 ? us / it.ms / 1000 : null; return { ...place(it), low: mean, mean, high: mean }; });
  const rows = [h('div.plots', null, plot('CPU', 'cores', cores, range, whyOf(points.map((it) => it.job[at.cpu_us]))), of(points, 'bytes', 'Memory', (it) => it.job[at.memory_bytes], 1))];
  const cards = [...new Set(points.flatMap((it) => it.cards.map(([uuid]) => uuid)))];
  cards.forEach((uuid, k) => {
    const card = (name) => (it) => it.cards.find(([other]) => other === uuid)?.[1][onCard[name]];
    rows.push(h('h3.card', { ev: uuid }, `GPU ${k} `, h('span.m.mu', null, short(uuid, 12, 4))), h('div.plots', null, of(points, 'percent', 'Busy', card('gpu_busy_percent'), 1), of(points, 'bytes', 'VRAM', card('gpu_memory_bytes'), 1), of(points, 'watts', 'Power', card('gpu_power_mw'), 1000)));
  });
  const every = span < 3600 ? `${span / 60} min` : `${span / 3600} h`;
  rows.push(h('p.mu', { ev: `stream USAGE, last batch seq ${n0(seq)}` }, `Rollups of ${every}.${missed ? ` ${missed === 1 ? 'One batch' : n0(missed) + ' batches'} never came.` : ''}`));
  return rows;
}

const DAY = [['cpu_milli', 'CPU', 'cores', 1000], ['memory_bytes', 'Memory', 'bytes', 1], ['gpu_busy_percent', 'GPUs busy', 'cards', 100], ['gpu_memory_bytes', 'VRAM', 'bytes', 1], ['gpu_power_mw', 'Power', 'watts', 1000]];

/// A node's plots of its last day: what its jobs used together.
export async function dayPlots(node, signal) {
  const { series, unknown, slot_ms: slot, first_slot: first, at } = await ask('/api/usage', { node }, signal);
  if (!Object.keys(series).length && !Object.keys(unknown).length) return empty('No job that was watched ran here in the last 24 h.');
  const range = [first * slot, Math.max(at, first * slot + 1)];
  const figures = DAY.filter(([key]) => series[key] || unknown[key]).map(([key, name, unit, scale]) => plot(name, unit, (series[key] || []).map((it, k) => ({ from: (first + k) * slot, until: Math.min(at, (first + k + 1) * slot), low: it == null ? null : it / scale, mean: it == null ? null : it / scale, high: it == null ? null : it / scale })), range, unknown[key]));
  return h('div.plots', null, figures);
}
