// One job: its stages as they were told, what it used, its receipt.

import { ago, ask, badge, capital, empty, failed, gib, h, hints, hms, iso, kv, leave, loading, main, mono, n0, nodeHref, now, section, short, site, span, table, title, word } from './ui.js';
import { on } from './live.js';
import { logOf } from './log.js';
import { UNIT as UNITS, jobPlots } from './plot.js';

const RUNS = new Set(['running']);
const BAD = new Set(['failed', 'timed_out', 'rejected', 'interrupted']);
const time = (status) => Date.parse(status.timestamp);
const proof = (status) => status.record == null ? 'STATUS' : `STATUS record ${n0(status.record)}, heard at ${iso(status.heard)}`;
const stageOf = (status) => status.stage || status.status || 'unknown';

export function jobPage(node, job) {
  title(job);
  hints('u');
  const abort = new AbortController();
  let isLeft = false, timer = 0, told = null;
  leave(() => { isLeft = true; abort.abort(); clearTimeout(timer); });
  const crumb = h('nav.crumb', { 'aria-label': 'Path' }, h('a', { href: '#/fleet' }, 'Fleet'), h('span', { 'aria-hidden': 'true' }, '/'), h('a', { href: nodeHref(node) }, node), h('span', { 'aria-hidden': 'true' }, '/'), h('span', null, 'job'));
  const top = h('div.phead', null, crumb, h('div.ttl', null, h('h1', null, job)));
  const page = h('div.page', { tabindex: 0, role: 'region', 'aria-label': 'Job ' + job }, top, loading('the job'));
  main.replaceChildren(page);

  async function load() {
    try {
      told = await ask('/api/job', { node, job }, abort.signal);
      if (isLeft) return;
      show();
      uses();
    } catch (err) {
      if (err.name !== 'AbortError' && !isLeft) page.replaceChildren(top, failed(err, err.status === 404 ? null : load));
    }
  }
  const plots = h('div', null, loading('what it uses'));
  const uses = () => ask(`/api/jobs/${encodeURIComponent(node)}/${encodeURIComponent(job)}/usage`, null, abort.signal).then((used) => {
    plots.replaceChildren(...[jobPlots(used, told?.is_over)].flat());
  }).catch((err) => { if (err.name !== 'AbortError') plots.replaceChildren(failed(err, uses)); });
  // Batches come each minute or seldomer.
  const look = setInterval(() => { if (told && !told.is_over && !document.hidden) uses(); }, 30_000);
  leave(() => clearInterval(look));
  // The parts stay, so that the log keeps its place while what is around it is told anew.
  const part = () => h('div'), head = h('div.phead'), [stages, log, uses_, list, used_, signed] = [part(), part(), part(), part(), part(), part()];
  uses_.append(section('h-p', 'Usage', null, plots));
  let live = null;
  leave(() => live?.end());
  function logPart(last) {
    if (!told.is_over && site.logs) {
      if (!live) {
        live = logOf(node, job);
        log.replaceChildren(section('h-l', 'Log', 'stdout, and stderr (!)', live.parts));
      }
      live.at(last.attempt);
    } else if (!told.is_over) {
      live?.end();
      live = null;
      log.replaceChildren(section('h-l', 'Log', null, empty('What a job writes is shown to people who are logged in.')));
    } else {
      live?.end();
      const kept = last.log_cid ? ['Its log was kept as ', mono(String(last.log_cid)), '; ', h('code', null, 'lamda-node logs ' + job), ' shows it.'] : 'No log was kept of it.';
      log.replaceChildren(section('h-l', 'Log', null, live ? live.parts : null, h('p.mu.empty', null, kept)));
    }
  }
  const later = () => { clearTimeout(timer); timer = setTimeout(load, 1_000); };
  leave(on('events', ({ events }) => { if (events.some((e) => e.job === job)) later(); }));
  leave(on('snapshot', () => { if (told) later(); }));
  const tick = setInterval(() => { if (told && !told.is_over && !document.hidden) show(); }, 5_000);
  leave(() => clearInterval(tick));

  function show() {
    const statuses = (Array.isArray(told.statuses) ? told.statuses : []).filter((it) => it && typeof it.status === 'object' && it.status).map((it) => ({ ...it.status, record: it.seq, heard: it.at }));
    const last = statuses.at(-1) || {}, state = stageOf(last) === 'unknown' ? told.status : stageOf(last);
    const facts = [['Node', h('a.a', { href: nodeHref(node) }, node)], ['Account', mono(told.address)], ['Attempt', last.attempt == null ? '–' : String(last.attempt)], ['First heard', ago(told.first, 'first status')], ['Last heard', ago(told.last, proof(last))]];
    head.replaceChildren(crumb, h('div.ttl', null, h('h1', null, job), badge(state), h('span.mu', null, span((told.is_over ? told.last : now()) - told.first))),
      h('dl.facts', null, facts.map(([a, b]) => kv(a, b))),
      ...(last.error ? [h('div.say' + (BAD.has(state) ? '.bad' : ''), null, h('p', null, h('b', null, capital(word(last.reason_code || state))), `${last.exit_code == null ? '' : ', exit ' + last.exit_code}: ${last.error}`))] : []));
    stages.replaceChildren(section('h-s', 'Stages', null, statuses.length ? gantt(statuses, told) : empty('No status of this job can be read.')));
    list.replaceChildren(section('h-t', 'Statuses', 'as the node told them', listed(statuses)));
    used_.replaceChildren(section('h-u', 'Used', null, used(last)));
    signed.replaceChildren(section('h-e', 'Receipt', last.receipt && h('a.btn', { href: '/check#' + encodeURIComponent(node) + '/' + encodeURIComponent(job) }, 'Check'), receipt(last, told)));
    if (!head.isConnected) page.replaceChildren(head, h('div.cols', null, h('div', null, stages, log, uses_, list), h('div', null, used_, signed)));
    logPart(last);
  }
  load();
}

