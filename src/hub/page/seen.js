// Who saw what: each watcher's newest word about a node, with its evidence, and what changed.

import { ago, ask, badge, capital, empty, failed, h, icon, loading, mono, section, short, word } from './ui.js';

/// A watcher speaks every five minutes.
const AGAIN_MS = 60_000;
const QUESTIONS = ['alive', 'training', 'published', 'earning', 'swarm'];
const STATE = { yes: 'ok', no: 'down', waiting: 'run', unknown: 'not_watched', not_expected: 'silenced' };

/// The section of this node, which fills by itself until `signal` aborts.
export function seenSection(name, signal) {
  const body = h('div', null, loading('what watchers say'));
  async function load() {
    try { body.replaceChildren(...told(name, await ask('/api/fleet/seen', { name }, signal))); } catch (err) {
      if (err.name !== 'AbortError') body.replaceChildren(failed(err, load));
    }
  }
  const timer = setInterval(() => { if (!document.hidden) load(); }, AGAIN_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
  load();
  return section('h-o', 'Who saw what', 'signed by each watcher', body);
}

function told(name, { rows, disagree, changes }) {
  if (!rows.length) return [empty('No watcher has said anything of this node.')];
  const differ = disagree.map(word).join(', ');
  return [disagree.length > 0 && h('div.say.bad', { role: 'alert' }, h('p', null, h('b', null, `The watchers disagree: ${differ}.`))),
    rows.map((row) => watcher(name, row, disagree)), past(changes)].flat().filter(Boolean);
}

function watcher(name, { said, at, heard, since, is_verified: good, is_late: late, signature }, disagree) {
  const facts = [said.profile && 'profile ' + said.profile, said.version && 'version ' + said.version, said.peer && 'peer ' + short(said.peer, 8, 6)];
  return h('article.watcher', null,
    h('p', null, mono(said.watcher), ' ', badge(good ? 'ok' : 'down', good ? 'signature verified' : 'the signature is not its own'), ' ',
      h('span.mu', { ev: 'signature ' + signature }, 'said ', ago(at, 'signed by the watcher'), late && h('b', null, ', silent since')), ' ', h('span.mu', null, 'heard ', ago(heard, 'when the hub heard it')),
      said.program !== name && h('b', null, ` signed for ${said.program}, the node's name then`)),
    h('p', null, said.says, ' ', h('span.mu', null, 'since ', ago(since))),
    h('ul.hl', null, QUESTIONS.map((name) => finding(name, said.answers[name], disagree.includes(name)))),
    h('p.mu', null, facts.filter(Boolean).join(' · ')));
}

function finding(name, found, differs) {
  if (!found) return null;
  const { answer, why, remedy, evidence = [] } = found;
  const ev = evidence.map((it) => h('small', null, `${it.source}: ${it.what} `, ago(Date.parse(it.at))));
  return h('li', null, icon(STATE[answer] || 'info'), h('span', null, capital(name)),
    h('span', null, h('b', null, word(answer)), differs && h('b', null, ' (others disagree)'), `: ${why}`, remedy && h('small', null, remedy), ev));
}

function past(changes) {
  if (!changes.length) return null;
  const line = (it) => h('li', null, icon(it.gist?.troubles?.length ? 'warning' : 'ok'), h('span.m', { ev: it.watcher }, short(it.watcher, 6, 4)), h('span', null, ago(it.at), h('small', null, it.says)));
  return h('ul.hl', { tabindex: 0, 'aria-label': 'What changed' }, changes.map(line));
}
