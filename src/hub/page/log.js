// What a job writes, live: over the event stream of this tab, from the moment on at which somebody looks.

import { h, hms, n0, straight } from './ui.js';
import { follow } from './live.js';

/// The most lines that are shown; those of before go.
const LINES_MAX = 2_000;

/// The section's parts, and what ends it.
export function logOf(node, job) {
  let isOn = true, end = null, last = 0, count = 0, missing = 0;
  const body = h('div.log', { tabindex: 0, role: 'log', 'aria-live': 'off', 'aria-label': 'Log, live' });
  const note = h('span.mu', { role: 'status' });
  const button = h('button', { type: 'button', 'aria-pressed': 'true', onclick: () => turn(!isOn) }, 'Follow');
  const tell = (text) => { note.textContent = text + (missing ? `; ${n0(missing)} lines are missing` : ''); };

  function take({ lines = [], dropped, is_heard: isHeard, is_lost: isLost }) {
    if (isHeard != null) { tell(isHeard ? 'live, from now on' : 'the hub does not hear it now'); return; }
    if (isLost) missing++;
    missing += dropped || 0;
    const isAtEnd = !body.isConnected || body.scrollHeight - body.scrollTop - body.clientHeight < 30;
    const added = [];
    for (const [seq, at, isError, line] of lines) {
      if (seq <= last) continue; // told twice
      if (last && seq > last + 1) added.push(h('div.mu', null, `… ${n0(seq - last - 1)} lines are missing here`));
      last = seq;
      added.push(h('div' + (isError ? '.err' : ''), null, h('time', { datetime: at == null ? null : new Date(at).toISOString() }, at == null ? '' : hms(at)), h('span', { title: isError ? 'stderr' : 'stdout' }, isError ? '!' : ' '), h('span', null, straight(line) || ' ')));
    }
    count += lines.length;
    body.append(...added);
    while (body.childElementCount > LINES_MAX) body.firstChild.remove();
    if (isAtEnd) body.scrollTop = body.scrollHeight;
    if (lines.length || dropped || isLost) tell(`${n0(count)} lines`);
  }
  function turn(on) {
    isOn = on;
    button.setAttribute('aria-pressed', String(on));
    end?.();
    end = on ? follow(node, job, take) : null;
    tell(on ? 'asking for it' : 'not followed');
  }
  turn(true);
  return { parts: [h('div.logbar', null, button, note), body], end: () => end?.() };
}