function gantt(statuses, told) {
  const steps = statuses.filter((it) => Number.isFinite(time(it)));
  if (!steps.length) return empty('Its statuses tell no time.');
  const begin = time(steps[0]), end = Math.max(told.is_over ? time(steps.at(-1)) : now(), begin + 1);
  const percent = (t) => Math.max(0, Math.min(100, (t - begin) / (end - begin) * 100)) + '%';
  const bars = [];
  steps.forEach((it, k) => {
    const stage = stageOf(it), next = steps[k + 1], until = next ? time(next) : end;
    const before = bars.at(-1);
    if (before?.stage === stage) { before.until = until; return; }
    if (next || !told.is_over) bars.push({ stage, from: time(it), until, isNow: !next });
  });
  const durations = steps.at(-1).duration_ms || {};
  const bar = ({ stage, from, until, isNow }) => h('li', null, h('span', null, word(stage)),
    h('div.track', { title: `${iso(from)} to ${isNow ? 'now' : iso(until)}` }, h('i' + (isNow ? '.now' : RUNS.has(stage) ? '.run' : ''), { style: { left: percent(from), width: `calc(${percent(until)} - ${percent(from)})` } })), h('span.r.mu', null, span(until - from)));
  const axis = [0, .25, .5, .75, 1].map((part) => h('span', { style: { left: part * 100 + '%' } }, hms(begin + (end - begin) * part)));
  const told_ms = Object.entries(durations).map(([name, ms]) => `${word(name)} ${span(ms)}`).join(', ');
  return [h('ol.gantt', null, bars.map(bar)), h('div.axis', { 'aria-hidden': 'true' }, h('b'), h('div', null, axis)), told_ms ? h('p.mu', null, 'By the node: ' + told_ms) : null];
}

function listed(statuses) {
  if (!statuses.length) return empty('None.');
  return table('Statuses', ['>Seq', 'Stage', 'When', 'What'], statuses.toReversed().slice(0, 200).map((it) => [String(it.seq ?? '–'), badge(stageOf(it)), Number.isFinite(time(it)) ? ago(time(it), proof(it)) : '–',
    h('span.wrap', null, it.error || (it.pull ? `${it.pull.layers_done} of ${it.pull.layers} layers` : it.output_cid ? ['output ', mono(String(it.output_cid))] : it.exit_code == null ? '' : 'exit ' + it.exit_code))]));
}

const UNIT = /_(ms|us|bytes|mj)$|(Ms|Us|Bytes|Mj)$/;
const SCALED = { ms: span, us: (it) => span(it / 1000), bytes: UNITS.bytes, mj: (it) => n0(it / 1000) + ' J' };
const figure = (key, it) => key.endsWith('At') ? iso(it).replace('T', ' ') : UNIT.test(key) ? SCALED[key.match(UNIT)[0].replace('_', '').toLowerCase()](it) : Number.isInteger(it) ? n0(it) : String(it);
/// A document of somebody else, flat: its keys, and what they hold.
function flat(value, prefix = '', out = []) {
  for (const [key, it] of Object.entries(value)) {
    if (out.length >= 60) break;
    const name = prefix + word(it == null || typeof it === 'number' ? key.replace(UNIT, '') : key).replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase();
    if (it && typeof it === 'object' && !Array.isArray(it)) flat(it, name + ' ', out);
    else out.push(kv(name, it == null ? '–' : typeof it === 'number' ? h('span', { ev: `${key} ${it}` }, figure(key, it)) : mono(typeof it === 'string' ? it : JSON.stringify(it))));
  }
  return out;
}

/// The figures of a usage record, in the order of the bits of `known`.
const FIGURES = ['cpuUs', 'memoryPeakBytes', 'ioReadBytes', 'ioWriteBytes', 'netRxBytes', 'netTxBytes', 'gpuMs', 'energyMj'];

function used(last) {
  const record = last.usage?.message || last.usage;
  if (!record || typeof record !== 'object') return empty('The node tells what a job used when it has ended.');
  // A figure that is not known is signed as 0, and its bit is not set.
  const isKnown = (k) => !Number.isInteger(record.known) || k < 0 || record.known >> k & 1;
  return h('dl.kv.w', null, flat(Object.fromEntries(Object.entries(record).map(([key, it]) => [key, isKnown(FIGURES.indexOf(key)) ? it : null]))));
}

function receipt(last, told) {
  const own = [last.output_cid && kv('Output', mono(String(last.output_cid))), last.log_cid && kv('Log', mono(String(last.log_cid))), last.exit_code != null && !last.receipt && kv('Exit code', String(last.exit_code)), last.signature && kv('Signature', mono(short(String(last.signature), 24, 10), String(last.signature)))].filter(Boolean);
  const signed = last.receipt && typeof last.receipt === 'object' ? flat(last.receipt.message || last.receipt) : [];
  if (!own.length && !signed.length) return empty(told.is_over ? 'No container was started, so there is no receipt.' : 'The node signs it when the container has ended.');
  return h('dl.kv.w', null, own, signed);
}
