// The one event stream of this tab, and the mark that says how old what is shown may be.

import { $, ask, h, icon, now, setNow, site } from './ui.js';

/// Without a sign for so long, what is shown is behind: the hub says that it is there every 15 s.
const BEHIND_MS = 20_000;
/// How often a page without a stream asks again.
const POLL_MS = 10_000;

const hearers = { fleet: new Set(), alerts: new Set(), events: new Set(), snapshot: new Set(), log: new Set() };
/// Calls `f` with each message of a topic until the returned function is called.
export function on(topic, f) {
  hearers[topic].add(f);
  return () => hearers[topic].delete(f);
}
const tell = (topic, body) => { for (const f of hearers[topic]) f(body); };

const mark = $('#live');
let source = null;
let heard = 0; // when something last came
let helloAt = 0; // the hub's time at the begin of the stream
let shown = '';
let polls = false;
export const streamSince = () => helloAt;

function show() {
  const silent = Date.now() - heard;
  const isOpen = source && source.readyState === EventSource.OPEN;
  const [state, text, why] = polls ? ['info', 'every 10 s', 'Without a log-in there is no event stream; this page asks again.']
    : !heard ? ['info', 'connecting', 'The event stream of this tab is being opened.']
    : !isOpen ? ['down', 'not connected', 'The event stream is gone. What is shown is from the last message.']
    : silent > BEHIND_MS ? ['warning', 'behind ' + Math.floor(silent / 1000) + ' s', 'Nothing has come for longer than the hub is ever silent.']
    : ['up', 'live', 'One event stream for this tab. The hub is heard at least every 15 s.'];
  if (shown === text) return;
  shown = text;
  mark.replaceChildren(icon(state), h('span', null, text));
  mark.title = why;
  mark.dataset.state = state;
}

function take(event) {
  heard = Date.now();
  let body;
  try { body = JSON.parse(event.data); } catch { return; }
  if (body.at) setNow(body.at);
  if (body.hello) {
    // What was fetched before this moment may lack what changed since.
    helloAt = body.at;
    tell('snapshot', body);
    alerts();
  } else if (body.snapshot) {
    tell('snapshot', body);
    alerts();
  } else if (body.counts) tell('fleet', body);
  else if (body.alerts) { tell('alerts', body); alerts(); }
  else if (body.events) tell('events', body);
  else if (body.log) tell('log', body.log);
  show();
}

/// How many incidents are open, for the top bar.
let asking = false;
async function alerts() {
  if (asking) return;
  asking = true;
  try {
    const { open_total: open } = await ask('/api/alerts');
    const text = open ? String(open) : '';
    $('#nalerts').textContent = text;
    $('#nalerts').classList.toggle('some', open > 0);
  } catch { $('#nalerts').textContent = ''; } finally { asking = false; }
}

export function begin() {
  setInterval(show, 1000);
  show();
  if (site.public !== 'full') {
    polls = true;
    setInterval(() => { if (!document.hidden) tell('snapshot', { at: now() }); }, POLL_MS);
    return;
  }
  open();
}

let log = null; // whose log comes over the stream too
/// Calls `f` with what a job writes until the returned function is called. The stream of this tab begins anew with it.
export function follow(node, job, f) {
  const own = { node, job }, end = on('log', f);
  log = own;
  again();
  return () => { end(); if (log === own) { log = null; again(); } };
}
function again() {
  if (!source) return;
  source.close();
  clearTimeout(opening);
  opening = setTimeout(open, 50); // from one job to the next is one change
}

let opening = 0;
function open() {
  const query = new URLSearchParams({ topics: 'fleet,alerts,events' });
  if (log) { query.set('log_node', log.node); query.set('log_job', log.job); }
  source?.close();
  source = new EventSource('/api/stream?' + query);
  source.onmessage = take;
  source.addEventListener('tick', () => { heard = Date.now(); show(); });
  source.onerror = () => {
    show();
    // A stream that was refused is closed for good; one that broke is asked for again by the browser.
    if (source.readyState === EventSource.CLOSED) opening = setTimeout(open, 5_000 + Math.random() * 5_000);
  };
}
